"""Batch normalization with private weights and statistics for each device of each switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.switches import Switch, SwitchError, parse_switches

# The smallest epsilon that every fused kernel accepts.
EPSILON = 1.001e-5


@keras.saving.register_keras_serializable(package="paradis_tf")
class SwitchableBatchNormalization(keras.layers.Layer):
    """Batch normalization of one slice's channels, private to its (switch, device).

    The same channel has other inputs in another switch, so statistics, scale and shift are kept apart. Each of the
    four is one vector, a segment of it for each device of each switch, in that order; a switch whose widths
    add up to 1 takes `channels` values. Training uses one fused kernel. The moving variance collects
    the unbiased variance of the batch (n - 1 in the denominator), as that kernel and the reference code of
    slimmable networks do; `keras.layers.BatchNormalization` collects the biased one.

    Args:
      channels: channels of the whole input, at full width.
      switches: the switches, as `Switch` or in text form as multiples of 1/`grid`.
      grid: the grid of the text form.
      momentum: how much of the moving statistics a training step keeps, in [0, 1).
      epsilon: added to the variance, at least 1.001e-5.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the slice).
      switch: the `Switch` whose weights to use, by keyword.
      device: index of the device in the switch, by keyword.
      training: whether to normalize with the batch's statistics and update the moving ones.

    Returns:
      float tensor of the shape of `inputs`.

    Raises:
      ValueError: an argument out of range, a switch or device that this layer has no weights for, or inputs with
        another number of channels than the device has.
      SwitchError: a switch cuts inside a channel of this layer.

    Source: slimmable networks (Yu et al. 2019, switchable batch normalization), kept per device as in the
    reconstruction of ParaDiS.
    """

    def __init__(
        self,
        channels: int,
        switches: Sequence[Switch | str],
        grid: int,
        momentum: float = 0.9,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
            raise ValueError(f"layer {self.name!r}: channels is {channels!r}; it takes an int of at least 1.")
        if not 0 <= momentum < 1:
            raise ValueError(f"layer {self.name!r}: momentum is {momentum!r}; it lies in [0, 1).")
        if not epsilon >= EPSILON:
            raise ValueError(f"layer {self.name!r}: epsilon is {epsilon!r}; it is at least {EPSILON}.")
        self.channels = channels
        try:
            self.switches = parse_switches([str(switch) for switch in switches], grid)
        except SwitchError as error:
            raise SwitchError(f"layer {self.name!r}: {error}") from None
        self.grid = grid
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: Any = None) -> None:
        size = 0
        self._segments: dict[tuple[str, int], tuple[int, int]] = {}
        for switch in self.switches:
            for device, slice in enumerate(switch.slices):
                first, last = slice.channels(self.channels, self.name)
                self._segments[str(switch), device] = (size, size + last - first)
                size += last - first
        statistics: dict[str, Any] = dict(trainable=False, autocast=False, aggregation="mean")
        self.gamma = self.add_weight(name="gamma", shape=(size,), initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=(size,), initializer="zeros", autocast=False)
        self.moving_mean = self.add_weight(name="moving_mean", shape=(size,), initializer="zeros", **statistics)
        self.moving_variance = self.add_weight(name="moving_variance", shape=(size,), initializer="ones", **statistics)
        self.built = True

    def call(self, inputs: Any, *, switch: Switch, device: int, training: bool = False) -> Any:
        first, last = self._segment(switch, device, inputs.shape[-1])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma[first:last],
            offset=self.beta[first:last],
            mean=[] if training else self.moving_mean[first:last],
            variance=[] if training else self.moving_variance[first:last],
            epsilon=self.epsilon,
            is_training=bool(training),
        )
        if training:
            self._collect(self.moving_mean, first, last, mean)
            self._collect(self.moving_variance, first, last, variance)
        return outputs

    def _collect(self, moving: keras.Variable, first: int, last: int, batch: tf.Tensor) -> None:
        # A padded addition and not an assignment to a part: it also works on variables that are mirrored.
        change = (1 - self.momentum) * (batch - moving[first:last])
        moving.assign_add(tf.pad(change, [[first, moving.shape[0] - last]]))

    def static_weights(self, switch: Switch, device: int) -> list[np.ndarray]:
        """Scale, shift, mean and variance of a device, in the order `BatchNormalization` keeps them."""
        first, last = self._segment(switch, device)
        weights = (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        return [keras.ops.convert_to_numpy(weight)[first:last] for weight in weights]

    def compute_output_spec(
        self, inputs: Any, switch: Switch, device: int, training: bool = False
    ) -> keras.KerasTensor:
        self._segment(switch, device, inputs.shape[-1])
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            channels=self.channels,
            switches=[str(switch) for switch in self.switches],
            grid=self.grid,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )
        return config

    def _segment(self, switch: Switch, device: int, channels: int | None = None) -> tuple[int, int]:
        segment = self._segments.get((str(switch), device))
        if segment is None:
            known = ", ".join(f"'{s}' ({s.devices} devices)" for s in self.switches)
            raise ValueError(f"layer {self.name!r} has no device {device} of switch '{switch}'; it has {known}.")
        first, last = segment
        if channels is not None and channels != last - first:
            raise ValueError(
                f"layer {self.name!r} got {channels} channels; device {device} of switch '{switch}' takes "
                f"{last - first}."
            )
        return segment
