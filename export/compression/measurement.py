"""What compression reached, read from the bytes of a file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

_DTYPES = {schema.TensorType.INT8: np.int8, schema.TensorType.FLOAT32: np.float32}


@dataclass(frozen=True)
class MeasuredCompression:
    """What a file holds of compression. Of convolutions those count that may be pruned and clustered: neither
    depthwise ones nor the first.

    Attributes:
      sparsity: the part of zeros among the weights of these convolutions, 0 to 1.
      clusters: the largest number of distinct values in a kernel of these; of int8 files integers, -127 to 127.

    Both are 0 of a file without such convolutions.
    """

    sparsity: float
    clusters: int


def measure(data: bytes) -> MeasuredCompression:
    """Reads the bytes of a .tflite file of one slice, int8 or float32.

    Raises:
      ValueError: the weights of a convolution are of another type.

    Weights are counted as they are stored and as a runtime reads them, not as they were trained.
    """
    kernels = _kernels(data)
    weights = sum(kernel.size for kernel in kernels)
    return MeasuredCompression(
        sparsity=sum(int((kernel == 0).sum()) for kernel in kernels) / weights if weights else 0.0,
        clusters=max((len(np.unique(kernel)) for kernel in kernels), default=0),
    )


def _kernels(data: bytes) -> list[np.ndarray]:
    """The weights of all convolutions but depthwise ones and the first, which comes first in the order of execution."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    subgraph = model.subgraphs[0]
    kernels = []
    for operation in subgraph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.CONV_2D:
            continue
        tensor = subgraph.tensors[operation.inputs[1]]
        if tensor.type not in _DTYPES:
            raise ValueError(f"the weights {tensor.name.decode()!r} are neither int8 nor float32.")
        stored = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
        kernels.append(stored.view(_DTYPES[tensor.type]))
    return kernels[1:]
