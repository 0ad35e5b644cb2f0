"""Grouped convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.cuts import Cut, SwitchError
from paradis_tf.layers.sliced_layer import SlicedLayer
from paradis_tf.layers.windows import check_positions, check_window
from paradis_tf.operations.operation import Build, Operation, Setting, Shape


@keras.saving.register_keras_serializable(package="paradis_tf")
class SlicedGroupedConv2D(SlicedLayer):
    """2D convolution of channels in groups that do not see each other; a cut takes whole groups.

    As a whole it equals `keras.layers.Conv2D` with as many filters as channels, `groups`, padding "same" and no bias.

    Args:
      in_channels: channels of the whole input and output, at full width.
      kernel_size: side of the square window, in pixels, at least 1.
      groups: how many groups there are at full width; it divides `in_channels`.
      kernel_initializer: a Keras initializer, its name or its config.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the cut).
      cut: a `Cut`, by keyword; the whole layer if left out.

    Returns:
      float tensor of the shape of `inputs`.

    Raises:
      ValueError: an argument out of range, or inputs with another number of channels than the cut has.
      SwitchError: the cut falls inside a group of this layer.

    Source: aggregated transformations of ResNeXt (Xie et al. 2017), sliced by branches as in Lee & Shin 2018.
    """

    def __init__(
        self, in_channels: int, kernel_size: int, groups: int, kernel_initializer: Any = "he_normal", **kwargs: Any
    ) -> None:
        super().__init__(
            in_channels,
            in_channels,
            use_bias=False,
            slice_inputs=True,
            slice_outputs=True,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        check_window(self.name, kernel_size, 1, "same")
        if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1 or in_channels % groups:
            raise ValueError(f"layer {self.name!r}: groups is {groups!r}; it divides {in_channels} channels.")
        self.kernel_size = kernel_size
        self.groups = groups

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (self.kernel_size, self.kernel_size, self.in_channels // self.groups, self.in_channels)

    def _bounds(self, cut: Cut) -> tuple[tuple[int, int], tuple[int, int]]:
        own = whole_groups(cut, self.name, self.in_channels, self.groups)
        return own, own

    def _mask(self, cut: Cut) -> None:
        return None

    def _block(self, kernel: Any, ins: tuple[int, int], outs: tuple[int, int]) -> Any:
        return kernel[..., outs[0] : outs[1]]

    def _apply(self, inputs: Any, kernel: Any) -> Any:
        # TensorFlow tells the groups by the kernel's channels; `keras.ops.conv` would have XLA compile it.
        return tf.nn.conv2d(inputs, kernel, 1, "SAME")

    def _spatial_shape(self, input_shape: tuple) -> tuple:
        return check_positions(self.name, input_shape, self.kernel_size, 1, "same")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kernel_size": self.kernel_size, "groups": self.groups}


def whole_groups(cut: Cut, name: str, channels: int, groups: int) -> tuple[int, int]:
    """The channels [first, last) that a cut takes of a layer; raises `SwitchError` where it cuts a group."""
    first, last = cut.outputs(name, channels)
    size = channels // groups
    if first % size or last % size:
        raise SwitchError(
            f"layer {name!r} has {groups} branches of {size} channels, and {cut} would end inside one; slices take "
            "whole branches."
        )
    return first, last


@dataclass(frozen=True)
class GroupedConv(Operation):
    """Convolution of channels in groups, without bias, padding "same"; a cut takes whole groups.

    Its static form is a convolution for each group: tflite-runtime has no fast kernel for several in one.

    Args:
      kernel_size: side of the square window, in pixels.
      groups: how many groups there are at full width.
    """

    kind: ClassVar[str] = "conv"

    kernel_size: int
    groups: int

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SlicedGroupedConv2D:
        return SlicedGroupedConv2D(channels[0], self.kernel_size, self.groups, name=name, dtype=setting.dtype)

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        (kernel,) = build.weights(name)
        count = kernel.shape[-1] // kernel.shape[-2]
        split = keras.ops.split if build.keras is keras else tf.split
        inputs = split(tensors[0], count, axis=-1) if count > 1 else tensors
        outputs = []
        for index, block in enumerate(np.split(kernel, count, axis=-1)):
            own = f"{name}_{index}" if count > 1 else name
            stock = build.layers.Conv2D(block.shape[-1], self.kernel_size, padding="same", use_bias=False, name=own)
            outputs.append(build.stock(stock, inputs[index], weights=[block]))
        return build.stock(build.layers.Concatenate(name=name), outputs) if count > 1 else outputs[0]

    def shape(self, *inputs: Shape, cut: Cut, name: str) -> Shape:
        channels = inputs[0].channels
        return inputs[0].window(channels, whole_groups(cut, name, channels, self.groups), self.kernel_size)

    def weights(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> int:
        return self.kernel_size**2 * (inputs[0].channels // self.groups) * result.taken
