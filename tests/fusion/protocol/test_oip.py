"""The message codec: what is right comes back the same; what is wrong is refused and never crashes."""

import json

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.protocol import oip, tensors
from fusion.protocol.oip import OipError, Request, TensorSpec

IMAGE = TensorSpec("image", "UINT8", (-1, 2, 1))
LOGITS = TensorSpec("logits", "FP32", (-1, 3))
LABEL = TensorSpec("label", "BYTES", (-1,))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def decode(body, header=None, inputs=(IMAGE,), outputs=(LOGITS, LABEL)):
    return oip.decode_request(body, header, "tiny", "1", inputs, outputs, 4)


def message(**changes):
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 2, 1], "data": [1, 2]}
    tensor |= changes.pop("tensor", {})
    for key in changes.pop("without", ()):
        del tensor[key]
    return {"inputs": [tensor], **changes}


def body(**changes):
    return json.dumps(message(**changes)).encode()


def elements(datatype):
    if datatype == "BYTES":
        return TEXT.map(str.encode)
    dtype = tensors.DTYPES[datatype]
    if dtype.kind == "f":
        return arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False)
    return arrays.from_dtype(dtype)


@st.composite
def tensor(draw):
    datatype = draw(st.sampled_from(sorted(tensors.DTYPES)))
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    dtype = tensors.DTYPES[datatype]
    return datatype, draw(arrays.arrays(dtype, shape, elements=elements(datatype)))


@settings(deadline=None)
@given(tensor(), st.booleans())
def test_response_comes_back_the_same(case, binary):
    datatype, array = case
    spec = TensorSpec("out", datatype, (-1, array.shape[1]))
    request = Request("é 7", {}, {"out": binary}, {})
    sent, header = oip.encode_response("m", "1", request, [(spec, array)], {"a": 1.5, "b": "x"})
    assert (header is not None) == binary
    response = oip.decode_response(sent, header, [spec], 4)
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "é 7")
    assert response.parameters == {"a": 1.5, "b": "x"}
    assert response.outputs["out"].dtype == array.dtype
    np.testing.assert_array_equal(response.outputs["out"], array)


@settings(deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(2), st.just(1))))
def test_request_comes_back_the_same(images):
    head = oip.request_json(IMAGE, images.shape, ["label"], {"timeline": True})
    request = decode(head + images.tobytes(), str(len(head)))
    np.testing.assert_array_equal(request.inputs["image"], images)
    assert request.outputs == {"label": True}
    assert request.parameters == {"timeline": True}
    nested = {"shape": list(images.shape), "data": images.tolist()}
    np.testing.assert_array_equal(decode(body(tensor=nested)).inputs["image"], images)


def test_outputs_asked_for():
    assert decode(body()).outputs == {"logits": False, "label": False}
    assert decode(body(outputs=[])).outputs == {"logits": False, "label": False}
    asked = body(parameters={"binary_data_output": True}, outputs=None)
    assert decode(asked).outputs == {"logits": True, "label": True}
    outputs = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "logits"}]
    asked = body(parameters={"binary_data_output": True}, outputs=outputs)
    assert decode(asked).outputs == {"label": False, "logits": True}


def entry(**more):
    return {"name": "label", **more}


