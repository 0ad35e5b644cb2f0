"""Every operation passes the shared checks, and a new one is one class that nothing else has to know of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from export.conversion.job import SliceFile
from export.conversion.slices import convert_slice
from paradis_tf.builders.cost import cut_cost
from paradis_tf.cuts import Cut
from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.methods import Paradis
from paradis_tf.operations import (
    Add,
    AveragePool,
    BatchNorm,
    Conv,
    DepthwiseConv,
    GroupedConv,
    MaxPool,
    Relu,
    Relu6,
    WeightNormConv,
)
from paradis_tf.operations.operation import Build, CutCall, Operation, Setting, Shape, connections
from tests.paradis_tf.operations.check import IMAGES, check_operation


@pytest.mark.parametrize(
    ("operation", "inputs"),
    [
        (Conv(8, 3, 2), 1),
        (DepthwiseConv(3, 2), 1),
        (BatchNorm(), 1),
        (WeightNormConv(8, 3), 1),
        (MaxPool(3, 2), 1),
        (AveragePool(2, 2), 1),
        (GroupedConv(3, 8), 1),
        (Relu(), 1),
        (Relu6(), 1),
        (Add(), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_operation_passes_the_shared_checks(operation: Operation, inputs: int) -> None:
    check_operation(operation, inputs)


@pytest.mark.parametrize("operation", [BatchNorm(), WeightNormConv(8, 3)], ids=lambda value: type(value).__name__)
def test_operations_with_private_weights_may_share_their_scale(operation: Operation) -> None:
    check_operation(operation, normalization="shared_affine")


@dataclass(frozen=True)
class Swish(Operation):
    """x * sigmoid(x)."""

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        return keras.ops.silu(*tensors)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        return build.stock(build.layers.Activation("swish", name=name), *tensors)


class Gate(SlicedLayer):
    """x * sigmoid(x's means times a matrix + bias), of the cut's channels."""

    def __init__(self, channels: int, **kwargs: Any) -> None:
        options: dict[str, Any] = dict(use_bias=True, slice_inputs=True, slice_outputs=True)
        super().__init__(channels, channels, **options, kernel_initializer="glorot_uniform", **kwargs)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels)

    def _block(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        return kernel[ins[0] : ins[1], outs[0] : outs[1]]

    def _apply(self, inputs: Any, kernel: Any) -> Any:
        return keras.ops.matmul(inputs, kernel)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["kernel_initializer"]
        config["channels"] = config.pop("in_channels")
        return config


@dataclass(frozen=True)
class Excite(Operation):
    """Channels weighted by a gate of their means, a small squeeze-and-excitation."""

    kind: ClassVar[str] = "excite"
    mixes = True

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> Gate:
        return Gate(channels[0], name=name, dtype=setting.dtype)

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        (x,) = tensors
        gate = keras.ops.sigmoid(layer(keras.ops.mean(x, axis=(1, 2)), cut=call.cut))
        return x * gate[:, None, None]

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        (x,) = tensors
        means = build.layers.GlobalAveragePooling2D(keepdims=True)(x)
        kernel, bias = build.weights(name)
        stock = build.layers.Conv2D(len(bias), 1, activation="sigmoid", name=name)
        gate = build.stock(stock, means, weights=[kernel[None, None], bias])
        # Of a step, which gets the slices before its own too.
        own = x if x.shape[-1] == len(bias) else x[..., -len(bias) :]
        return build.layers.Multiply()([own, gate])

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        return connections(cut, name, inputs[0].channels, result.channels)

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> tuple[int, int]:
        return self.weights(*inputs, result=result, cut=cut, name=name) + result.taken, 0

    def madds(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        return self.weights(*inputs, result=result, cut=cut, name=name)


@pytest.mark.parametrize("operation", [Swish(), Excite()], ids=lambda value: type(value).__name__)
def test_a_new_operation_is_one_class(operation: Operation) -> None:
    model = check_operation(operation)
    cut = model.switches[1].cut(1)
    excite = [row for row in cut_cost(model.architecture, cut).layers if row.kind == "excite"]
    assert [(row.madds, row.kernel_parameters) for row in excite] == ([(64, 72)] if operation.kind else [])

    model.compile(keras.optimizers.SGD(0.1), method=Paradis())
    before = [weight.numpy() for layer in model.shared_layers if layer.name == "operation" for weight in layer.weights]
    losses = [model.train_on_batch(IMAGES, np.array([0, 1, 2, 3]), return_dict=True)["loss"] for _ in range(2)]
    assert np.isfinite(losses).all()
    after = [weight.numpy() for layer in model.shared_layers if layer.name == "operation" for weight in layer.weights]
    assert all(np.abs(new - old).max() > 0 for old, new in zip(before, after, strict=True))

    data, graph = convert_slice(model, SliceFile(model.switches[1], 1, "int8"), IMAGES)
    assert len(data) > 1000 and "LOGISTIC" in graph.operator_names
