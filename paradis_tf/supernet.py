"""The supernet: one Keras model that owns the shared weights and runs any slice or switch of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import paradis_tf.schedules  # noqa: F401  saved networks hold its class, which has to be registered to load them
from export.fusion.program import UserError
from paradis_tf import models, tasks
from paradis_tf.builders.operations import Architecture, Outputs, apply_tail
from paradis_tf.builders.shared import SharedOperations, create_layers, fuse
from paradis_tf.divergence import FirstNonFinite
from paradis_tf.gradients import combine
from paradis_tf.layers import SlicedConv2D, SlicedDense
from paradis_tf.methods.passes import Draw, Method, Pass, Teacher
from paradis_tf.switches import DEFAULT_GRID, FULL, Switch, SwitchError, parse_switches

# What batch norm's scale and shift are, by the `batch_norm` of a supernet.
_AFFINES = {"private": "private", "shared_affine": "shared"}


@keras.saving.register_keras_serializable(package="paradis_tf")
class Supernet(keras.Model):
    """Shared full-size weights, called with a static slice or switch.

    Args:
      architecture: an `Architecture`, or its config with its `name` (as `get_config` writes it).
      switches: the switches it is trained and exported for, as `Switch` or in text form.
      grid: every slice bound is a multiple of 1/grid.
      batch_norm: `private` gives each device of each switch statistics, scale and shift of its own, `shared_affine`
        statistics alone; see `SwitchableBatchNormalization`.
      dtype: Keras' dtype policy: "float32", "mixed_float16" or "mixed_bfloat16". Weights, fused predictions and batch
        norm's statistics are float32 in each.

    Call arguments:
      images: (batch, height, width, 3), raw pixels 0..255 in any number type.
      switch: the `Switch` to run or its text form, by keyword; the widest one if left out.
      training: whether batch norm uses and collects the batch's statistics.
      devices: indices of the devices of the switch that answer, ascending; all of them if left out.

    Returns:
      a dict of the fused `prediction`, for a classifier its logits (batch, classes), for super-resolution the image
      (batch, height * scale, width * scale, 3), and the concatenated `features` (batch, ..., channels).

    Raises:
      SwitchError: an illegal switch, or one that cuts inside a channel of a layer.
      UserError: an unknown `batch_norm`.

    `compile` takes a `Method`; `fit` then makes one optimizer step per batch from the gradients of all of the
    method's passes, each under a tape of its own, and reports `loss` (the sum), and `loss/<switch>` and
    `<metric>/<switch>`, the metric being the task's. `evaluate` reports the same on the true targets, on the average of
    the weights if one is kept. `finished` gives the network to keep. Source: ours (reconstruction of ParaDiS).
    """

    def __init__(
        self,
        architecture: Architecture | dict[str, Any],
        switches: Sequence[Switch | str],
        grid: int = DEFAULT_GRID,
        batch_norm: str = "private",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(architecture, dict):
            architecture = models.create(**architecture)
        self.architecture = architecture
        self.grid = grid
        self.switches = parse_switches([str(switch) for switch in switches], grid)
        if batch_norm not in _AFFINES:
            raise UserError(f"batch_norm is {batch_norm!r}; it is {' or '.join(map(repr, _AFFINES))}.")
        self.batch_norm = batch_norm
        layers = create_layers(architecture, self.switches, grid, self.dtype_policy, _AFFINES[batch_norm])
        self.shared_layers = list(layers.values())
        self._layer_of = {layer.name: layer for layer in self.shared_layers}
        self.task = tasks.create(self.architecture.task)
        self.passes: tuple[Pass | Draw, ...] = ()
        self.average_decay = 0.0
        self._average: list[keras.Variable] = []
        self.built = True

    @property
    def widest(self) -> Switch:
        """The switch that owns most channels, on fewest devices: the teacher of the others."""
        return min(self.switches, key=lambda switch: (-switch.width, switch.devices))

    def check_device(self, switch: Switch, device: int) -> None:
        """Raises SwitchError unless the switch is one of the supernet's and has that device."""
        if switch not in self.switches:
            known = ", ".join(str(s) for s in self.switches)
            raise SwitchError(f"switch '{switch}' is not one of this network's: {known}.")
        if not 0 <= device < switch.devices:
            raise SwitchError(
                f"device {device} is not in switch '{switch}'; its devices are 0 to {switch.devices - 1}."
            )

    def call_slice(self, images: Any, switch: Switch, device: int, training: bool = False) -> Outputs[Any]:
        """The partial outputs of one device of a switch."""
        self.check_device(switch, device)
        ops = SharedOperations(self._layer_of, switch, device, training)
        found = self.architecture(ops, images)
        return Outputs(keras.ops.cast(found.prediction, self.variable_dtype), found.features)

    def fuse_parts(self, images: Any, parts: Sequence[Outputs[Any]]) -> dict[str, Any]:
        """What a call returns, from the outputs of `call_slice` of all devices of a switch or of those that answer.

        Raises:
          ValueError: no parts.
        """
        if not parts:
            raise ValueError("there are no parts to fuse; at least one device answers.")
        fused = fuse(parts)
        ops = SharedOperations(self._layer_of, Switch((FULL,)), 0, training=False)
        prediction = apply_tail(self.architecture, ops, images, fused.prediction)
        return {"prediction": prediction, "features": fused.features}

    def call(
        self,
        images: Any,
        *,
        switch: Switch | str | None = None,
        training: bool | None = False,
        devices: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        if isinstance(switch, str):
            switch = Switch.parse(switch, self.grid)
        switch = switch or self.widest
        live = range(switch.devices) if devices is None else devices
        return self.fuse_parts(images, [self.call_slice(images, switch, device, bool(training)) for device in live])

    def compile(
        self,
        optimizer: Any = "sgd",
        method: Method | None = None,
        weight_decay: float = 0.0,
        decay_all: bool = False,
        clip_norm: float = 0.0,
        average_decay: float = 0.0,
        loss: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepares training.

        Args:
          optimizer: a Keras optimizer, its name or its config.
          method: what each switch learns from; its passes are made once, here.
          weight_decay: added to the gradient as `weight_decay * kernel`, for convolution and dense kernels
            only; depthwise kernels, batch norm and biases have none (Yu et al. 2019).
          decay_all: gives every trained weight that decay.
          clip_norm: the gradients, summed over the passes, are scaled down to this global norm where they are above
            it, before the decay; 0 leaves them.
          average_decay: how much of their moving average a step keeps, in [0, 1), less in the first steps; 0 keeps no
            average. It covers all weights, batch norm's statistics too.
          loss: options of the architecture's task, such as `label_smoothing`.
          **kwargs: as in `keras.Model.compile`, without `metrics`, which the task gives.

        Raises:
          ValueError: no method, or a number out of range.
          UserError: a method that cannot train these switches or wants an average that is not kept, or a wrong
            option of the task.
        """
        if method is None:
            raise ValueError("compile needs method=...; it says what each switch learns from.")
        if weight_decay < 0:
            raise ValueError(f"weight_decay is {weight_decay!r}; it is 0 or more.")
        if clip_norm < 0:
            raise ValueError(f"clip_norm is {clip_norm!r}; it is 0 or more.")
        if not 0 <= average_decay < 1:
            raise ValueError(f"average_decay is {average_decay!r}; it lies in [0, 1).")
        self.task = tasks.create(self.architecture.task, **(loss or {}))
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        # Built here, because an optimizer that makes its variables in the first step has the step traced twice.
        self.optimizer.build(self.trainable_variables)
        self.method = method
        self.passes = method.passes(self.switches, self.widest)
        self.weight_decay = weight_decay
        self.decay_all = decay_all
        self.clip_norm = clip_norm
        kernels = {id(layer.kernel) for layer in self.shared_layers if isinstance(layer, SlicedConv2D | SlicedDense)}
        self._decayed = {i for i, v in enumerate(self.trainable_variables) if decay_all or id(v) in kernels}
        self._keep_average(average_decay)
        self.first_non_finite = FirstNonFinite()
        self._total_loss = keras.metrics.Mean(name="loss")
        self._switch_losses = {s: keras.metrics.Mean(name=f"loss/{s}") for s in self.switches}
        self._switch_metrics = {s: self.task.new_metric(f"{self.task.metric}/{s}") for s in self.switches}

    def _keep_average(self, decay: float) -> None:
        self.average_decay = decay
        wanted = {one.teacher.source for one in self._all_passes() if one.teacher}
        if "average" in wanted and not decay:
            raise UserError("the method learns from the average of the weights; optimizer.average_decay is 0, set it.")
        if decay and not self._average:
            self._average = [
                self.add_weight(
                    name=f"average_{index}",
                    shape=weight.shape,
                    initializer=lambda shape, dtype, value=weight: keras.ops.copy(value.value),
                    trainable=False,
                    autocast=False,
                    aggregation="only_first_replica",
                )
                for index, weight in enumerate(self._averaged_weights())
            ]

    def _averaged_weights(self) -> list[keras.Variable]:
        return [weight for layer in self.shared_layers for weight in layer.weights]

    def _all_passes(self) -> list[Pass]:
        return [one for entry in self.passes for one in (entry.passes if isinstance(entry, Draw) else (entry,))]

    @property
    def metrics(self) -> list[keras.Metric]:
        if not self.compiled:
            return []
        return [self._total_loss, *self._switch_losses.values(), *self._switch_metrics.values()]

    @property
    def draws(self) -> bool:
        """Whether a step has passes that are drawn."""
        return any(isinstance(entry, Draw) for entry in self.passes)

    def drawn_passes(self) -> tuple[Pass, ...]:
        """The passes of the next step, those that are drawn among them; called outside of a step."""
        return tuple(
            entry.passes[int(self._draw(entry, place))] if isinstance(entry, Draw) else entry
            for place, entry in enumerate(self.passes)
        )

    def _draw(self, draw: Draw, place: int) -> tf.Tensor:
        # A function of the step's number, so that a resumed run draws what an undisturbed one does.
        seed = tf.stack([tf.cast(self.optimizer.iterations, tf.int32), place])
        return tf.random.stateless_uniform([], seed, maxval=len(draw.passes), dtype=tf.int32)

    def train_step(self, data: Any, passes: Sequence[Pass] | None = None) -> dict[str, Any]:
        """One step of the optimizer.

        Args:
          data: (images, targets), the replica's part of the batch.
          passes: what `drawn_passes` gave; without them the step draws by itself.
        """
        images, targets = _images_and_targets(data)
        gradients: dict[int, tf.Tensor] = {}
        if passes and self.draws:
            # As when the step draws: what the drawn pass does not touch has a gradient of zero.
            gradients = {index: tf.zeros(v.shape, v.dtype) for index, v in enumerate(self.trainable_variables)}
        outputs = self._absent_teachers(images)
        losses, switches = [], []
        for place, entry in enumerate(passes or self.passes):
            if isinstance(entry, Draw):
                drawn = self._draw(entry, place)
                loss, found = self._run_drawn(entry, drawn, images, targets, outputs)
                switches.append(tf.gather([self.switches.index(one.switch) for one in entry.passes], drawn))
            else:
                loss, found = self._run_pass(entry, images, targets, outputs)
                switches.append(tf.constant(self.switches.index(entry.switch)))
            for index, gradient in found.items():
                gradients[index] = gradients[index] + gradient if index in gradients else gradient
            losses.append(loss)
        self._total_loss.update_state(tf.add_n(losses))
        self.first_non_finite.update_state(tf.stack(losses), tf.stack(switches))
        self.optimizer.apply(
            *combine(
                gradients,
                self.trainable_variables,
                self.optimizer,
                clip_norm=self.clip_norm,
                weight_decay=self.weight_decay,
                decayed=self._decayed,
            )
        )
        self._update_average()
        return {metric.name: metric.result() for metric in self.metrics}

    def _absent_teachers(self, images: Any) -> dict[Teacher, dict[str, tf.Tensor]]:
        """The outputs of the teachers that have no pass of their own."""
        teachers = {one.teacher for one in self._all_passes() if one.teacher and one.teacher.source != "in_place"}
        outputs = {}
        for teacher in sorted(teachers, key=str):
            if teacher.source == "average":
                found = self._call_average(images, teacher.switch)
            else:
                network = self.method.fixed_teacher()
                if network is None:
                    raise ValueError(f"a pass learns from a fixed teacher, and {type(self.method).__name__} has none.")
                found = network(images, switch=teacher.switch, training=False)
            outputs[teacher] = {name: tf.stop_gradient(value) for name, value in found.items()}
        return outputs

    def _run_pass(
        self, one: Pass, images: Any, targets: Any, outputs: dict[Teacher, dict[str, tf.Tensor]]
    ) -> tuple[tf.Tensor, dict[int, tf.Tensor]]:
        """The loss of a pass and its gradients by index of the variable; its outputs are left in `outputs`."""
        with tf.GradientTape() as tape:
            found = self(images, switch=one.switch, training=True)
            loss = one.loss(self.task, targets, found, outputs.get(one.teacher) if one.teacher else None)
            scaled = self.optimizer.scale_loss(loss)
        outputs[Teacher(one.switch)] = {name: tf.stop_gradient(value) for name, value in found.items()}
        gradients = tape.gradient(scaled, [variable.value for variable in self.trainable_variables])
        self._switch_losses[one.switch].update_state(loss)
        self._switch_metrics[one.switch].update_state(targets, found["prediction"])
        return loss, {index: gradient for index, gradient in enumerate(gradients) if gradient is not None}

    def _run_drawn(
        self, draw: Draw, drawn: tf.Tensor, images: Any, targets: Any, outputs: dict[Teacher, dict[str, tf.Tensor]]
    ) -> tuple[tf.Tensor, dict[int, tf.Tensor]]:
        """As `_run_pass`, for one pass of several; each branch is traced, one is run."""

        def branch(one: Pass) -> tuple[tf.Tensor, list[tf.Tensor]]:
            loss, found = self._run_pass(one, images, targets, dict(outputs))
            variables = enumerate(self.trainable_variables)
            return loss, [found.get(index, tf.zeros(v.shape, v.dtype)) for index, v in variables]

        loss, gradients = tf.switch_case(drawn, [lambda one=one: branch(one) for one in draw.passes])
        return loss, {index: tf.convert_to_tensor(gradient) for index, gradient in enumerate(gradients)}

    def _update_average(self) -> None:
        if not self.average_decay:
            return
        step = tf.cast(self.optimizer.iterations, tf.float32)
        # Early on a short memory, or the initial weights would stay in it for long.
        decay = tf.minimum(self.average_decay, step / (10.0 + step))
        for weight, kept in zip(self._averaged_weights(), self._average, strict=True):
            kept.assign_add((1.0 - decay) * (weight.value - kept.value))

    def _call_average(self, images: Any, switch: Switch) -> dict[str, Any]:
        """A call on the average of the weights; the weights stay in their place, whatever interrupts it."""
        weights = zip(self._averaged_weights(), self._average, strict=True)
        with keras.StatelessScope(state_mapping=[(weight, kept.value) for weight, kept in weights]):
            return self(images, switch=switch, training=False)

    def finished(self) -> Supernet:
        """The network to keep when training is over: float32, with the average of the weights if one is kept.

        A copy, compiled alike, with a fresh optimizer.
        """
        network = Supernet(**{**self.get_config(), "architecture": self.architecture, "dtype": "float32"})
        kept = self._average if self.average_decay else self._averaged_weights()
        for weight, value in zip(network._averaged_weights(), kept, strict=True):
            weight.assign(keras.ops.convert_to_numpy(value))
        compiled = self.get_compile_config()
        if compiled:
            network.compile_from_config(compiled)
        return network

    def test_step(self, data: Any) -> dict[str, Any]:
        images, targets = _images_and_targets(data)
        count = tf.shape(targets)[0]
        total = 0.0
        for switch in self.switches:
            if self.average_decay:
                prediction = self._call_average(images, switch)["prediction"]
            else:
                prediction = self(images, switch=switch, training=False)["prediction"]
            loss = self.task.loss(targets, prediction)
            self._switch_losses[switch].update_state(loss, sample_weight=count)
            self._switch_metrics[switch].update_state(targets, prediction)
            total += loss
        self._total_loss.update_state(total, sample_weight=count)
        return {metric.name: metric.result() for metric in self.metrics}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            architecture=self.architecture_config(),
            switches=[str(switch) for switch in self.switches],
            grid=self.grid,
            batch_norm=self.batch_norm,
        )
        return config

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "method": keras.saving.serialize_keras_object(self.method),
            "weight_decay": self.weight_decay,
            "decay_all": self.decay_all,
            "clip_norm": self.clip_norm,
            "average_decay": self.average_decay,
            "loss": self.task.get_config(),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))

    def architecture_config(self) -> dict[str, Any]:
        """The architecture's name and options, JSON-ready."""
        return {"name": self.architecture.name, **self.architecture.get_config()}

    def first_weight_not_finite(self) -> str | None:
        """The name, `layer/weight`, of the first weight that holds NaN or infinity; None if there is none."""
        for layer in self.shared_layers:
            for weight in layer.weights:
                if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
                    return f"{layer.name}/{weight.name}"
        return None

    def model_id(self) -> str:
        """SHA-256, in hex, of what decides the answers: architecture, switches and weights."""
        config = {"architecture": self.architecture_config(), "switches": [str(s) for s in self.switches]}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for layer in self.shared_layers:
            for weight in layer.weights:
                value = keras.ops.convert_to_numpy(weight)
                digest.update(f"{layer.name}/{weight.name} {value.dtype} {value.shape}".encode())
                digest.update(value.tobytes())
        return digest.hexdigest()


def _images_and_targets(data: Any) -> tuple[Any, Any]:
    images, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
    if targets is None or weights is not None:
        raise ValueError(
            f"a batch is (images, targets); targets {'are missing' if targets is None else 'came with weights'}."
        )
    return images, targets
