"""What the protocol's other clients send, KServe's, MLServer's and Triton's, is answered as each of them expects."""

import gzip
import json
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tritonclient.http as triton

from fusion.protocol.oip import HEADER

SLICE = "tiny-0.5_0.5-0"
# Its newest needs packages of other versions than this project's, so it gets an environment of its own.
KSERVE = "kserve==0.21.0"
INSTALL_S = 900


@pytest.fixture(params=["worker", "coordinator"])
def server(request):
    """(url, model name) of each kind of server."""
    program = request.getfixturevalue(request.param)
    return program.url, SLICE if request.param == "worker" else "tiny"


@pytest.fixture
def images(data):
    return data[0][:2]


@pytest.fixture
def expected(server, images):
    """The logits of two images, as tritonclient reads them."""
    url, model = server
    tensor = triton.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        return client.infer(model, [tensor]).as_numpy("logits")


def spoken(text, model, images):
    """A request in the words of a client, about this model and these images."""
    shape, data = (json.dumps(values, separators=(",", ":")) for values in (images.shape, images.ravel().tolist()))
    for place, value in {"MODEL": model, "[SHAPE]": shape, "[DATA]": data, "SIZE": str(images.size)}.items():
        text = text.replace(place, value)
    return text.encode()


def read(body, length=None):
    """An answer's message, and its logits, by tritonclient."""
    answer = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    return answer.get_response(), answer.as_numpy("logits")


# What InferenceRESTClient of KServe 0.21 sends, to the byte.
_KSERVE = '{"id":"seven","model_name":"MODEL","inputs":[{"name":"image","shape":[SHAPE],"datatype":"UINT8",'
_KSERVE_OUTPUTS = '"outputs":[{"name":"logits","parameters":{"binary_data":BINARY}}]'
KSERVE_JSON = _KSERVE + '"data":[DATA]}]}'
KSERVE_OUTPUTS = _KSERVE + '"data":[DATA]}],' + _KSERVE_OUTPUTS.replace("BINARY", "false") + "}"
KSERVE_PARAMETERS = _KSERVE + '"parameters":{"content_type":"np"},"data":[DATA]}],"parameters":{"content_type":"np"}}'
_KSERVE_BINARY = _KSERVE + '"parameters":{"binary_data_size":SIZE}}],'
KSERVE_BINARY = _KSERVE_BINARY + '"parameters":{"binary_data_output":true}}'
KSERVE_BINARY_OUTPUTS = (
    _KSERVE_BINARY + _KSERVE_OUTPUTS.replace("BINARY", "true") + ',"parameters":{"binary_data_output":true}}'
)
# By NumpyRequestCodec of MLServer; with nulls, as its types' `model_dump_json` leaves them.
MLSERVER = (
    '{"parameters": {"content_type": "np"}, "inputs": [{"name": "image", "parameters": {"content_type": "np"}, '
    '"data": [DATA], "datatype": "UINT8", "shape": [SHAPE]}], '
    '"outputs": [{"name": "logits", "parameters": {"content_type": "np"}}]}'
)
MLSERVER_NULLS = (
    '{"id":"7","parameters":{"content_type":"np","headers":null},"inputs":[{"name":"image","shape":[SHAPE],'
    '"datatype":"UINT8","parameters":{"content_type":"np","headers":null},"data":[DATA]}],"outputs":null}'
)


@pytest.mark.parametrize(
    "text",
    [KSERVE_JSON, KSERVE_OUTPUTS, KSERVE_PARAMETERS, MLSERVER, MLSERVER_NULLS],
    ids=["KServe", "KServe outputs", "KServe parameters", "MLServer", "MLServer nulls"],
)
def test_json(server, curl, images, expected, text):
    url, model = server
    status, headers, body = curl(f"{url}/v2/models/{model}/infer", body=spoken(text, model, images))
    assert (status, headers["content-type"]) == (200, "application/json"), body
    message, logits = read(body)
    np.testing.assert_array_equal(logits, expected)
    assert (message["model_name"], message.get("id")) == (model, json.loads(spoken(text, model, images)).get("id"))


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "packed"])
@pytest.mark.parametrize(("text", "outputs"), [(KSERVE_BINARY, 3), (KSERVE_BINARY_OUTPUTS, 1)])
def test_binary(server, curl, images, expected, text, outputs, pack):
    url, model = server
    head = spoken(text, model, images)
    fields = ["content-type: application/octet-stream", f"inference-header-content-length: {len(head)}"]
    fields += [] if pack is bytes else ["Content-Encoding: gzip"]
    options = [word for field in fields for word in ("-H", field)]
    body = pack(head + images.tobytes())
    status, headers, answer = curl(f"{url}/v2/models/{model}/infer", *options, body=body)
    assert (status, headers["content-type"]) == (200, "application/octet-stream"), answer
    message, logits = read(answer, int(headers[HEADER.lower()]))
    np.testing.assert_array_equal(logits, expected)
    assert (message["id"], len(message["outputs"])) == ("seven", 1 if model == SLICE else outputs)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "X-GZip"])
