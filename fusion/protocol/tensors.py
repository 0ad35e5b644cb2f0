"""The data of one Open Inference Protocol tensor, as JSON numbers or as raw bytes, to and from NumPy.

Source of the format: the KServe "Open Inference Protocol (V2)" (datatypes, JSON tensor data) and Triton's "Binary
Tensor Data Extension" (little-endian, row-major; BYTES elements each after a 4-byte length).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .strict_json import OipError, brief, refuse

DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"UINT{n}": np.dtype(f"<u{n // 8}") for n in (8, 16, 32, 64)},
    **{f"INT{n}": np.dtype(f"<i{n // 8}") for n in (8, 16, 32, 64)},
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""The OIP datatypes spoken here and the NumPy dtype of each; a BYTES element is a Python `bytes`."""

DATATYPES = {"uint8": "UINT8", "int8": "INT8", "float32": "FP32"}
"""The OIP datatype of each dtype that a slice file's input or output may have."""


def data_from_json(label: str, datatype: str, shape: tuple[int, ...], data: Any) -> np.ndarray:
    """The array, of `shape` and `DTYPES[datatype]`, in a JSON tensor's `data`, flat or nested as the shape is.

    Raises `OipError` (400), starting with `label`, on another number of elements, on an element that is no number
    (string, boolean) of the datatype's kind, and on one that the datatype cannot hold.
    """
    if not isinstance(data, list):
        refuse(f"{label} has data {brief(data)}; legal: a list")
    flat = _flatten(label, shape, data) if data and isinstance(data[0], list) else data
    if len(flat) != math.prod(shape):
        refuse(f"{label} has {len(flat)} elements; legal: {math.prod(shape)}, from its shape {list(shape)}")
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        return _array([_encode(label, value) for value in flat], shape)
    kinds = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    for value in flat:
        if type(value) not in kinds:
            refuse(f"{label} has the element {brief(value)}; legal: {_legal(datatype)}")
    if dtype.kind != "b" and flat:
        low, high = _range(dtype)
        for value in (min(flat), max(flat)):
            if not low <= value <= high:
                refuse(f"{label} has the element {brief(value)}; legal: {_legal(datatype)}")
    return np.array(flat, dtype).reshape(shape)


def data_from_bytes(label: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    """The array, of `shape` and `DTYPES[datatype]`, in a binary tensor; not a copy, where it can be.

    Raises `OipError` (400), starting with `label`, on a wrong number of bytes, a BOOL byte other than 0 and 1, and
    BYTES elements that do not fill `data` exactly.
    """
    dtype, count = DTYPES[datatype], math.prod(shape)
    if datatype == "BYTES":
        return _array(_elements(label, bytes(data), count), shape)
    if len(data) != count * dtype.itemsize:
        refuse(
            f"{label} has {len(data)} bytes of data; legal: {count * dtype.itemsize}, from its shape "
            f"{list(shape)} and datatype {datatype}"
        )
    if datatype == "BOOL" and bytes(data).strip(b"\0\1"):
        refuse(f"{label} has a byte other than 0 and 1; legal: {_legal(datatype)}")
    return np.frombuffer(data, dtype).reshape(shape)


def data_to_json(name: str, datatype: str, array: np.ndarray) -> list[Any]:
    """The flat JSON data of an array. Raises `OipError` (500) on what JSON cannot hold: NaN, infinity, and BYTES that
    are not UTF-8."""
    if datatype == "BYTES":
        try:
            return [value.decode("utf-8") for value in array.ravel()]
        except UnicodeDecodeError as error:
            raise OipError(500, f"output {name!r} is not UTF-8; ask for it in binary.") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise OipError(500, f"output {name!r} holds NaN or infinity; ask for it in binary.")
    return array.ravel().tolist()


def data_to_bytes(datatype: str, array: np.ndarray) -> bytes | memoryview:
    """The binary tensor data of an array, little-endian and row-major; not a copy, where it can be."""
    if datatype == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in array.ravel())
    return np.ascontiguousarray(array, DTYPES[datatype]).reshape(-1).view(np.uint8).data


def _flatten(label: str, shape: tuple[int, ...], data: list[Any]) -> list[Any]:
    """The elements of nested lists, whose lengths must be those of the shape at every depth."""
    count = 1
    for size, inner in zip(shape, shape[1:], strict=False):
        count *= size
        if len(data) != count or not all(isinstance(p, list) and len(p) == inner for p in data):
            refuse(f"{label} is not nested as its shape {list(shape)}; legal: so, or a flat list")
        data = [value for row in data for value in row]
    return data


def _elements(label: str, data: bytes, count: int) -> list[bytes]:
    values, offset = [], 0
    while offset < len(data):
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if start > len(data) or offset > len(data):
            refuse(f"{label} ends inside an element; legal: a 4-byte length, then that many bytes")
        values.append(data[start:offset])
    if len(values) != count:
        refuse(f"{label} has {len(values)} elements; legal: {count}, from its shape")
    return values


def _array(values: list[bytes], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def _encode(label: str, value: Any) -> bytes:
    if not isinstance(value, str):
        refuse(f"{label} has the element {brief(value)}; legal: {_legal('BYTES')}")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        refuse(f"{label} has the element {brief(value)}, which is not Unicode text")


def _range(dtype: np.dtype) -> tuple[float, float]:
    info: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    kind = float if dtype.kind == "f" else int
    return kind(info.min), kind(info.max)


def _legal(datatype: str) -> str:
    if datatype == "BOOL":
        return "true or false (as bytes 1 and 0)"
    if datatype == "BYTES":
        return "strings"
    low, high = _range(DTYPES[datatype])
    return f"{'numbers' if isinstance(low, float) else 'integers'} from {low} to {high}"
