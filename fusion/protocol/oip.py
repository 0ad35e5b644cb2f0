"""The messages of the Open Inference Protocol v2 over HTTP: JSON, and the binary tensor extension.

Pure functions from bytes to NumPy arrays and back. Whatever bytes come in, they either give a
message or raise `OipError`, whose status and sentence are the HTTP answer. Source of the format:
the KServe "Open Inference Protocol (V2)" and Triton's "Binary Tensor Data Extension".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ..base.program import LONGEST_S
from .tensors import OipError, brief, data_from_bytes, data_from_json, data_to_bytes, data_to_json

HEADER = "Inference-Header-Content-Length"
# Of a 503 for a model that cannot be had for now, whatever else there is to do; ours.
UNABLE = "Model-Unable"
_REQUEST_KEYS = ("id", "parameters", "inputs", "outputs")
_RESPONSE_KEYS = ("id", "parameters", "outputs", "model_name", "model_version")
# The JSON of a request of binary tensors is much shorter.
_MOST_KEPT_BYTES = 2048
_TENSOR_KEYS = ("name", "datatype", "shape", "data", "parameters")

Parameters = Mapping[str, "str | int | float | bool"]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model: its name, its OIP datatype and its shape, where -1 is the batch, 1 or
    more."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """The tensor as it stands in the model metadata. Source: the OIP."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Request:
    """An inference request: input arrays by name, and the outputs asked for, each with whether in
    binary."""

    id: str | None
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, bool]
    parameters: Parameters


@dataclass(frozen=True)
class Response:
    """An inference response: output arrays by name."""

    model_name: str
    model_version: str
    id: str | None
    outputs: Mapping[str, np.ndarray]
    parameters: Parameters


