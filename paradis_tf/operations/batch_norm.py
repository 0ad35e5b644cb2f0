"""Batch normalization with private statistics, and private or shared weights, for each cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from paradis_tf.cuts import Cut
from paradis_tf.layers.global_moments import global_moments
from paradis_tf.layers.segments import Segments
from paradis_tf.operations.operation import Build, CutCall, Operation, Rounding, Setting, Shape

# The smallest epsilon that every fused kernel accepts.
EPSILON = 1.001e-5
AFFINES = ("private", "shared")


@keras.saving.register_keras_serializable(package="paradis_tf")
class SwitchableBatchNormalization(keras.layers.Layer):
    """Batch normalization of one cut's channels, private to that cut.

    The same channel has other inputs in another cut, so statistics, scale and shift are kept apart. Each of the four
    is one vector, a segment of it for each cut, in their order. With `affine="shared"` scale and shift are instead one
    vector of `channels` values, of which each cut takes its own; the statistics stay private.

    Training uses one fused kernel. Under a `tf.distribute` strategy of several replicas the batch is the global one,
    so that the number of replicas does not change what is learned; that is explicit arithmetic, slower than the fused
    kernel, with one exchange in each direction. The moving variance collects the unbiased variance of the batch
    (n - 1 in the denominator), as the fused kernel and the reference code of slimmable networks do;
    `keras.layers.BatchNormalization` collects the biased one.

    Args:
      channels: channels of the whole input, at full width.
      cuts: the cuts that it keeps weights for, such as `Switch.cuts` of several switches.
      momentum: how much of the moving statistics a training step keeps, in [0, 1).
      epsilon: added to the variance, at least 1.001e-5.
      affine: `private` or `shared`, of scale and shift.
      sliced: false for inputs of all channels, whatever the cut.

    Call arguments:
      inputs: float tensor (batch, height, width, channels of the cut).
      cut: the `Cut` whose weights to use, by keyword.
      training: whether to normalize with the batch's statistics and update the moving ones.

    Returns:
      float tensor of the shape of `inputs`.

    Raises:
      ValueError: an argument out of range, a cut that this layer has no weights for, or inputs with another number of
        channels than the cut has.
      SwitchError: a cut falls inside a channel of this layer.

    Source: slimmable networks (Yu et al. 2019, switchable batch normalization), kept per device as in the
    reconstruction of ParaDiS; the shared scale and shift are those of US-Nets (Yu & Huang 2019).
    """

    def __init__(
        self,
        channels: int,
        cuts: Sequence[Cut],
        momentum: float = 0.9,
        epsilon: float = EPSILON,
        affine: str = "private",
        sliced: bool = True,
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
        self.cuts = tuple(cuts)
        self.momentum = momentum
        self.epsilon = epsilon
        self.affine = affine
        self.sliced = sliced

    def build(self, input_shape: Any = None) -> None:
        self._segments = Segments(self.name, self.cuts, self._own_channels)
        size = self._segments.total
        affine = self.channels if self.affine == "shared" else size
        self.gamma = self.add_weight(name="gamma", shape=(affine,), initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=(affine,), initializer="zeros", autocast=False)
        self.moving_mean = self._statistics("moving_mean", size, "zeros")
        self.moving_variance = self._statistics("moving_variance", size, "ones")
        self.built = True

    def _statistics(self, name: str, size: int, initializer: str) -> keras.Variable:
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

    def call(self, inputs: Any, *, cut: Cut, training: bool = False) -> Any:
        if training:
            outputs, mean, variance = self.normalize_batch(inputs, cut)
            first, last = self._segment(cut)
            self._collect(self.moving_mean, first, last, mean)
            self._collect(self.moving_variance, first, last, variance)
            return outputs
        first, last = self._segment(cut, inputs.shape[-1])
        statistics = (self.moving_mean[first:last], self.moving_variance[first:last])
        outputs, *_ = self._fused(inputs, cut, *statistics, training=False)
        return outputs

    def normalize_batch(self, inputs: Any, cut: Cut) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalizes with the batch's statistics and changes no weight.

        Args:
          inputs: float tensor (batch, height, width, channels of the cut).
          cut: the cut whose scale and shift to use.

        Returns:
          the outputs, and the mean and the unbiased variance of the batch, float32 (channels of the cut,).

        Raises:
          ValueError: as when the layer is called.
        """
        self._segment(cut, inputs.shape[-1])
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            outputs, mean, variance, *_ = self._fused(inputs, cut, [], [], training=True)
            return outputs, mean, variance
        # Half precision would lose the statistics; the fused kernel keeps them in single, too.
        single = tf.cast(inputs, tf.float32)
        mean, biased, unbiased = global_moments(single, context)
        affine = self._affine_slice(cut)
        scale = tf.math.rsqrt(biased + self.epsilon) * self.gamma[affine]
        outputs = (single - mean) * scale + self.beta[affine]
        return tf.cast(outputs, inputs.dtype), mean, unbiased

    def set_statistics(self, cut: Cut, mean: np.ndarray, variance: np.ndarray) -> None:
        """Replaces the moving mean and variance of a cut, (channels of the cut,) each, outside of any step.

        Raises:
          ValueError: a cut that this layer has no weights for, or another number of channels than it has.
        """
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            first, last = self._segment(cut, len(value))
            whole = np.array(keras.ops.convert_to_numpy(moving))
            whole[first:last] = value
            moving.assign(whole)

    def _fused(self, inputs: Any, cut: Cut, mean: Any, variance: Any, training: bool) -> Any:
        affine = self._affine_slice(cut)
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

    def static_weights(self, cut: Cut) -> list[np.ndarray]:
        """Scale, shift, mean and variance of a cut, in the order `BatchNormalization` keeps them."""
        segment = slice(*self._segment(cut))
        affine = self._affine_slice(cut)
        own = (
            (self.gamma, affine),
            (self.beta, affine),
            (self.moving_mean, segment),
            (self.moving_variance, segment),
        )
        return [keras.ops.convert_to_numpy(weight)[values] for weight, values in own]

    def compute_output_spec(self, inputs: Any, cut: Cut, training: bool = False) -> keras.KerasTensor:
        self._segment(cut, inputs.shape[-1])
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            channels=self.channels,
            cuts=[keras.saving.serialize_keras_object(cut) for cut in self.cuts],
            momentum=self.momentum,
            epsilon=self.epsilon,
            affine=self.affine,
            sliced=self.sliced,
        )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SwitchableBatchNormalization:
        cuts = [keras.saving.deserialize_keras_object(cut) for cut in config["cuts"]]
        return cls(**{**config, "cuts": cuts})

    def _own_channels(self, cut: Cut) -> tuple[int, int]:
        return cut.outputs(self.name, self.channels) if self.sliced else (0, self.channels)

    def _affine_slice(self, cut: Cut) -> slice:
        segment = self._segment(cut)
        return slice(*(self._own_channels(cut) if self.affine == "shared" else segment))

    def _segment(self, cut: Cut, channels: int | None = None) -> tuple[int, int]:
        first, last = self._segments.bounds(cut)
        if channels is not None and channels != last - first:
            raise ValueError(f"layer {self.name!r} got {channels} channels; {cut} takes {last - first}.")
        return first, last


