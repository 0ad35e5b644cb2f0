"""The supernet: one Keras model that owns the shared weights and runs any slice or switch of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from fusion.base.program import UserError
from paradis_tf import models, tasks
from paradis_tf.builders.operations import Architecture, Outputs, apply_tail
from paradis_tf.builders.shared import SharedOperations, create_layers, fuse
from paradis_tf.switches import DEFAULT_GRID, FULL, Switch, SwitchError, parse_switches
from paradis_tf.training.step import TrainedByPasses

# What scale and shift are, by the `normalization` of a supernet.
_AFFINES = {"private": "private", "shared_affine": "shared"}


@keras.saving.register_keras_serializable(package="paradis_tf")
class Supernet(TrainedByPasses):
    """Shared full-size weights, called with a static slice or switch.

    Args:
      architecture: an `Architecture`, or its config with its `name` (as `get_config` writes it).
      switches: the switches it is trained and exported for, as `Switch` or in text form.
      grid: every slice bound is a multiple of 1/grid.
      normalization: `private` gives each device of each switch a scale and shift of its own in batch norm, a gain and
        bias in weight normalization; with `shared_affine` it takes its slice of the full width's. Batch norm's
        statistics are its own in both. See `SwitchableBatchNormalization` and `SwitchableWeightNormConv2D`.
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
      UserError: an unknown `normalization`.

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
        normalization: str = "private",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(architecture, dict):
            architecture = models.create(**architecture)
        self.architecture = architecture
        self.grid = grid
        self.switches = parse_switches([str(switch) for switch in switches], grid)
        if normalization not in _AFFINES:
            raise UserError(f"normalization is {normalization!r}; it is {' or '.join(map(repr, _AFFINES))}.")
        self.normalization = normalization
        layers = create_layers(architecture, self.switches, grid, self.dtype_policy, _AFFINES[normalization])
        self.shared_layers = list(layers.values())
        self._layer_of = {layer.name: layer for layer in self.shared_layers}
        self.task = tasks.create(self.architecture.task)
        self.built = True

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

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(
            architecture=self.architecture_config(),
            switches=[str(switch) for switch in self.switches],
            grid=self.grid,
            normalization=self.normalization,
        )
        return config

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
