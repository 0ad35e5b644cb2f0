"""Additions of int8 tensors that every runtime rounds alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

_OPERATORS = schema.BuiltinOperator
# What may read a sum whose scale is changed: kernels that take any scale. With weights, the bias goes with it.
_WITH_BIAS = (_OPERATORS.CONV_2D, _OPERATORS.DEPTHWISE_CONV_2D, _OPERATORS.FULLY_CONNECTED)
_READERS = (*_WITH_BIAS, _OPERATORS.ADD, _OPERATORS.MEAN)
# Scales that are tried, each wider than the one before it, the last by a hundredth.
_FACTORS = 1 + np.linspace(0, 0.01, 101)
_CODES = np.arange(-128, 128)


def round_additions_alike(data: bytes) -> bytes:
    """A .tflite file with such scales of its int8 additions that no sum lies near the half between two quanta.

    tflite-runtime adds in fixed point, LiteRT in float: both are exact to about 1e-5 quanta, and so round a sum that is
    nearer to a half to either side. It is one quantum in one value, but the convolutions behind it make several of it,
    in many values. Of a hundred scales, up to a hundredth wider than the converter's, each addition gets the one that
    keeps farthest from the halves, some 5e-5 quanta, whatever its inputs are; the biases of the convolutions that read
    it go with it.

    Args:
      data: a .tflite file.

    Returns:
      the file, of the same size; unchanged where it adds nothing in int8. A sum that is read by an operator whose
      input and output have one scale is left as it is.
    """
    mended = bytearray(data)
    model = schema.Model.GetRootAsModel(mended, 0)
    graph = model.Subgraphs(0)
    operations = [graph.Operators(place) for place in range(graph.OperatorsLength())]
    for operation in operations:
        output = operation.Outputs(0)
        if _kind(model, operation) != _OPERATORS.ADD or graph.Tensors(output).Type() != schema.TensorType.INT8:
            continue
        readers = [reader for reader in operations if output in reader.InputsAsNumpy()]
        if all(_kind(model, reader) in _READERS for reader in readers):
            scale = _scale(graph.Tensors(output))
            factor = _best_factor(graph, operation)
            scale *= np.float32(factor)
            for bias in _biases(model, graph, readers):
                _rescale(model, bias, factor)
    return bytes(mended)


def distance(scales: Sequence[float], zero_points: Sequence[int], scale: float, zero_point: int) -> float:
    """How near any sum of two int8 values comes to the half between two quanta of the output, in quanta, 0 to 0.5.

    Args:
      scales, zero_points: of the inputs.
      scale, zero_point: of the output; sums that it clips do not count.
    """
    left, right = (step * (_CODES - zero) for step, zero in zip(scales, zero_points, strict=True))
    sums = np.add.outer(left, right) / scale
    sums = sums[(sums >= -128.5 - zero_point) & (sums <= 127.5 - zero_point)]
    return float(np.abs(sums - np.floor(sums) - 0.5).min(initial=0.5))


def best_factor(scales: Sequence[float], zero_points: Sequence[int], scale: float, zero_point: int) -> float:
    """By how much, 1 to 1.01, an addition's scale is widened so that sums keep farthest from the halves.

    Args:
      scales, zero_points: of the inputs.
      scale, zero_point: of the output.
    """
    distances = [
        distance(scales, zero_points, float(np.float32(scale) * np.float32(factor)), zero_point) for factor in _FACTORS
    ]
    return float(_FACTORS[int(np.argmax(distances))])


def _best_factor(graph: Any, operation: Any) -> float:
    inputs = [graph.Tensors(place) for place in operation.InputsAsNumpy()]
    output = graph.Tensors(operation.Outputs(0))
    scales = [float(_scale(tensor)[0]) for tensor in inputs]
    zeros = [int(tensor.Quantization().ZeroPoint(0)) for tensor in inputs]
    return best_factor(scales, zeros, float(_scale(output)[0]), int(output.Quantization().ZeroPoint(0)))


def _kind(model: Any, operation: Any) -> int:
    code = model.OperatorCodes(operation.OpcodeIndex())
    return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())


def _scale(tensor: Any) -> np.ndarray:
    """The scales of a tensor, float32, as a view into the file."""
    return tensor.Quantization().ScaleAsNumpy()


def _biases(model: Any, graph: Any, readers: list[Any]) -> Iterator[Any]:
    for reader in readers:
        if _kind(model, reader) in _WITH_BIAS and reader.InputsLength() > 2 and reader.Inputs(2) >= 0:
            yield graph.Tensors(reader.Inputs(2))


def _rescale(model: Any, bias: Any, factor: float) -> None:
    values = model.Buffers(bias.Buffer()).DataAsNumpy().view(np.int32)
    values[:] = np.rint(values / factor)
    scales = _scale(bias)
    scales *= np.float32(factor)