@dataclass(frozen=True)
class BatchNorm(Operation):
    """Batch normalization, its statistics private to each cut.

    Args:
      sliced: false where the input has all channels, whatever the cut.
    """

    kind: ClassVar[str] = "batch_norm"
    rounding: ClassVar[Rounding] = Rounding.FOLDED

    sliced: bool = True

    def layer(self, channels: Sequence[int], setting: Setting, name: str) -> SwitchableBatchNormalization:
        affine = "shared" if setting.normalization == "shared_affine" else "private"
        options: dict[str, Any] = dict(affine=affine, sliced=self.sliced, name=name, dtype=setting.dtype)
        return SwitchableBatchNormalization(channels[0], setting.cuts, **options)

    def apply(self, call: CutCall, layer: Any, *tensors: Any, name: str) -> Any:
        if call.statistics is None:
            return layer(*tensors, cut=call.cut, training=call.training)
        outputs, *call.statistics[name] = layer.normalize_batch(*tensors, call.cut)
        return outputs

    def static(self, build: Build, *tensors: Any, name: str) -> Any:
        stock = build.layers.BatchNormalization(epsilon=EPSILON, name=name)
        return build.stock(stock, *tensors, weights=build.weights(name))

    def parameters(self, *inputs: Shape, result: Shape, cut: Cut, name: str) -> tuple[int, int]:
        return 0, 2 * result.taken
