"""Reads an exported .tflite file: its operations, its tensors, and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

_TYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class FileTensor:
    """An input or output of a file; `scale` and `zero_point` are None where it is not quantized."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Graph:
    """What a file holds.

    Attributes:
      operators: how often each (operator, version) occurs.
      inputs, outputs: the tensors of the signature `serving_default`, by their names in it.
      madds: multiply-adds of convolutions and fully connected layers, counted from their shapes.
      arena_bytes: the most bytes of activations that are needed at once, when each is kept from the operation that
        makes it to the last that reads it.
      largest_multiplier: of all channels, see `multipliers`; 0 without any that are int8.
    """

    operators: Counter[tuple[str, int]]
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    madds: int
    arena_bytes: int
    largest_multiplier: float

    @property
    def operator_names(self) -> set[str]:
        return {name for name, _ in self.operators}


def read(data: bytes) -> Graph:
    """Reads the bytes of a .tflite file with one subgraph and one signature.

    Raises:
      ValueError: it has more of them or none, a custom operator (Flex operators are), or a tensor of open shape.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    if len(model.subgraphs) != 1 or len(model.signatureDefs or []) != 1:
        raise ValueError(
            f"the file has {len(model.subgraphs)} subgraphs and {len(model.signatureDefs or [])} signatures; "
            "it takes one of each."
        )
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    _refuse_open_shapes(graph)
    operators: Counter[tuple[str, int]] = Counter()
    madds, largest_multiplier = 0, 0.0
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        name = _name(code)
        if name == "CUSTOM":
            raise ValueError(f"the file has the custom operator {code.customCode!r}.")
        operators[name, code.version] += 1
        madds += _madds(name, operation, graph.tensors)
        largest_multiplier = max([largest_multiplier, *multipliers(model, operation, graph.tensors).tolist()])
    return Graph(
        operators,
        tuple(_tensor(graph.tensors, entry) for entry in signature.inputs),
        tuple(_tensor(graph.tensors, entry) for entry in signature.outputs),
        madds,
        _arena_bytes(model, graph),
        largest_multiplier,
    )


def multipliers(model: schema.ModelT, operation: schema.OperatorT, tensors: Sequence[schema.TensorT]) -> np.ndarray:
    """How many steps of the output one step of the accumulator is, of an operation with int8 weights.

    Args:
      model: the file.
      operation: one of its operations.
      tensors: those of its subgraph.

    Returns:
      input scale * weight scale / output scale, float64, by channel, or one of a layer with one weight scale; empty for
      an operation without weights, or not of int8.
    """
    if _name(model.operatorCodes[operation.opcodeIndex]) not in _WEIGHTED:
        return np.zeros(0)
    places = (*operation.inputs[:2], operation.outputs[0])
    quantizations = [tensors[place].quantization for place in places]
    if any(one is None or one.scale is None for one in quantizations):
        return np.zeros(0)
    taken, weights, given = (np.asarray(one.scale, np.float64) for one in quantizations)
    return taken * weights / given


def _name(code: schema.OperatorCodeT) -> str:
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _refuse_open_shapes(graph: schema.SubGraphT) -> None:
    for tensor in graph.tensors:
        shape = [] if tensor.shapeSignature is None else list(tensor.shapeSignature)
        if any(size < 0 for size in shape):
            raise ValueError(f"the file's tensor {tensor.name.decode()!r} has the open shape {shape}.")


def _arena_bytes(model: schema.ModelT, graph: schema.SubGraphT) -> int:
    constant = {place for place, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None}
    first: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.outputs, len(graph.operators))
    for step, operation in enumerate(graph.operators):
        for place in operation.outputs:
            first.setdefault(place, step)
        for place in operation.inputs:
            last.setdefault(place, step)
            last[place] = max(last[place], step)
    sizes = [0] * (len(graph.operators) + 1)
    for place, step in first.items():
        if place not in constant:
            tensor = graph.tensors[place]
            size = int(np.prod(tensor.shape)) * np.dtype(_TYPES[tensor.type]).itemsize
            for kept in range(step, last.get(place, step) + 1):
                sizes[kept] += size
    return max(sizes)


def _madds(name: str, operation: schema.OperatorT, tensors: list[schema.TensorT]) -> int:
    if name not in _WEIGHTED:
        return 0
    weights = tensors[operation.inputs[1]].shape
    outputs = tensors[operation.outputs[0]].shape
    if name == "DEPTHWISE_CONV_2D":
        # Weights are (1, height, width, channels): each output value sums one window.
        return int(np.prod(outputs)) * int(weights[1] * weights[2])
    # Weights start with the output channels; each output value sums all the rest.
    return int(np.prod(outputs)) * int(np.prod(weights[1:]))


def _tensor(tensors: list[schema.TensorT], entry: schema.TensorMapT) -> FileTensor:
    tensor = tensors[entry.tensorIndex]
    quantization = tensor.quantization
    scales = [] if quantization is None or quantization.scale is None else list(quantization.scale)
    return FileTensor(
        name=entry.name.decode(),
        dtype=_TYPES[tensor.type],
        shape=tuple(int(size) for size in tensor.shape),
        scale=float(scales[0]) if scales else None,
        zero_point=int(quantization.zeroPoint[0]) if scales else None,
    )
