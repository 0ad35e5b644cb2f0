"""Reads an exported .tflite file: its operations, its tensors, and what it costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

_TYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Tensor:
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
      input, output: the tensors of the signature `serving_default`, by their names in it.
      madds: multiply-adds of convolutions and fully connected layers, counted from their shapes.
    """

    operators: Counter[tuple[str, int]]
    input: Tensor
    output: Tensor
    madds: int

    @property
    def operator_names(self) -> set[str]:
        return {name for name, _ in self.operators}


def read(data: bytes) -> Graph:
    """Reads the bytes of a .tflite file with one subgraph, one input and one output.

    Raises:
      ValueError: it has more of them, no signature, or a custom operator.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    if len(model.subgraphs) != 1 or len(model.signatureDefs or []) != 1:
        raise ValueError(
            f"the file has {len(model.subgraphs)} subgraphs and {len(model.signatureDefs or [])} signatures; "
            "it takes one of each."
        )
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise ValueError("the file's signature has more than one input or output.")
    operators: Counter[tuple[str, int]] = Counter()
    madds = 0
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        name = _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        if name == "CUSTOM":
            raise ValueError(f"the file has the custom operator {code.customCode!r}.")
        operators[name, code.version] += 1
        madds += _madds(name, operation, graph.tensors)
    return Graph(
        operators,
        _tensor(graph.tensors, signature.inputs[0]),
        _tensor(graph.tensors, signature.outputs[0]),
        madds,
    )


def _madds(name: str, operation: schema.OperatorT, tensors: list[schema.TensorT]) -> int:
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    weights = tensors[operation.inputs[1]].shape
    outputs = tensors[operation.outputs[0]].shape
    if name == "DEPTHWISE_CONV_2D":
        # Weights are (1, height, width, channels): each output value sums one window.
        return int(np.prod(outputs)) * int(weights[1] * weights[2])
    # Weights start with the output channels; each output value sums all the rest.
    return int(np.prod(outputs)) * int(np.prod(weights[1:]))


def _tensor(tensors: list[schema.TensorT], entry: schema.TensorMapT) -> Tensor:
    tensor = tensors[entry.tensorIndex]
    quantization = tensor.quantization
    scales = [] if quantization is None or quantization.scale is None else list(quantization.scale)
    return Tensor(
        name=entry.name.decode(),
        dtype=_TYPES[tensor.type],
        shape=tuple(int(size) for size in tensor.shape),
        scale=float(scales[0]) if scales else None,
        zero_point=int(quantization.zeroPoint[0]) if scales else None,
    )