@pytest.mark.parametrize("cuts", [(), (30,), (0, 1, 30)])
def test_gzip_of_several_members(server, curl, images, expected, encoding, cuts):
    url, model = server
    plain, ends = spoken(MLSERVER, model, images), (0, *cuts)
    body = b"".join(gzip.compress(plain[start:end]) for start, end in zip(ends, (*cuts, None), strict=True))
    status, _, answer = curl(f"{url}/v2/models/{model}/infer", "-H", f"Content-Encoding: {encoding}", body=body)
    assert status == 200, answer
    np.testing.assert_array_equal(read(answer)[1], expected)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("MODEL", "other"), 'model_name is "other"; legal: '),
        (
            ('"model_name":"MODEL"', '"model_version":"2"'),
            'model_version is "2"; legal: "1", as the path says, or none.',
        ),
        (("UINT8", "FP32"), 'has datatype "FP32"; legal: UINT8.'),
        (("[SHAPE]", "[1,8,6,3]"), "has 288 elements; legal: 144, from its shape [1, 8, 6, 3]."),
        (("[SHAPE]", "[2,8,6,4]"), "has shape [2, 8, 6, 4]; legal: [-1, 8, 6, 3] with a batch of 1 to 4."),
        (('"image"', '"input"'), 'input "input" is unknown; the model\'s inputs: image.'),
    ],
)
def test_what_is_wrong_stays_an_error(server, curl, images, change, said):
    url, model = server
    sent = spoken(KSERVE_JSON.replace(*change), model, images)
    status, headers, body = curl(f"{url}/v2/models/{model}/infer", body=sent)
    assert (status, headers["content-type"]) == (400, "application/json")
    assert said in json.loads(body)["error"]


# What its users write; prints what came as JSON.
ASK = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, model, path = sys.argv[1:]
images = np.load(path)


async def ask(client, binary, named):
    tensor = InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    outputs = [RequestedOutput("logits", {"binary_data": binary})]
    request = InferRequest(named, [tensor], request_id="seven", request_outputs=outputs)
    try:
        answer = await client.infer(url, request, model_name=model)
    except Exception as error:
        return str(error)
    (output,) = answer.outputs
    return [answer.id, answer.model_name, output.name, output.datatype, output.shape, output.as_numpy().tolist()]


async def main():
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        ready = [await client.is_server_live(url), await client.is_server_ready(url)]
        ready += [await client.is_model_ready(url, model), await client.is_model_ready(url, "other")]
        asked = [(False, model), (True, model), (False, "other"), (True, "other")]
        print(json.dumps([ready, *[await ask(client, *each) for each in asked]]))


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def kserve():
    """The Python that has KServe's client, half a gigabyte that goes afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield environment(folder)


def environment(folder):
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = f"{folder}/bin/python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", KSERVE]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip did not install {KSERVE} within {INSTALL_S} s")
    if done.returncode:
        pytest.skip(f"pip cannot install {KSERVE}: {done.stderr.strip()[-300:]}")
    return python


@pytest.mark.slow
def test_kserve_client(server, images, expected, kserve, tmp_path):
    url, model = server
    np.save(tmp_path / "images.npy", images)
    command = [kserve, "-c", ASK, url, model, tmp_path / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ready, *answers = json.loads(done.stdout.splitlines()[-1])
    assert ready == [True, True, True, False]
    datatype = "INT8" if model == SLICE else "FP32"
    for answer in answers[:2]:
        assert answer[:-1] == ["seven", model, "logits", datatype, list(expected.shape)]
        np.testing.assert_array_equal(np.array(answer[-1], expected.dtype), expected)
    for said in answers[2:]:
        assert f'model_name is "other"; legal: "{model}", as the path says, or none.' in said
