"""Where a step's time goes: TensorFlow's own trace of it, its kernels grouped by what they do."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The name that an optimizer has to have for its kernels to be told from others.
OPTIMIZER = "optimizer"

_BATCH_NORM = "batch norm"
# By the type of the operation, the first that occurs in it; oneDNN's kernels have the same words in their names.
_BY_TYPE = (
    (_BATCH_NORM, "FusedBatchNorm"),
    ("depthwise convolution", "Depthwise"),
    ("convolution", "Conv2D"),
    ("activation", "Relu"),
    ("slicing", "Slice|Pad|Concat|Split|Gather"),
    ("elementwise", "^Add|^Mul$|^Sub$|^Square|^Neg$|^RealDiv$|^Rsqrt$|^Sqrt$|^Maximum$|^Minimum$"),
    ("variables", "VariableOp"),
)
_OTHER = "other"
CATEGORIES = (*(category for category, _ in _BY_TYPE), OPTIMIZER, _OTHER)

# A kernel in a trace is "name/of/the/operation:Type"; whatever else is traced has no such name.
_KERNEL = re.compile(r"([^\s:]+):(_?[A-Z]\w*)")
# The architectures' names of batch norm, wherever in an operation's name; stock Keras computes it from small kernels.
_NORM_LAYER = re.compile(r"_norm(_\d+)?/")
_ONE_DNN = re.compile("^_Mkl(Native)?")


def category(event: str) -> str | None:
    """The category of a traced event's name, or `None` if it is no kernel's.

    Gradients count with what they are the gradient of. `batch norm` is the fused kernel and whatever else a layer named
    `..._norm` does, but for slicing. `slicing` cuts the slices from the full weights and gradients
    and puts them back, `elementwise` is sums and products outside of the optimizer (residual additions, gradients of
    several passes added up, decay), `variables` reads and updates those of the network, and `other` has losses, metrics
    and the classifier. All that an optimizer named `optimizer` does is `optimizer`.
    """
    kernel = _KERNEL.fullmatch(event)
    if kernel is None:
        return None
    name, operation = kernel.groups()
    if name.startswith(f"{OPTIMIZER}/"):
        return OPTIMIZER
    operation = _ONE_DNN.sub("", operation)
    by_type = next((kind for kind, pattern in _BY_TYPE if re.search(pattern, operation)), _OTHER)
    return _BATCH_NORM if by_type != "slicing" and _NORM_LAYER.search(name) else by_type


def measure(step: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds that the kernels of each category took in one call of `step`, on the CPU.

    Kernels run side by side, so the sum may exceed the step's duration, and a kernel's time includes its waiting for
    cores.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            step()
        files = list(Path(folder).rglob("*.xplane.pb"))
        traces = [xplane_pb2.XSpace.FromString(file.read_bytes()) for file in files]
    spent = dict.fromkeys(CATEGORIES, 0.0)
    for plane in (plane for trace in traces for plane in trace.planes if plane.name == "/host:CPU"):
        kinds = {number: category(metadata.name) for number, metadata in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            kind = kinds[event.metadata_id]
            if kind is not None:
                spent[kind] += event.duration_ps / 1e9
    return spent