TAKEN = {
    "KServe": body(id="5c", model_name="tiny", outputs=[entry(parameters={"binary_data": False})]),
    "its version": body(model_name="tiny", model_version="1"),
    "no version": body(model_version=""),
    "null": body(id=None, model_name=None, model_version=None, parameters=None, outputs=None),
    "content types": body(
        parameters={"content_type": "np"},
        tensor={"parameters": {"content_type": "np"}},
        outputs=[entry(parameters={"content_type": "str"})],
    ),
    "null content types": body(parameters={"content_type": None}, tensor={"parameters": {"content_type": None}}),
    "unknown parameters": body(
        parameters={"headers": {"x": "y"}, "priority": 3, "sequence_id": 0, "list": [1, [2]], "classification": 2},
        tensor={"parameters": {"layout": "NHWC", "binary_data": 1}},
        outputs=[entry(parameters={"level": 0.5, "binary_data_size": -1})],
    ),
    "null of those that count": body(
        parameters={"binary_data_output": None, "timeout": None},
        tensor={"parameters": {"binary_data_size": None}},
        outputs=[entry(parameters={"binary_data": None, "classification": None})],
    ),
    "tensors for outputs": body(outputs=[entry(datatype="BYTES", shape=[1])]),
    "other tensors for outputs": body(outputs=[entry(datatype="FP64", shape=[7, -1], data=[])]),
    "a byte-order mark": b"\xef\xbb\xbf" + body(),
    "a byte-order mark and space": b"\xef\xbb\xbf\r\n" + body(),
    "unknown keys": body(raw_output_contents=[], tensor={"dtype": "FP32"}, outputs=[entry(tags={})]),
}


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN)
def test_takes_what_other_servers_take(sent):
    request = decode(sent)
    np.testing.assert_array_equal(request.inputs["image"], [[[1], [2]]])
    asked = json.loads(sent.decode("utf-8-sig")).get("outputs")
    assert request.outputs == ({"logits": False, "label": False} if asked is None else {"label": False})


def test_takes_it_in_binary_too():
    more = {"parameters": {"content_type": "np", "binary_data_size": 2}, "data": None}
    plain = body(model_name="tiny", parameters={"content_type": "np", "binary_data_output": True}, tensor=more)
    for head in (plain, b"\xef\xbb\xbf" + plain):
        request = decode(head + b"\1\2", str(len(head)))
        np.testing.assert_array_equal(request.inputs["image"], [[[1], [2]]])
        assert request.outputs == {"logits": True, "label": True}


def test_a_request_that_is_known_is_not_taken_for_another_model():
    """Clients repeat themselves, and what they said is remembered."""
    sent = body(model_name="tiny")
    decode(sent)
    with pytest.raises(OipError, match='model_name is "tiny"; legal: "other"'):
        oip.decode_request(sent, None, "other", "1", (IMAGE,), (LOGITS, LABEL), 4)