def decode_request(
    body: bytes | memoryview,
    header_length: str | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch: int,
) -> Request:
    """Reads an inference request for a model with these inputs and outputs.

    Args:
      body: the HTTP body; with binary tensors, the JSON header and then the tensors in order.
      header_length: the value of the `Inference-Header-Content-Length` header, None where it is
        absent.
      inputs: what the model takes; each must be in the request, once.
      outputs: what the model gives; all of them are asked for where the request names none.
      max_batch: the largest batch (the dimension that is -1 in a spec).

    Raises `OipError` (400) naming the thing, the value and what is legal.
    """
    text, tail = _split(body, header_length)
    read = _kept_ask if len(text) <= _MOST_KEPT_BYTES else _ask
    ask = read(text, tail is not None, tuple(inputs), tuple(outputs), max_batch)
    return Request(ask.id, _arrays(ask.tensors, tail), ask.outputs, ask.parameters)


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a message: what it is of, its shape, and the elements in the JSON or the number of binary bytes."""

    spec: TensorSpec
    label: str
    shape: tuple[int, ...]
    data: Any
    size: int


@dataclass(frozen=True)
class _Ask:
    """A request without its binary tensors."""

    id: str | None
    tensors: Sequence[_Tensor]
    outputs: Mapping[str, bool]
    parameters: Parameters


def _ask(
    text: bytes, has_tail: bool, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], max_batch: int
) -> _Ask:
    message = _object_of(text, "request")
    _only(message, _REQUEST_KEYS, "the request")
    parameters = _parameters(message, "the request")
    tensors = _tensors(message, "inputs", "input", inputs, has_tail, max_batch)
    given = [tensor.spec.name for tensor in tensors]
    missing = [spec.name for spec in inputs if spec.name not in given]
    if missing:
        _bad(f"input {missing[0]!r} is missing; the model's inputs: {_names(inputs)}")
    default = _flag(parameters, "binary_data_output", "the request")
    wanted = {spec.name: default for spec in outputs}
    if message.get("outputs") is not None:
        wanted = _wanted(message["outputs"], outputs, default)
    return _Ask(_id(message), tensors, wanted, parameters)


# Clients repeat themselves, image by image.
_kept_ask = functools.lru_cache(maxsize=64)(_ask)


def decode_response(body: bytes, header_length: str | None, outputs: Sequence[TensorSpec], max_batch: int) -> Response:
    """Reads an inference response that should hold some of these outputs.

    Raises `OipError` (400) exactly as `decode_request` does; a caller that is itself a server
    should answer 502.
    """
    text, tail = _split(body, header_length)
    message = _object_of(text, "response")
    _only(message, _RESPONSE_KEYS, "the response")
    arrays = _arrays(_tensors(message, "outputs", "output", outputs, tail is not None, max_batch), tail)
    name, version = message.get("model_name"), message.get("model_version", "")
    if not isinstance(name, str) or not isinstance(version, str):
        _bad("model_name and model_version of the response must be strings")
    return Response(name, version, _id(message), arrays, _parameters(message, "the response"))


def encode_request(
    inputs: Sequence[tuple[TensorSpec, np.ndarray]],
    outputs: Iterable[str],
    parameters: Parameters,
) -> tuple[bytes, str]:
    """A request with binary tensors both ways: (body, value of the
    `Inference-Header-Content-Length` header)."""
    chunks = [data_to_bytes(spec.datatype, array) for spec, array in inputs]
    shapes = [(spec, array.shape, len(chunk)) for (spec, array), chunk in zip(inputs, chunks, strict=True)]
    head = request_json(shapes, outputs, parameters)
    return b"".join([head, *chunks]), str(len(head))


def request_json(
    inputs: Sequence[tuple[TensorSpec, tuple[int, ...], int]],
    outputs: Iterable[str],
    parameters: Parameters,
) -> bytes:
    """The JSON of such a request, for inputs of these shapes and numbers of bytes, which follow it in their order."""
    tensors = [
        {
            "name": spec.name,
            "datatype": spec.datatype,
            "shape": list(shape),
            "parameters": {"binary_data_size": size},
        }
        for spec, shape, size in inputs
    ]
    message = {
        "inputs": tensors,
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        "parameters": dict(parameters),
    }
    return _dump(message).encode("ascii")


def encode_response(
    model_name: str,
    model_version: str,
    request: Request,
    outputs: Sequence[tuple[TensorSpec, np.ndarray]],
    parameters: Parameters,
) -> tuple[bytes, str | None]:
    """The response to `request` with those of `outputs` it asked for, in the order it asked for
    them.

    Returns (body, value of the `Inference-Header-Content-Length` header); the value is None, and
    the body plain JSON, where no output is binary. Raises `OipError` (500) if an output holds what
    JSON cannot: NaN, infinity.
    """
    tensors: list[str] = []
    chunks: list[bytes | memoryview] = []
    by_name = {spec.name: (spec, array) for spec, array in outputs}
    for name, binary in request.outputs.items():
        spec, array = by_name[name]
        if binary:
            chunks.append(data_to_bytes(spec.datatype, array))
            tensors.append(_binary_tensor(spec, array.shape, len(chunks[-1])))
        else:
            data = {"data": data_to_json(spec.name, spec.datatype, array)}
            tensors.append(_dump(_tensor(spec, array.shape) | data))
    start = _response_start(model_name, model_version)
    id_ = "" if request.id is None else f'"id":{_dump(request.id)},'
    head = f'{start},{id_}"parameters":{_dump(dict(parameters))},"outputs":[{",".join(tensors)}]}}'.encode("ascii")
    return b"".join([head, *chunks]), str(len(head)) if any(request.outputs.values()) else None


@functools.lru_cache(maxsize=64)
def _response_start(model_name: str, model_version: str) -> str:
    """The JSON of a response up to its model, without a comma."""
    return _dump({"model_name": model_name, "model_version": model_version})[:-1]


@functools.lru_cache(maxsize=64)
def _binary_tensor(spec: TensorSpec, shape: tuple[int, ...], size: int) -> str:
    """The JSON of a tensor whose data is binary."""
    return _dump(_tensor(spec, shape) | {"parameters": {"binary_data_size": size}})


def json_bytes(body: bytes | memoryview, header_length: str | None) -> int:
    """How many bytes of a body are JSON, as far as its header can be believed."""
    believed = header_length is not None and header_length.isascii() and header_length.isdigit()
    return min(len(body), int(header_length[:20])) if believed and header_length else len(body)


def timeout_s(parameters: Parameters) -> float | None:
    """How long the requester waits, in seconds: the request parameter `timeout`, an integer of microseconds above 0, as
    Triton has it; None where there is none. More than a day counts as a day. Raises `OipError` (400)."""
    value = parameters.get("timeout")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        _bad(f"parameter 'timeout' is {brief(value)}; legal: a number of microseconds, 1 or more")
    return min(value, int(LONGEST_S * 1e6)) / 1e6


def _split(body: bytes | memoryview, header_length: str | None) -> tuple[bytes, memoryview | None]:
    """The JSON of a body, and what comes after it where that is binary."""
    size = len(body)
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
            _bad(f"{HEADER} is {brief(header_length)}; legal: a decimal number of bytes")
        if int(header_length) > size:
            _bad(f"{HEADER} is {header_length} but the body has {size} bytes; legal: at most those")
        size = int(header_length)
    return bytes(body[:size]), None if header_length is None else memoryview(body)[size:]


def _object_of(text: bytes, what: str) -> dict[str, Any]:
    try:
        message = _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        _bad(f"the JSON of the {what} is not UTF-8 at byte {error.start}")
    except RecursionError:
        _bad(f"the JSON of the {what} is nested too deeply")
    except OipError:
        raise
    except ValueError as error:
        _bad(f"the {what} is not JSON: {error}")
    if not isinstance(message, dict):
        _bad(f"the {what} is {brief(message)}; legal: a JSON object")
    return message


def _tensors(
    message: dict[str, Any], key: str, side: str, specs: Sequence[TensorSpec], has_tail: bool, max_batch: int
) -> list[_Tensor]:
    """The tensors of `message[key]`; `has_tail` is whether the message may have binary ones."""
    tensors: list[_Tensor] = []
    for tensor in _list(message, key):
        _only(tensor, _TENSOR_KEYS, f"an entry of {key}")
        spec = _find(tensor.get("name"), side, specs)
        label = f"{side} {spec.name!r}"
        if any(spec is other.spec for other in tensors):
            _bad(f"{label} stands twice; legal: once")
        if tensor.get("datatype") != spec.datatype:
            _bad(f"{label} has datatype {brief(tensor.get('datatype'))}; legal: {spec.datatype}")
        shape = _shape(tensor.get("shape"), spec, label, max_batch)
        parameters = _parameters(tensor, label)
        _only(parameters, ("binary_data_size",), f"parameters of {label}")
        if ("data" in tensor) == ("binary_data_size" in parameters):
            _bad(f"{label} must have either data or parameters.binary_data_size")
        if "data" in tensor:
            tensors.append(_Tensor(spec, label, shape, tensor["data"], -1))
            continue
        size = parameters["binary_data_size"]
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            _bad(f"{label} has binary_data_size {brief(size)}; legal: a number of bytes")
        if not has_tail:
            _bad(f"{label} is binary but there is no {HEADER} header")
        tensors.append(_Tensor(spec, label, shape, None, size))
    return tensors


def _arrays(tensors: Sequence[_Tensor], tail: memoryview | None) -> dict[str, np.ndarray]:
    """The arrays of some tensors; binary ones are taken off `tail` in order, which they must use up."""
    arrays: dict[str, np.ndarray] = {}
    rest = memoryview(b"") if tail is None else tail
    for tensor in tensors:
        label, datatype, size = tensor.label, tensor.spec.datatype, tensor.size
        if size < 0:
            arrays[tensor.spec.name] = data_from_json(label, datatype, tensor.shape, tensor.data)
            continue
        if size > len(rest):
            _bad(f"{label} has binary_data_size {size} but {len(rest)} bytes are left for it")
        arrays[tensor.spec.name] = data_from_bytes(label, datatype, tensor.shape, rest[:size])
        rest = rest[size:]
    if rest:
        _bad(f"the body has {len(rest)} bytes after its last binary tensor; legal: none")
    return arrays


def _wanted(value: Any, specs: Sequence[TensorSpec], default: bool) -> dict[str, bool]:
    wanted: dict[str, bool] = {}
    for entry in _list({"outputs": value}, "outputs"):
        _only(entry, ("name", "parameters"), "an entry of outputs")
        label = f"output {_find(entry.get('name'), 'output', specs).name!r}"
        if entry["name"] in wanted:
            _bad(f"{label} is asked for twice; legal: once")
        parameters = _parameters(entry, label)
        _only(parameters, ("binary_data",), f"parameters of {label}")
        asked = _flag(parameters, "binary_data", label)
        wanted[entry["name"]] = asked if "binary_data" in parameters else default
    return wanted or {spec.name: default for spec in specs}


def _find(name: Any, side: str, specs: Sequence[TensorSpec]) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    _bad(f"{side} {brief(name)} is unknown; the model's {side}s: {_names(specs)}")


def _shape(value: Any, spec: TensorSpec, label: str, max_batch: int) -> tuple[int, ...]:
    legal = f"{list(spec.shape)} with a batch of 1 to {max_batch}"
    if not isinstance(value, list) or len(value) != len(spec.shape):
        _bad(f"{label} has shape {brief(value)}; legal: {legal}")
    for size, said in zip(value, spec.shape, strict=True):
        fits = isinstance(size, int) and not isinstance(size, bool)
        if not fits or not (1 <= size <= max_batch if said == -1 else size == said):
            _bad(f"{label} has shape {brief(value)}; legal: {legal}")
    return tuple(value)


def _tensor(spec: TensorSpec, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(shape)}


def _list(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    values = message.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        _bad(f"{key} is {brief(values)}; legal: a list of objects")
    return values


def _parameters(message: Mapping[str, Any], label: str) -> dict[str, str | int | float | bool]:
    values = message.get("parameters")
    if values is None:
        return {}
    if not isinstance(values, dict):
        _bad(f"parameters of {label} is {brief(values)}; legal: an object")
    for name, value in values.items():
        if not isinstance(value, (str, int, float, bool)):
            _bad(f"parameter {brief(name)} of {label} is {brief(value)}; "
                 "legal: a string, a number or a boolean")  # fmt: skip
    return values


def _flag(parameters: Parameters, name: str, label: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        _bad(f"parameter {name!r} of {label} is {brief(value)}; legal: true or false")
    return value


def _id(message: Mapping[str, Any]) -> str | None:
    value = message.get("id")
    if value is not None and not isinstance(value, str):
        _bad(f"id is {brief(value)}; legal: a string")
    return value


def _only(values: Mapping[str, Any], legal: Sequence[str], label: str) -> None:
    for key in values:
        if key not in legal:
            _bad(f"{label} has {brief(key)}; legal: {', '.join(legal)}")


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)


def _dump(message: Any) -> str:
    return _ENCODER.encode(message)


def _constant(text: str) -> NoReturn:
    _bad(f"the JSON holds {text}, which is not a JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        _bad(f"the JSON has the key {brief(next(k for k in keys if keys.count(k) > 1))} twice")
    return values


_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=_object)


def _bad(message: str) -> NoReturn:
    raise OipError(400, message + ".")
