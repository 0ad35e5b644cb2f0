"""Channels of int8 convolutions that every kernel can scale."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from export.tflite import graph

# What a multiplier of 1 or more becomes: as large as may be, and far from 1 for a number of 32 bits.
_LIMIT = 0.99
# Images that are looked at for what a channel gives, at most.
_IMAGES = 32
# From images to what the other inputs of a file get for them, float32 (n, ...), by their names.
Handed = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def keep_below_one(data: bytes, images: np.ndarray, handed: Handed = lambda images: {}) -> bytes:
    """A .tflite file with such scales of its weights that every channel's multiplier is less than 1.

    The multiplier, see `graph.multipliers`, says how many steps of the output one step of the accumulator is. The
    aarch64 kernel of depthwise 3x3 convolutions in tflite-runtime 2.14.0 takes none of 1 or more: with 4.28 it gives
    multiples of 8. XNNPACK refuses a file with one of 256 or more. Multipliers are that large where the input of a
    channel is all but constant, as of one that died in training: batch norm divides by next to nothing.

    Such a channel gets a weight scale with which its multiplier is 0.99, and a bias with which it gives what it mostly
    gave. Its weights keep their codes, so other outputs stay on their side of that one, and come nearer to it.

    Args:
      data: a .tflite file with one subgraph and one signature.
      images: what its input `image` takes, (n, ...) of its dtype, like those that set its ranges.
      handed: gives the other inputs; asked where they are needed.

    Returns:
      the file; the same bytes where no multiplier is 1 or more.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    (contents,) = model.subgraphs
    steep = [one for one in contents.operators if graph.multipliers(model, one, contents.tensors).max(initial=0) >= 1]
    if not steep:
        return data
    images = images[:: -(-len(images) // _IMAGES)]
    inputs = _inputs(model, contents, {"image": images, **handed(images)})
    outputs = _usual_outputs(data, inputs, [operation.outputs[0] for operation in steep])
    for operation, usual in zip(steep, outputs, strict=True):
        _lower(model, contents, operation, usual)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _inputs(model: Any, contents: Any, named: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """The values of a file's inputs, by their places, quantized where it takes them so."""
    inputs = {}
    for entry in model.signatureDefs[0].inputs:
        values, tensor = named[entry.name.decode()], contents.tensors[entry.tensorIndex]
        if tensor.type == schema.TensorType.INT8 and values.dtype == np.float32:
            codes = np.rint(values / tensor.quantization.scale[0]) + tensor.quantization.zeroPoint[0]
            values = np.clip(codes, -128, 127).astype(np.int8)
        inputs[entry.tensorIndex] = values
    return inputs


def _usual_outputs(data: bytes, inputs: Mapping[int, np.ndarray], places: Iterable[int]) -> list[np.ndarray]:
    """Of each of these tensors the median of every channel, over positions and then over images, as stored."""
    interpreter = tf.lite.Interpreter(
        model_content=data,
        num_threads=1,
        experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    medians: dict[int, list[np.ndarray]] = {place: [] for place in places}
    for values in zip(*inputs.values(), strict=True):
        for place, value in zip(inputs, values, strict=True):
            interpreter.set_tensor(place, value[np.newaxis])
        interpreter.invoke()
        for place, found in medians.items():
            output = interpreter.get_tensor(place)
            found.append(_median(output.reshape(-1, output.shape[-1])))
    return [_median(np.stack(found)) for found in medians.values()]


def _median(rows: np.ndarray) -> np.ndarray:
    """The median of every column, a value that is among its values."""
    middle = len(rows) // 2
    median: np.ndarray = np.partition(rows, middle, axis=0)[middle]
    return median


def _lower(model: Any, contents: Any, operation: Any, usual: np.ndarray) -> None:
    taken, weights = (contents.tensors[place] for place in operation.inputs[:2])
    (zero_point,) = contents.tensors[operation.outputs[0]].quantization.zeroPoint
    multipliers = graph.multipliers(model, operation, contents.tensors)
    steep = multipliers >= 1
    steps = usual.astype(np.float64) - zero_point
    # An accumulator's step is more than the output's, so the output tells the accumulator. One that is clipped tells an
    # end of it, and stays clipped.
    shift = np.where(steep, np.rint(steps / _LIMIT) - np.rint(steps / multipliers), 0)
    scales = np.asarray(weights.quantization.scale, np.float32)
    weights.quantization.scale = np.where(steep, scales * (_LIMIT / multipliers), scales).astype(np.float32)
    if len(operation.inputs) < 3 or operation.inputs[2] < 0:
        operation.inputs = np.array([*operation.inputs[:2], _add_bias(model, contents, len(usual))], np.int32)
    bias = contents.tensors[operation.inputs[2]]
    values = model.buffers[bias.buffer].data.view(np.int32) + shift.astype(np.int32)
    # Equal biases share a buffer.
    if sum(tensor.buffer == bias.buffer for tensor in contents.tensors) > 1:
        bias.buffer = _add_buffer(model)
    model.buffers[bias.buffer].data = values.view(np.uint8)
    bias.quantization.scale = taken.quantization.scale[0] * weights.quantization.scale
    bias.quantization.zeroPoint = np.zeros(len(scales), np.int64)


def _add_bias(model: Any, contents: Any, channels: int) -> int:
    """The place of a new bias of zeros, without its scales."""
    bias = schema.TensorT()
    bias.name, bias.shape, bias.type = b"bias", [channels], schema.TensorType.INT32
    bias.quantization = schema.QuantizationParametersT()
    bias.buffer = _add_buffer(model)
    model.buffers[bias.buffer].data = np.zeros(channels, np.int32).view(np.uint8)
    contents.tensors.append(bias)
    return len(contents.tensors) - 1


def _add_buffer(model: Any) -> int:
    model.buffers.append(schema.BufferT())
    return len(model.buffers) - 1
