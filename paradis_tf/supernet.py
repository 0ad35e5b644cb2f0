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
from paradis_tf.base.keras_settings import settle
from paradis_tf.builders.architecture import FUSION, Architecture, Outputs, read
from paradis_tf.builders.shared import Applied, WithHeads, create_layers, fuse
from paradis_tf.cuts import WHOLE, Cut, Path, SwitchError
from paradis_tf.levels import Level, StepCut
from paradis_tf.operations.operation import NORMALIZATIONS, CutCall
from paradis_tf.paths import create_paths, path_named
from paradis_tf.switches import DEFAULT_GRID, Switch

settle(keras)


@keras.saving.register_keras_serializable(package="paradis_tf")
class Supernet(keras.Model):
    """Shared full-size weights, called with a path through them; see `TrainableSupernet` for training.

    Args:
      architecture: an `Architecture`, or its config with its `name` (as `get_config` writes it).
      switches: the switches it is trained and exported for, as `Switch` or in text form; none for a network of levels.
      grid: every slice bound is a multiple of 1/grid; of a network of levels their number.
      normalization: `private` gives each device of each switch a scale and shift of its own in batch norm, a gain and
        bias in weight normalization; with `shared_affine` it takes its slice of the full width's. Batch norm's
        statistics are its own in both. See `SwitchableBatchNormalization` and `SwitchableWeightNormConv2D`.
      levels: of a network of levels how many it has, 1 to 64; 0 for one of switches.
      connectivity: of a network of levels what its slices read; see `Level`.
      dtype: Keras' dtype policy: "float32", "mixed_float16" or "mixed_bfloat16". Weights, fused predictions and batch
        norm's statistics are float32 in each.

    Call arguments:
      images: (batch, height, width, 3), raw pixels 0..255 in any number type.
      path: the path to run, or its name, by keyword; the widest if left out.
      training: whether batch norm uses and collects the batch's statistics.
      devices: indices of the devices of the path that answer, ascending; all of them if left out.

    Returns:
      a dict of the fused `prediction`, for a classifier its logits (batch, classes), for super-resolution the image
      (batch, height * scale, width * scale, 3), and the concatenated `features` (batch, ..., channels).

    Raises:
      SwitchError: an illegal switch or number of levels, or a path that cuts inside a channel of a layer.
      UserError: an unknown `normalization`; switches and levels, or neither; levels of an architecture without a
        classifier.

    Attributes:
      paths: the switches or levels.
      switches: the switches; none of a network of levels.
    """

    def __init__(
        self,
        architecture: Architecture | dict[str, Any],
        switches: Sequence[Switch | str] = (),
        grid: int = DEFAULT_GRID,
        normalization: str = "private",
        levels: int = 0,
        connectivity: str = "dense",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(architecture, dict):
            architecture = models.create(**architecture)
        self.architecture = architecture
        self.levels = levels
        self.connectivity = connectivity
        self.grid = levels or grid
        self.paths = create_paths(switches, grid, levels, connectivity)
        self.switches = tuple(path for path in self.paths if isinstance(path, Switch))
        if normalization not in NORMALIZATIONS:
            raise UserError(f"normalization is {normalization!r}; it is {' or '.join(map(repr, NORMALIZATIONS))}.")
        self.normalization = normalization
        layers = create_layers(architecture, self.paths, self.dtype_policy, normalization)
        self.shared_layers = list(layers.values())
        self._layer_of = {layer.name: layer for layer in self.shared_layers}
        self.task = tasks.create(self.architecture.task)
        self.built = True

    @property
    def widest(self) -> Path:
        """The path that owns most channels, on fewest devices: the teacher of the others."""
        return min(self.paths, key=lambda path: (-path.width, path.devices))

    def check_path(self, path: Path) -> None:
        """Raises SwitchError unless the path is one of the network's."""
        if path not in self.paths:
            raise SwitchError(f"{getattr(path, 'kind', 'path')} '{path}' is not one of this network's: {self._known}.")

    def check_cut(self, cut: Cut) -> None:
        """Raises SwitchError unless the cut is of a path of the network's, or a step of one."""
        if not isinstance(cut, Cut):
            raise SwitchError(f"{cut!r} is no cut; legal: one of a path, such as network.paths[0].cuts[0].")
        if cut not in self.steps and not any(cut in path.cuts for path in self.paths):
            kinds = "switches" if self.switches else f"levels ({self.connectivity})"
            raise SwitchError(f"{cut} is not one of this network's; its {kinds} are {self._known}.")

    @property
    def steps(self) -> tuple[StepCut, ...]:
        """Of a network of triangular levels, what each of them adds to the one before it; of others nothing."""
        last = self.paths[-1]
        return last.steps if isinstance(last, Level) else ()

    @property
    def _known(self) -> str:
        return ", ".join(map(str, self.paths))

    def path(self, name: str) -> Path:
        """The path of that name; a switch's text form is read in any order of its widths.

        Raises:
          SwitchError: the network has no such path.
        """
        path = path_named(name, self.paths, self.grid)
        self.check_path(path)
        return path

    def call_cut(self, images: Any, cut: Cut, training: bool = False) -> Outputs[Any]:
        """The partial outputs of one device: `prediction` and `features` as they are before fusion."""
        self.check_cut(cut)
        reading = Applied(self._layer_of, CutCall(cut, self.compute_dtype, training))
        prediction, features = read(self.architecture, reading, images, end=FUSION)
        return Outputs(keras.ops.cast(prediction, self.variable_dtype), features)

    def call_cuts(self, images: Any, cuts: Sequence[Cut], training: bool = False) -> dict[Cut, Outputs[Any]]:
        """The partial outputs of several devices, of one run of what they share: cuts of one key differ in heads."""
        of_key: dict[str, list[Cut]] = {}
        for cut in dict.fromkeys(cuts):
            of_key.setdefault(cut.key, []).append(cut)
        outputs: dict[Cut, Outputs[Any]] = {}
        for group in of_key.values():
            widest = max(group, key=lambda cut: cut.width)
            if group == [widest]:
                outputs[widest] = self.call_cut(images, widest, training)
                continue
            for cut in group:
                self.check_cut(cut)
            reading = WithHeads(self._layer_of, CutCall(widest, self.compute_dtype, training), group)
            predictions, features = read(self.architecture, reading, images, end=FUSION)
            for cut, prediction in zip(group, predictions, strict=True):
                own = reading.part_of(features, cut, "features")
                outputs[cut] = Outputs(keras.ops.cast(prediction, self.variable_dtype), own)
        return outputs

    def call_paths(self, images: Any, paths: Sequence[Path], training: bool = False) -> list[dict[str, Any]]:
        """What a call returns, for each of several paths, from one run of what they share.

        All levels of a triangular network are one run of the last, all of a diagonal one a run of each slice.
        """
        for path in paths:
            self.check_path(path)
        partial = self.call_cuts(images, [cut for path in paths for cut in path.cuts], training)
        return [self.fuse(images, [partial[cut] for cut in path.cuts]) for path in paths]

    def fuse(self, images: Any, partial: Sequence[Outputs[Any]]) -> dict[str, Any]:
        """What a call returns, from the outputs of `call_cut` of all devices of a path or of those that answer.

        Raises:
          ValueError: no outputs.
        """
        if not partial:
            raise ValueError("there is nothing to fuse; at least one device answers.")
        fused = fuse(partial)
        reading = Applied(self._layer_of, CutCall(WHOLE, self.compute_dtype))
        handed = (fused.prediction, fused.features)
        prediction, features = read(self.architecture, reading, images, begin=FUSION, handed=handed)
        return {"prediction": prediction, "features": features}

    def call(
        self,
        images: Any,
        *,
        path: Path | str | None = None,
        training: bool | None = False,
        devices: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        if isinstance(path, str):
            path = self.path(path)
        path = path or self.widest
        self.check_path(path)
        cuts = path.cuts
        live = range(len(cuts)) if devices is None else devices
        if len(set(live)) < len(live):
            raise SwitchError(f"devices are {tuple(live)}; each answers once.")
        for device in live:
            if not 0 <= device < len(cuts):
                legal = f"its devices are 0 to {len(cuts) - 1}"
                raise SwitchError(f"device {device} is not in {path.kind} '{path}'; {legal}.")
        return self.fuse(images, [self.call_cut(images, cuts[device], bool(training)) for device in live])

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Takes no notice: networks that were saved with what trained them are loaded without it."""

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(architecture=self.architecture_config(), normalization=self.normalization, **self._paths_config())
        return config

    def _paths_config(self) -> dict[str, Any]:
        """The arguments that give its paths, JSON-ready."""
        if self.levels:
            return {"levels": self.levels, "connectivity": self.connectivity}
        return {"switches": [str(switch) for switch in self.switches], "grid": self.grid}

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
        """SHA-256, in hex, of what decides the answers: architecture, paths and weights."""
        # The grid decides no answer.
        paths = {key: value for key, value in self._paths_config().items() if key != "grid"}
        config = {"architecture": self.architecture_config(), **paths}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for layer in self.shared_layers:
            for weight in layer.weights:
                value = keras.ops.convert_to_numpy(weight)
                digest.update(f"{layer.name}/{weight.name} {value.dtype} {value.shape}".encode())
                digest.update(value.tobytes())
        return digest.hexdigest()
