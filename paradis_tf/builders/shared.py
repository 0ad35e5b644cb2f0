"""The readings of a network of shared weights: its full-size layers made, and applied to one cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from fusion.base.program import UserError
from paradis_tf.builders.architecture import Architecture, Outputs, Reading
from paradis_tf.builders.cost import cut_cost
from paradis_tf.cuts import WHOLE, Cut, Path, SwitchError
from paradis_tf.levels import Level
from paradis_tf.operations.operation import CutCall, Operation, Setting, Shape


def create_layers(
    architecture: Architecture, paths: Sequence[Path], dtype: Any = "float32", normalization: str = "private"
) -> dict[str, keras.layers.Layer]:
    """Makes and builds the full-size layers of an architecture, by name.

    Args:
      architecture: what is read.
      paths: the paths whose cuts layers keep private weights for.
      dtype: dtype policy of the layers.
      normalization: "private" gives each cut a scale and shift of its own in batch norm, a gain and bias in weight
        normalization; "shared_affine" has one of each at full width, of which a cut takes its own channels'.

    Raises:
      SwitchError: a path cuts inside a channel of a layer, which is named, or has several devices or a connectivity
        that the architecture does not take.
      UserError: the paths have heads of their own, and the architecture has none.
    """
    if getattr(architecture, "one_device", False):
        _check_one_device(architecture, paths)
    creator = _Creator(Setting(tuple(cut for path in paths for cut in path.cuts), dtype, normalization))
    height, width, channels = architecture.image_shape
    architecture(creator, Shape((height, width), channels, channels))
    if any(cut.head_key for cut in creator.setting.cuts) and not creator.has_head:
        raise UserError(
            f"architecture {architecture.name!r} has no classifier, of which each level has one of its own; a network "
            "of levels takes one that has."
        )
    for path in paths:
        for cut in path.cuts:
            try:
                cut_cost(architecture, cut)
            except SwitchError as error:
                raise SwitchError(f"{path.kind} '{path}' does not fit: {error}") from None
    for name, layer in creator.layers.items():
        layer.build((None, None, None, creator.channels[name]))
    return creator.layers


def _check_one_device(architecture: Architecture, paths: Sequence[Path]) -> None:
    for path in paths:
        why = f"architecture {architecture.name!r} adds up in every block what its slices make"
        if path.devices > 1:
            raise SwitchError(f"{path.kind} '{path}' has {path.devices} devices; {why}, so it runs on one.")
        if isinstance(path, Level) and path.connectivity != "dense":
            raise SwitchError(f"connectivity is {path.connectivity!r}; {why}, so its levels are dense.")


class _Creator(Reading[Shape]):
    """Makes the layers; a "tensor" is its shape at full width."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.layers: dict[str, keras.layers.Layer] = {}
        self.channels: dict[str, int] = {}
        self.has_head = False

    def __call__(self, operation: Operation, *tensors: Shape, name: str) -> Shape:
        channels = [shape.channels for shape in tensors]
        self.has_head |= operation.is_head
        layer = operation.layer(channels, self.setting, name)
        if layer is not None:
            if name in self.layers:
                raise ValueError(f"the architecture names two layers {name!r}; names are unique.")
            self.layers[name], self.channels[name] = layer, channels[0]
        return operation.shape(*tensors, cut=WHOLE, name=name)


class Applied(Reading[Any]):
    """Applies the shared layers to one cut.

    Args:
      layers: the layers of `create_layers`, by name.
      call: how they are applied.
    """

    def __init__(self, layers: Mapping[str, keras.layers.Layer], call: CutCall) -> None:
        self.layers = layers
        self.call = call

    def __call__(self, operation: Operation, *tensors: Any, name: str) -> Any:
        return operation.apply(self.call, self.layers.get(name), *tensors, name=name)


class WithHeads(Applied):
    """Applies the shared layers to the widest of several cuts of one key, and heads to each of them, on its channels.

    The result of a head is a list, in the order of the cuts; a head is the last operation before the boundary `FUSION`.

    Args:
      layers: the layers of `create_layers`, by name.
      call: how they are applied, with the widest cut.
      cuts: the cuts.
    """

    def __init__(self, layers: Mapping[str, keras.layers.Layer], call: CutCall, cuts: Sequence[Cut]) -> None:
        super().__init__(layers, call)
        self.calls = [dataclasses.replace(call, cut=cut) for cut in cuts]

    def __call__(self, operation: Operation, *tensors: Any, name: str) -> Any:
        if not operation.is_head:
            return super().__call__(operation, *tensors, name=name)
        layer = self.layers.get(name)
        return [
            operation.apply(call, layer, *(self.part_of(tensor, call.cut, name) for tensor in tensors), name=name)
            for call in self.calls
        ]

    def part_of(self, tensor: Any, cut: Cut, name: str) -> Any:
        """What a cut has of a sliced tensor (..., channels) of the widest one."""
        widest = self.call.cut
        channels = int(tensor.shape[-1] / widest.width)
        start = widest.inputs(name, channels)[0]
        first, last = (channel - start for channel in cut.inputs(name, channels))
        return tensor[..., first:last]


def fuse(outputs: Sequence[Outputs[Any]]) -> Outputs[Any]:
    """The outputs of several cuts as one: predictions are summed, features concatenated in channel order."""
    if len(outputs) == 1:
        return outputs[0]
    prediction = outputs[0].prediction
    for other in outputs[1:]:
        prediction = prediction + other.prediction
    return Outputs(prediction, keras.ops.concatenate([each.features for each in outputs], axis=-1))
