"""I-ResNeXt, of Slicing Networks Vertically."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from fusion.base.program import UserError
from paradis_tf.builders.architecture import FUSION, Outputs, Reading, Tensor
from paradis_tf.models import options
from paradis_tf.operations import (
    Add,
    AppendChannels,
    AveragePool,
    BatchNorm,
    Classifier,
    Conv,
    GlobalAveragePool,
    GroupedConv,
    Normalize,
    Relu,
)

_STAGES = 3
# Of the first stage: channels of the stream, and of each branch in the middle of a block; each stage has twice as many.
_STREAM_FILTERS, _BRANCH_FILTERS = 64, 4
_BRANCHES = 8
_MOST_BLOCKS = 64


@dataclass(frozen=True)
class IResNeXt:
    """I-ResNeXt: a pre-activation ResNeXt for small images, sliced by the branches of its blocks.

    Each block has 8 branches (1x1 to the branch's filters, 3x3 within the branch, 1x1 back), which are added to the
    stream. A slice takes whole branches; the stream itself, stem and classifier's input are never sliced, and every
    device adds its branches to it in every block. So a network of it runs on one device, and its levels are dense: how
    many they are divides 8.

    Args:
      image_shape: (height, width, 3) of the raw RGB image; published is 32x32.
      classes: number of classes, at least 2.
      width_multiplier: multiplies the filters of every layer; the products are rounded to whole filters.
      blocks: blocks of each of the three stages, 1 to 64.

    Raises:
      UserError: an option out of range.

    Source: the authors' code of Lee & Shin 2018; its images are normalized by the set's mean and deviation, and its
    weights start as its framework's do.
    """

    name: ClassVar[str] = "i_resnext"
    task: ClassVar[str] = "classification"
    one_device: ClassVar[bool] = True

    image_shape: tuple[int, int, int]
    classes: int
    width_multiplier: float = 1.0
    blocks: int = 7

    def __post_init__(self) -> None:
        options.check_classifier(self)
        if type(self.blocks) is not int or not 1 <= self.blocks <= _MOST_BLOCKS:
            raise UserError(f"{self.name}: blocks is {self.blocks!r}; it is a whole number from 1 to {_MOST_BLOCKS}.")

    def __call__(self, net: Reading[Tensor], image: Tensor) -> Outputs[Tensor]:
        scaled = options.scaler(self.width_multiplier)
        x = net(Normalize(), image, name="normalize")
        channels, branch = scaled(_STREAM_FILTERS), scaled(_BRANCH_FILTERS)
        x = net(Conv(channels, 3, slice_inputs=False, slice_outputs=False), x, name="stem_conv")
        for stage in range(1, _STAGES + 1):
            if stage > 1:
                x = net(AveragePool(2, 2), x, name=f"stage_{stage}_pool")
                x = net(AppendChannels(channels), x, name=f"stage_{stage}_append")
                channels, branch = 2 * channels, 2 * branch
            for block in range(1, self.blocks + 1):
                name = f"stage_{stage}_block_{block}"
                y = _norm_relu(net, x, f"{name}_reduce", sliced=False)
                y = net(Conv(_BRANCHES * branch, 1, slice_inputs=False), y, name=f"{name}_reduce_conv")
                y = _norm_relu(net, y, f"{name}_middle")
                y = net(GroupedConv(3, _BRANCHES), y, name=f"{name}_middle_conv")
                y = _norm_relu(net, y, f"{name}_expand")
                y = net(Conv(channels, 1, slice_outputs=False), y, name=f"{name}_expand_conv")
                x = net(Add(), x, y, name=f"{name}_add")
        features = net(GlobalAveragePool(), _norm_relu(net, x, "head", sliced=False), name="features")
        logits = net(Classifier(self.classes, slice_inputs=False), features, name="logits")
        return Outputs(*net.boundary(FUSION, logits, features))

    def get_config(self) -> dict[str, Any]:
        """The options that make it again, JSON-ready."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape)}


def _norm_relu(net: Reading[Tensor], x: Tensor, name: str, sliced: bool = True) -> Tensor:
    return net(Relu(), net(BatchNorm(sliced), x, name=f"{name}_norm"), name=f"{name}_relu")
