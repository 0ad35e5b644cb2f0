"""The messages of the Open Inference Protocol v2 over HTTP: JSON, and the binary tensor extension.

Pure functions from bytes to NumPy arrays and back. Whatever bytes come in, they either give a message or raise
`OipError`, whose status and sentence are the HTTP answer. Source of the format: the KServe "Open Inference Protocol
(V2)" and Triton's "Binary Tensor Data Extension".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..base.program import LONGEST_S
from .strict_json import OipError as OipError
from .strict_json import brief, dump, parse_object, refuse
from .tensors import data_from_bytes, data_from_json, data_to_bytes, data_to_json

HEADER = "Inference-Header-Content-Length"
# Of a 503 for a model that cannot be had for now, whatever else there is to do; ours.
UNABLE = "Model-Unable"
# The JSON of a request that is remembered; longer ones hold their tensors themselves.
_KEPT_BYTES = 4096
# Parameters of Triton's extensions that ask for tensors of another kind or in another place: whoever sends one would
# take our answer for something else, or look for it there.
_UNSERVED = ("classification", "shared_memory_region")

Parameters = Mapping[str, Any]
"""Strings, numbers and booleans by name; of a message that came in, those that nobody knows may hold anything."""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model: its name, its OIP datatype and its shape, where -1 is the batch, 1 or more."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """The tensor as it stands in the model metadata. Source: the OIP."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Request:
    """An inference request: input arrays by name, and the outputs asked for, each with whether in binary."""

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
    name: str,
    version: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch: int,
) -> Request:
    """Reads an inference request for a model of this name and version, with these inputs and outputs.

    Keys and parameters that the protocol does not have are ignored, and so are datatype and shape of an output that is
    asked for, as KServe, Triton and MLServer do.

    Args:
      body: the HTTP body; with binary tensors, the JSON header and then the tensors in order.
      header_length: the value of the `Inference-Header-Content-Length` header, None where it is absent.
      name, version: those of the path, which a request may repeat as `model_name` and `model_version`.
      inputs: what the model takes; each must be in the request, once.
      outputs: what the model gives; all of them are asked for where the request names none.
      max_batch: the largest batch (the dimension that is -1 in a spec).

    Raises `OipError` (400) naming the thing, the value and what is legal.
    """
    head, tail = _split(body, header_length)
    read = _read_request_again if len(head) <= _KEPT_BYTES else _read_request
    model = (name, version, tuple(inputs), tuple(outputs), max_batch)
    id_, tensors, requested, parameters = read(head, tail is not None, *model)
    return Request(id_, _arrays(tensors, tail), requested, parameters)


def _read_request(
    head: bytes,
    has_tail: bool,
    name: str,
    version: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch: int,
) -> tuple[str | None, Sequence[_Tensor], Mapping[str, bool], Parameters]:
    """What the JSON of a request says: its id, its inputs, the outputs asked for, and its parameters."""
    message = parse_object(head, "request")
    for key, legal in (("model_name", name), ("model_version", version)):
        # Where a version need not be chosen, some write it as the empty text that it is in the protocol's gRPC.
        if message.get(key) not in (None, legal) and (key, message[key]) != ("model_version", ""):
            refuse(f"{key} is {brief(message[key])}; legal: {brief(legal)}, as the path says, or none")
    parameters = _parameters(message, "the request")
    tensors = _tensors(message, "inputs", "input", inputs, has_tail, max_batch)
    missing = [spec.name for spec in inputs if spec not in (tensor.spec for tensor in tensors)]
    if missing:
        refuse(f"input {missing[0]!r} is missing; the model's inputs: {_names(inputs)}")
    binary = flag(parameters, "binary_data_output")
    requested = {spec.name: binary for spec in outputs}
    if message.get("outputs") is not None:
        requested = _requested(message["outputs"], outputs, binary) or requested
    return _id(message), tensors, requested, parameters


# Clients repeat themselves, to the byte.
_read_request_again = functools.lru_cache(64)(_read_request)


