"""Batch normalization with private statistics, and private or shared weights, for each device of each switch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.layers.global_moments import global_moments
from paradis_tf.layers.segments import Segments, layer_switches
from paradis_tf.switches import Slice, Switch

# The smallest epsilon that every fused kernel accepts.
EPSILON = 1.001e-5
AFFINES = ("private", "shared")


@keras.saving.register_keras_serializable(package="paradis_tf")
class SwitchableBatchNormalization(keras.layers.Layer):
    """Batch normalization of one slice's channels, private to its (switch, device).

    The same channel has other inputs in another switch, so statistics, scale and shift are kept apart. Each of the
    four is one vector, a segment of it for each device of each switch, in that order; a switch whose widths
    add up to 1 takes `channels` values. With `affine="shared"` scale and shift are instead one vector of `channels`
    values, of which a device takes its slice in whatever switch; the statistics stay private.

    Training uses one fused kernel. Under a `tf.distribute` strategy of several replicas the batch is the global one,
    so that the number of replicas does not change what is learned; that is explicit arithmetic, slower than the fused
    kernel, with one exchange in each direction. The moving variance collects the unbiased variance of the batch
    (n - 1 in the denominator), as the fused kernel and the reference code of slimmable networks do;
    `keras.layers.BatchNormalization` collects the biased one.

    Args:
      channels: channels of the whole input, at full width.
      switches: the switches, as `Switch` or in text form as multiples of 1/`grid`.
      grid: the grid of the text form.
      momentum: how much of the moving statistics a training step keeps, in [0, 1).
      epsilon: added to the variance, at least 1.001e-5.
      affine: `private` or `shared`, of scale and shift.
      synchronized: whether several replicas normalize with the statistics of the global batch; otherwise each has its
        own, and the moving ones collect their mean.

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
    reconstruction of ParaDiS; the shared scale and shift are those of US-Nets (Yu & Huang 2019).
    """

    def __init__(
        self,
        channels: int,
        switches: Sequence[Switch | str],
        grid: int,
        momentum: float = 0.9,
        epsilon: float = EPSILON,
        affine: str = "private",
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(channels, int) or isinstance(channels, bool) or channels < 1:
            raise ValueError(f"layer {self.name!r}: channels is {channels!r}; it takes an int of at least 1.")
        if not 0 <= momentum < 1:
            raise ValueError(f"layer {self.name!r}: momentum is {momentum!r}; it lies in [0, 1).")
        if not epsilon >= EPSILON:
            raise ValueError(f"layer {self.name!r}: epsilon is {epsilon!r}; it is at least {EPSILON}.")
        if affine not in AFFINES:
            raise ValueError(f"layer {self.name!r}: affine is {affine!r}; it is {' or '.join(map(repr, AFFINES))}.")
        self.channels = channels
        self.switches = layer_switches(self.name, switches, grid)
        self.grid = grid
        self.momentum = momentum
        self.epsilon = epsilon
        self.affine = affine
        self.synchronized = synchronized

    def build(self, input_shape: Any = None) -> None:
        self._segments = Segments(self.name, self.switches, lambda own: len(range(*self._own_channels(own))))
        size = self._segments.total
        affine = self.channels if self.affine == "shared" else size
        self.gamma = self.add_weight(name="gamma", shape=(affine,), initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=(affine,), initializer="zeros", autocast=False)
        self.moving_mean = self._statistics("moving_mean", size, "zeros")
        self.moving_variance = self._statistics("moving_variance", size, "ones")
        self.built = True

    def _statistics(self, name: str, size: int, initializer: str) -> keras.Variable:
        if not self.synchronized:
            weight: dict[str, Any] = dict(trainable=False, autocast=False, aggregation="mean")
            return self.add_weight(name=name, shape=(size,), initializer=initializer, **weight)
        # Replicas update their copies alike, without the exchange that a weight of `add_weight` has at every update.
        return keras.Variable(
            initializer,
            shape=(size,),
            dtype=self.variable_dtype,
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            synchronization="on_read",
            name=name,
        )

    def call(self, inputs: Any, *, switch: Switch, device: int, training: bool = False) -> Any:
        if training:
            outputs, mean, variance = self.normalize_batch(inputs, switch, device)
            first, last = self._segment(switch, device)
            self._collect(self.moving_mean, first, last, mean)
            self._collect(self.moving_variance, first, last, variance)
            return outputs
        first, last = self._segment(switch, device, inputs.shape[-1])
        statistics = (self.moving_mean[first:last], self.moving_variance[first:last])
        outputs, *_ = self._fused(inputs, switch, device, *statistics, training=False)
        return outputs

    def normalize_batch(self, inputs: Any, switch: Switch, device: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalizes with the batch's statistics and changes no weight.

        Args:
          inputs: float tensor (batch, height, width, channels of the slice).
          switch: the `Switch` whose scale and shift to use.
          device: index of the device in the switch.

        Returns:
          the outputs, and the mean and the unbiased variance of the batch, float32 (channels of the slice,).

        Raises:
          ValueError: as when the layer is called.
        """
        self._segment(switch, device, inputs.shape[-1])
        context = tf.distribute.get_replica_context()
        if not self.synchronized or context is None or context.num_replicas_in_sync == 1:
            outputs, mean, variance, *_ = self._fused(inputs, switch, device, [], [], training=True)
            return outputs, mean, variance
        # Half precision would lose the statistics; the fused kernel keeps them in single, too.
        single = tf.cast(inputs, tf.float32)
        mean, biased, unbiased = global_moments(single, context)
        affine = self._affine_slice(switch, device)
        scale = tf.math.rsqrt(biased + self.epsilon) * self.gamma[affine]
        outputs = (single - mean) * scale + self.beta[affine]
        return tf.cast(outputs, inputs.dtype), mean, unbiased

    def set_statistics(self, switch: Switch, device: int, mean: np.ndarray, variance: np.ndarray) -> None:
        """Replaces the moving mean and variance of a device, (channels of its slice,) each, outside of any step.

        Raises:
          ValueError: a device that this layer has no weights for, or another number of channels than it has.
        """
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            first, last = self._segment(switch, device, len(value))
            whole = np.array(keras.ops.convert_to_numpy(moving))
            whole[first:last] = value
            moving.assign(whole)

    def _fused(self, inputs: Any, switch: Switch, device: int, mean: Any, variance: Any, training: bool) -> Any:
        affine = self._affine_slice(switch, device)
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma[affine],
            offset=self.beta[affine],
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )

    def _collect(self, moving: keras.Variable, first: int, last: int, batch: tf.Tensor) -> None:
        # A padded addition and not an assignment to a part: it also works on variables that are mirrored.
        change = (1 - self.momentum) * (batch - moving[first:last])
        moving.assign_add(tf.pad(change, [[first, moving.shape[0] - last]]))

    def static_weights(self, switch: Switch, device: int) -> list[np.ndarray]:
        """Scale, shift, mean and variance of a device, in the order `BatchNormalization` keeps them."""
        segment = slice(*self._segment(switch, device))
        affine = self._affine_slice(switch, device)
        parts = (
            (self.gamma, affine),
            (self.beta, affine),
            (self.moving_mean, segment),
            (self.moving_variance, segment),
        )
        return [keras.ops.convert_to_numpy(weight)[part] for weight, part in parts]

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
            affine=self.affine,
            synchronized=self.synchronized,
        )
        return config

    def _own_channels(self, own: Slice) -> tuple[int, int]:
        return own.channels(self.channels, self.name)

    def _affine_slice(self, switch: Switch, device: int) -> slice:
        segment = self._segment(switch, device)
        return slice(*(self._own_channels(switch.slices[device]) if self.affine == "shared" else segment))

    def _segment(self, switch: Switch, device: int, channels: int | None = None) -> tuple[int, int]:
        first, last = self._segments.bounds(switch, device)
        if channels is not None and channels != last - first:
            raise ValueError(
                f"layer {self.name!r} got {channels} channels; device {device} of switch '{switch}' takes "
                f"{last - first}."
            )
        return first, last