BINARY = {"without": ["data"], "tensor": {"parameters": {"binary_data_size": 2}}}
LONG = "the JSON of the request has a number of thousands of digits; legal: numbers of 64 bits."
JSON_CASES = {
    "not JSON": (b"{", "not JSON"),
    "not an object": (b"[]", "JSON object"),
    "not UTF-8": (b'{"\xff": 1}', "not UTF-8 at byte 2"),
    "NaN": (b'{"inputs": NaN}', "NaN"),
    "too deep": (b"[" * 100_000, "nested too deeply"),
    "long integer": (b'{"id": ' + b"1" * 5000 + b"}", LONG),
    "long integer in data": (b'{"inputs": [{"data": [-' + b"7" * 9000 + b"]}]}", LONG),
    "long integer in a list": (b"[" + b"0, " * 50 + b"9" * 5000 + b"]", LONG),
    "two byte-order marks": (b"\xef\xbb\xbf" * 2 + body(), "not JSON"),
    "a byte-order mark alone": (b"\xef\xbb\xbf", "not JSON"),
    "not UTF-8 behind one": (b'\xef\xbb\xbf{"\xff": 1}', "not UTF-8 at byte 5"),
    "key twice": (b'{"id": "a", "id": "b"}', '"id" twice'),
    "another model": (body(model_name="other"), 'model_name is "other"; legal: "tiny", as the path says, or none'),
    "a model's number": (body(model_name=5), "model_name is 5; legal"),
    "an empty name": (body(model_name=""), 'model_name is ""; legal'),
    "another version": (body(model_version="2"), 'model_version is "2"; legal: "1", as the path says, or none'),
    "a version's number": (body(model_version=1), 'model_version is 1; legal: "1"'),
    "id": (body(id=5), "id is 5"),
    "parameters": (body(parameters=[1]), "legal: an object"),
    "all in binary": (
        body(parameters={"binary_data_output": "yes"}),
        "parameter 'binary_data_output' of the request is \"yes\"; legal: true or false",
    ),
    "no inputs": (b"{}", "inputs is null"),
    "inputs not a list": (b'{"inputs": {}}', "legal: a list of objects"),
    "input missing": (b'{"inputs": []}', "input 'image' is missing"),
    "input unknown": (body(tensor={"name": "img"}), 'input "img" is unknown'),
    "input name": (body(tensor={"name": ["image"]}), "is unknown"),
    "input twice": (json.dumps({"inputs": message()["inputs"] * 2}).encode(), "stands twice"),
    "shared memory": (
        body(tensor={"parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 2}}),
        "input 'image' has the parameter 'shared_memory_region', which is not served; legal: tensors as JSON or",
    ),
    "datatype": (body(tensor={"datatype": "FP32"}), 'datatype "FP32"; legal: UINT8'),
    "no datatype": (body(without=["datatype"]), "datatype null; legal: UINT8"),
    "rank": (body(tensor={"shape": [2, 1]}), "legal: [-1, 2, 1] with a batch of 1 to 4"),
    "size": (body(tensor={"shape": [1, 3, 1]}), "shape [1, 3, 1]"),
    "size type": (body(tensor={"shape": [True, 2, 1]}), "shape [true, 2, 1]"),
    "empty batch": (body(tensor={"shape": [0, 2, 1]}), "a batch of 1 to 4"),
    "large batch": (body(tensor={"shape": [5, 2, 1]}), "a batch of 1 to 4"),
    "no data": (body(without=["data"]), "either data or parameters.binary_data_size"),
    "both data": (body(tensor=BINARY["tensor"]), "either data or parameters.binary_data_size"),
    "data not a list": (body(tensor={"data": "ab"}), 'data "ab"'),
    "few data": (body(tensor={"data": [1]}), "1 elements; legal: 2"),
    "many data": (body(tensor={"data": [1, 2, 3]}), "3 elements; legal: 2"),
    "badly nested": (body(tensor={"data": [[1, 2]]}), "not nested"),
    "uneven rows": (body(tensor={"data": [[[1], [2, 3]]]}), "not nested"),
    "below range": (body(tensor={"data": [-1, 2]}), "-1; legal: integers from 0 to 255"),
    "above range": (body(tensor={"data": [1, 256]}), "256; legal: integers from 0 to 255"),
    "fraction": (body(tensor={"data": [1, 2.5]}), "2.5; legal: integers"),
    "boolean": (body(tensor={"data": [True, 2]}), "true; legal: integers"),
    "string": (body(tensor={"data": ["1", 2]}), '"1"; legal: integers'),
    "list": (body(tensor={"data": [1, [2]]}), "legal: integers"),
    "null": (body(tensor={"data": [None, 2]}), "null; legal: integers"),
    "outputs": (body(outputs="logits"), "legal: a list of objects"),
    "output unknown": (body(outputs=[{"name": "probs"}]), "the model's outputs: logits, label"),
    "output twice": (body(outputs=[{"name": "label"}] * 2), "asked for twice"),
    "output classes": (
        body(outputs=[{"name": "label", "parameters": {"classification": 1}}]),
        "output 'label' has the parameter 'classification', which is not served",
    ),
    "output to shared memory": (
        body(outputs=[{"name": "label", "parameters": {"shared_memory_region": "x"}}]),
        "output 'label' has the parameter 'shared_memory_region', which is not served",
    ),
    "binary_data": (
        body(outputs=[{"name": "label", "parameters": {"binary_data": 1}}]),
        "legal: true or false",
    ),
    "binary without header": (body(**BINARY), "no Inference-Header-Content-Length header"),
}


@pytest.mark.parametrize(("sent", "said"), JSON_CASES.values(), ids=JSON_CASES)
def test_refuses(sent, said):
    with pytest.raises(OipError) as error:
        decode(sent)
    assert error.value.status == 400
    assert said in error.value.message


HEAD = body(**BINARY)
HEADER_CASES = {
    "garbage": (HEAD + b"ab", "many", '"many"; legal: a decimal number'),
    "negative": (HEAD + b"ab", "-1", "legal: a decimal number"),
    "other digits": (HEAD + b"ab", "١", "legal: a decimal number"),
    "too long a number": (HEAD + b"ab", "9" * 30, "legal: a decimal number"),
    "beyond the body": (HEAD, str(len(HEAD) + 1), "legal: at most those"),
    "cuts the JSON": (HEAD + b"ab", "20", "not JSON"),
    "bytes missing": (HEAD + b"a", str(len(HEAD)), "1 bytes are left"),
    "bytes left": (HEAD + b"abc", str(len(HEAD)), "1 bytes after its last binary tensor"),
    "bytes after JSON data": (body() + b"abc", str(len(body())), "3 bytes after"),
}


@pytest.mark.parametrize(("sent", "header", "said"), HEADER_CASES.values(), ids=HEADER_CASES)
def test_refuses_binary(sent, header, said):
    with pytest.raises(OipError) as error:
        decode(sent, header)
    assert said in error.value.message


@pytest.mark.parametrize("size", [1, 3, -1, 1.5, True, "2"])
def test_refuses_binary_size(size):
    head = body(without=["data"], tensor={"parameters": {"binary_data_size": size}})
    with pytest.raises(OipError, match="2|legal: a number of bytes"):
        decode(head + b"abc", str(len(head)))


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("FP32", [1e39], "legal: numbers"),
        ("FP32", [10**400], "legal: numbers"),
        ("FP64", [float("inf")], "legal: numbers"),
        ("INT64", [2**63], "legal: integers"),
        ("BOOL", [1], "legal: true or false"),
        ("BYTES", [1], "legal: strings"),
        ("BYTES", ["\ud800"], "not Unicode"),
    ],
)
def test_refuses_element(datatype, data, said):
    with pytest.raises(OipError, match=said):
        tensors.data_from_json("input 'x'", datatype, (1,), data)


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", b"\2"),
        ("BYTES", b"\5\0\0\0a"),
        ("BYTES", b"\1\0"),
        ("BYTES", b""),
        ("FP32", b"abc"),
    ],
)
def test_refuses_bytes(datatype, data):
    with pytest.raises(OipError, match="input 'x'"):
        tensors.data_from_bytes("input 'x'", datatype, (1,), data)