def decode_response(body: bytes, header_length: str | None, outputs: Sequence[TensorSpec], max_batch: int) -> Response:
    """Reads an inference response that should hold some of these outputs.

    Raises `OipError` (400) exactly as `decode_request` does; a caller that is itself a server should answer 502.
    """
    head, tail = _split(body, header_length)
    message = parse_object(head, "response")
    arrays = _arrays(_tensors(message, "outputs", "output", outputs, tail is not None, max_batch), tail)
    name, version = message.get("model_name"), message.get("model_version", "")
    if not isinstance(name, str) or not isinstance(version, str):
        refuse("model_name and model_version of the response must be strings")
    return Response(name, version, _id(message), arrays, _parameters(message, "the response"))


def request_json(image: TensorSpec, shape: tuple[int, ...], outputs: Iterable[str], parameters: Parameters) -> bytes:
    """The JSON of a request for binary outputs; the input's bytes, uint8 of this shape, follow it."""
    message = {
        "inputs": [_binary_tensor(image, shape, math.prod(shape))],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
        "parameters": dict(parameters),
    }
    return dump(message)


def encode_response(
    model_name: str,
    model_version: str,
    request: Request,
    outputs: Sequence[tuple[TensorSpec, np.ndarray]],
    parameters: Parameters,
) -> tuple[bytes, str | None]:
    """The response to `request` with those of `outputs` it asked for, in the order it asked for them.

    Returns (body, value of the `Inference-Header-Content-Length` header); the value is None, and the body plain JSON,
    where no output is binary. Raises `OipError` (500) if an output holds what JSON cannot: NaN, infinity.
    """
    tensors: list[dict[str, Any]] = []
    chunks: list[bytes | memoryview] = []
    by_name = {spec.name: (spec, array) for spec, array in outputs}
    for name, binary in request.outputs.items():
        spec, array = by_name[name]
        if binary:
            chunks.append(data_to_bytes(spec.datatype, array))
            tensors.append(_binary_tensor(spec, array.shape, len(chunks[-1])))
        else:
            data = data_to_json(spec.name, spec.datatype, array)
            tensors.append(spec.metadata() | {"shape": list(array.shape), "data": data})
    message = {"model_name": model_name, "model_version": model_version}
    message |= {} if request.id is None else {"id": request.id}
    head = dump(message | {"parameters": dict(parameters), "outputs": tensors})
    return b"".join([head, *chunks]), str(len(head)) if any(request.outputs.values()) else None


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
        refuse(f"parameter 'timeout' is {brief(value)}; legal: a number of microseconds, 1 or more")
    return min(value, int(LONGEST_S * 1e6)) / 1e6


def flag(parameters: Parameters, name: str, label: str = "the request", default: bool = False) -> bool:
    """The value of a parameter that is true or false. Raises `OipError` (400)."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        refuse(f"parameter {name!r} of {label} is {brief(value)}; legal: true or false")
    return value


class _Tensor(NamedTuple):
    """A tensor of a message: of so many bytes of binary data, or of JSON data, where `size` is None."""

    spec: TensorSpec
    label: str
    shape: tuple[int, ...]
    size: int | None
    data: Any


def _split(body: bytes | memoryview, header_length: str | None) -> tuple[bytes, memoryview | None]:
    """The JSON of a body, and what comes after it where that is binary."""
    if header_length is None:
        return bytes(body), None
    size = len(body)
    if not (header_length.isascii() and header_length.isdigit() and len(header_length) < 20):
        refuse(f"{HEADER} is {brief(header_length)}; legal: a decimal number of bytes")
    if int(header_length) > size:
        refuse(f"{HEADER} is {header_length} but the body has {size} bytes; legal: at most those")
    return bytes(body[: int(header_length)]), memoryview(body)[int(header_length) :]


def _tensors(
    message: dict[str, Any], key: str, side: str, specs: Sequence[TensorSpec], has_tail: bool, max_batch: int
) -> list[_Tensor]:
    """The tensors in `message[key]`."""
    tensors: list[_Tensor] = []
    for tensor in _list(message, key):
        spec = _find(tensor.get("name"), side, specs)
        label = f"{side} {spec.name!r}"
        if any(other.spec.name == spec.name for other in tensors):
            refuse(f"{label} stands twice; legal: once")
        if tensor.get("datatype") != spec.datatype:
            refuse(f"{label} has datatype {brief(tensor.get('datatype'))}; legal: {spec.datatype}")
        shape = _shape(tensor.get("shape"), spec, label, max_batch)
        tensors.append(_Tensor(spec, label, shape, _binary_size(tensor, label, has_tail), tensor.get("data")))
    return tensors


def _arrays(tensors: Sequence[_Tensor], tail: memoryview | None) -> dict[str, np.ndarray]:
    """The arrays of a message's tensors; binary ones are taken off `tail` in order, and must use it up."""
    arrays: dict[str, np.ndarray] = {}
    rest = memoryview(b"") if tail is None else tail
    for spec, label, shape, size, data in tensors:
        if size is None:
            arrays[spec.name] = data_from_json(label, spec.datatype, shape, data)
            continue
        if size > len(rest):
            refuse(f"{label} has binary_data_size {size} but {len(rest)} bytes are left for it")
        arrays[spec.name] = data_from_bytes(label, spec.datatype, shape, rest[:size])
        rest = rest[size:]
    if rest:
        refuse(f"the body has {len(rest)} bytes after its last binary tensor; legal: none")
    return arrays


