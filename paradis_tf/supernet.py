"""The supernet: one Keras model that owns the shared weights and runs any slice or switch of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from paradis_tf import models
from paradis_tf.builders.operations import Architecture, Outputs
from paradis_tf.builders.shared import SharedOperations, create_layers, fuse
from paradis_tf.layers import SlicedConv2D, SlicedDense
from paradis_tf.methods.passes import Method, Pass
from paradis_tf.switches import DEFAULT_GRID, Switch, SwitchError, parse_switches


@keras.saving.register_keras_serializable(package="paradis_tf")
class Supernet(keras.Model):
    """Shared full-size weights, called with a static slice or switch.

    Args:
      architecture: an `Architecture`, or its config with its `name` (as `get_config` writes it).
      switches: the switches it is trained and exported for, as `Switch` or in text form.
      grid: every slice bound is a multiple of 1/grid.

    Call arguments:
      images: (batch, height, width, 3), raw pixels 0..255 in any number type.
      switch: the `Switch` to run or its text form, by keyword; the widest one if left out.
      training: whether batch norm uses and collects the batch's statistics.

    Returns:
      a dict of the fused `logits` (batch, classes) and the concatenated `features` (batch, channels).

    Raises:
      SwitchError: an illegal switch, or one that cuts inside a channel of a layer.

    `compile` takes a `Method`; `fit` then makes one optimizer step per batch from the gradients of all of the
    method's passes, each under a tape of its own, and reports `loss` (the sum), and `loss/<switch>` and
    `accuracy/<switch>`. `evaluate` reports the same with hard labels. Source: ours (reconstruction of ParaDiS).
    """

    def __init__(
        self,
        architecture: Architecture | dict[str, Any],
        switches: Sequence[Switch | str],
        grid: int = DEFAULT_GRID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(architecture, dict):
            architecture = models.create(**architecture)
        self.architecture = architecture
        self.grid = grid
        self.switches = parse_switches([str(switch) for switch in switches], grid)
        self.shared_layers = list(create_layers(architecture, self.switches, grid, self.dtype_policy).values())
        self._layer_of = {layer.name: layer for layer in self.shared_layers}
        self.passes: tuple[Pass, ...] = ()
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
        return self.architecture(ops, images)

    def call(self, images: Any, *, switch: Switch | str | None = None, training: bool | None = False) -> dict[str, Any]:
        if isinstance(switch, str):
            switch = Switch.parse(switch, self.grid)
        switch = switch or self.widest
        parts = [self.call_slice(images, switch, device, bool(training)) for device in range(switch.devices)]
        fused = fuse(parts)
        return {"logits": fused.logits, "features": fused.features}

    def compile(
        self,
        optimizer: Any = "sgd",
        method: Method | None = None,
        weight_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Prepares training.

        Args:
          optimizer: a Keras optimizer, its name or its config.
          method: what each switch learns from; its passes are made once, here.
          weight_decay: added to the gradient as `weight_decay * kernel`, for convolution and dense kernels
            only; depthwise kernels, batch norm and biases have none (Yu et al. 2019).
          **kwargs: as in `keras.Model.compile`, without `loss` and `metrics`, which the method gives.

        Raises:
          ValueError: no method, or a negative weight decay.
        """
        if method is None:
            raise ValueError("compile needs method=...; it says what each switch learns from.")
        if weight_decay < 0:
            raise ValueError(f"weight_decay is {weight_decay!r}; it is 0 or more.")
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        # Built here, because an optimizer that makes its variables in the first step has the step traced twice.
        self.optimizer.build(self.trainable_variables)
        self.method = method
        self.passes = method.passes(self.switches, self.widest)
        self.weight_decay = weight_decay
        self._decayed = [layer.kernel for layer in self.shared_layers if isinstance(layer, SlicedConv2D | SlicedDense)]
        self._total_loss = keras.metrics.Mean(name="loss")
        self._switch_losses = {s: keras.metrics.Mean(name=f"loss/{s}") for s in self.switches}
        self._switch_accuracies = {
            s: keras.metrics.SparseCategoricalAccuracy(name=f"accuracy/{s}") for s in self.switches
        }

    @property
    def metrics(self) -> list[keras.Metric]:
        if not self.compiled:
            return []
        return [self._total_loss, *self._switch_losses.values(), *self._switch_accuracies.values()]

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = _images_and_labels(data)
        gradients: dict[int, tf.Tensor] = {}
        outputs: dict[Switch, dict[str, tf.Tensor]] = {}
        total = 0.0
        variables = self.trainable_variables
        for one in self.passes:
            with tf.GradientTape() as tape:
                found = self(images, switch=one.switch, training=True)
                loss = one.loss(labels, found, outputs.get(one.teacher) if one.teacher else None)
            outputs[one.switch] = {name: tf.stop_gradient(value) for name, value in found.items()}
            for index, gradient in enumerate(tape.gradient(loss, [v.value for v in variables])):
                if gradient is not None:
                    gradients[index] = gradients[index] + gradient if index in gradients else gradient
            self._switch_losses[one.switch].update_state(loss)
            self._switch_accuracies[one.switch].update_state(labels, found["logits"])
            total += loss
        self._total_loss.update_state(total)
        self.optimizer.apply(*self._decay(gradients, variables))
        return {metric.name: metric.result() for metric in self.metrics}

    def _decay(
        self, gradients: dict[int, tf.Tensor], variables: Sequence[keras.Variable]
    ) -> tuple[list[tf.Tensor], list[keras.Variable]]:
        decayed = {id(kernel) for kernel in self._decayed} if self.weight_decay else set()
        found, trained = [], []
        for index, gradient in sorted(gradients.items()):
            variable = variables[index]
            if id(variable) in decayed:
                gradient = gradient + self.weight_decay * variable.value
            found.append(gradient)
            trained.append(variable)
        return found, trained

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = _images_and_labels(data)
        total = 0.0
        for switch in self.switches:
            logits = self(images, switch=switch, training=False)["logits"]
            loss = Pass(switch).loss(labels, {"logits": logits}, None)
            self._switch_losses[switch].update_state(loss, sample_weight=tf.shape(labels)[0])
            self._switch_accuracies[switch].update_state(labels, logits)
            total += loss
        self._total_loss.update_state(total, sample_weight=tf.shape(labels)[0])
        return {metric.name: metric.result() for metric in self.metrics}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            architecture=self.architecture_config(),
            switches=[str(switch) for switch in self.switches],
            grid=self.grid,
        )
        return config

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "method": keras.saving.serialize_keras_object(self.method),
            "weight_decay": self.weight_decay,
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


def _images_and_labels(data: Any) -> tuple[Any, Any]:
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if labels is None or weights is not None:
        raise ValueError(
            f"a batch is (images, labels); labels {'are missing' if labels is None else 'came with weights'}."
        )
    return images, labels