def test_says_what_json_cannot_hold():
    for array in (np.array([np.nan]), np.array([np.inf])):
        with pytest.raises(OipError, match="ask for it in binary") as error:
            tensors.data_to_json("logits", "FP64", array)
        assert error.value.status == 500
    with pytest.raises(OipError, match="not UTF-8"):
        tensors.data_to_json("label", "BYTES", np.array([b"\xff"], object))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
PLACES = ["id", "parameters", "inputs", "outputs", "model_name", "model_version"]
TENSOR_PLACES = ["name", "datatype", "shape", "data", "parameters"]


def check_only_oip_errors(sent, header):
    for read in (decode, lambda b, h: oip.decode_response(b, h, [LOGITS, LABEL], 4)):
        try:
            read(sent, header)
        except OipError as error:
            assert error.status == 400
            assert error.message


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.none() | st.text(max_size=4) | st.integers(0, 90).map(str))
def test_any_bytes(sent, header):
    check_only_oip_errors(sent, header)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.sampled_from(PLACES), JSON),
    st.dictionaries(st.sampled_from(TENSOR_PLACES), JSON),
)
def test_any_json(top, inner):
    for key in ("inputs", "outputs"):
        changed = message(tensor=inner) | {"model_name": "m"}
        changed[key] = [message(tensor=inner)["inputs"][0] | {"name": "logits"}]
        check_only_oip_errors(json.dumps(changed | top).encode(), None)
        check_only_oip_errors(json.dumps(changed).encode(), None)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3), st.booleans())
def test_any_change_of_a_good_request(at, put, insert):
    head = oip.request_json(IMAGE, (2, 2, 1), ["label"], {})
    good, header = head + bytes(4), str(len(head))
    at %= len(good)
    check_only_oip_errors(good[:at] + put + good[at + (0 if insert else len(put)) :], header)
    check_only_oip_errors(good[:at], header)