def _binary_size(tensor: dict[str, Any], label: str, has_tail: bool) -> int | None:
    """How many bytes of the binary data are a tensor's; None where its data is JSON."""
    size, has_data = _tensor_parameters(tensor, label).get("binary_data_size"), tensor.get("data") is not None
    if has_data == (size is not None):
        refuse(f"{label} must have either data or parameters.binary_data_size")
    if has_data:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        refuse(f"{label} has binary_data_size {brief(size)}; legal: a number of bytes")
    if not has_tail:
        refuse(f"{label} is binary but there is no {HEADER} header")
    return size


def _requested(value: Any, specs: Sequence[TensorSpec], default: bool) -> dict[str, bool]:
    """The outputs that a request names, each with whether in binary."""
    requested: dict[str, bool] = {}
    for entry in _list({"outputs": value}, "outputs"):
        label = f"output {_find(entry.get('name'), 'output', specs).name!r}"
        if entry["name"] in requested:
            refuse(f"{label} is asked for twice; legal: once")
        requested[entry["name"]] = flag(_tensor_parameters(entry, label), "binary_data", label, default)
    return requested


def _find(name: Any, side: str, specs: Sequence[TensorSpec]) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    refuse(f"{side} {brief(name)} is unknown; the model's {side}s: {_names(specs)}")


def _shape(value: Any, spec: TensorSpec, label: str, max_batch: int) -> tuple[int, ...]:
    is_legal = isinstance(value, list) and len(value) == len(spec.shape)
    for size, legal in zip(value if is_legal else (), spec.shape, strict=False):
        # A boolean is no number here.
        is_legal &= type(size) is int and (1 <= size <= max_batch if legal == -1 else size == legal)
    if not is_legal:
        refuse(f"{label} has shape {brief(value)}; legal: {list(spec.shape)} with a batch of 1 to {max_batch}")
    return tuple(value)


def _binary_tensor(spec: TensorSpec, shape: tuple[int, ...], size: int) -> dict[str, Any]:
    return spec.metadata() | {"shape": list(shape), "parameters": {"binary_data_size": size}}


def _list(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    values = message.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        refuse(f"{key} is {brief(values)}; legal: a list of objects")
    return values


def _parameters(message: Mapping[str, Any], label: str) -> Parameters:
    values = message.get("parameters")
    if values is None:
        return {}
    if not isinstance(values, dict):
        refuse(f"parameters of {label} is {brief(values)}; legal: an object")
    # What is null is not there.
    return {name: value for name, value in values.items() if value is not None}


def _tensor_parameters(tensor: Mapping[str, Any], label: str) -> Parameters:
    parameters = _parameters(tensor, label)
    for name in _UNSERVED:
        if name in parameters:
            refuse(f"{label} has the parameter {name!r}, which is not served; legal: tensors as JSON or in binary")
    return parameters


def _id(message: Mapping[str, Any]) -> str | None:
    value = message.get("id")
    if value is not None and not isinstance(value, str):
        refuse(f"id is {brief(value)}; legal: a string")
    return value


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)
