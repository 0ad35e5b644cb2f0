"""WDSR, wide activation super-resolution."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from fusion.base.program import UserError
from paradis_tf.builders.architecture import FUSION, Outputs, Reading, Tensor
from paradis_tf.operations import Add, Bias, Denormalize, DepthToSpace, Normalize, Relu, WeightNormConv

# By variant: how much wider than the residual stream the activation is.
_EXPANSIONS = {"a": 4, "b": 6}
_LINEAR_WIDTH = 0.8


@dataclass(frozen=True)
class WDSR:
    """WDSR: a 3x3 head, residual blocks that are wide before their ReLU, a 3x3 tail, and a 5x5 convolution of the image
    around all of it; every convolution weight-normalized with bias, no batch norm.

    Each device makes a part of the tail convolution's 3 * scale * scale maps. After fusion that convolution's bias and
    the 5x5 convolution of the image are added, once, and the maps shuffled to pixels: float, 0..255, not clipped. Block
    "a" is 3x3 n -> 4n, ReLU, 3x3 4n -> n; block "b" is 1x1 n -> 6n, ReLU, 1x1 6n -> 0.8n, 3x3 0.8n -> n.

    Args:
      image_shape: (height, width, 3) of the low-resolution RGB image, for costs and static models; the layers take
        images of any size.
      scale: 2, 3 or 4, how many times larger the answer's sides are.
      blocks: number of residual blocks, 1 to 128.
      filters: width n of the residual stream, 1 to 512.
      variant: "a" or "b".
      expansion: the widest width of a block over n, 1 to 16; 0 takes the variant's own, 4 or 6.
      linear_multiple: of variant "b": 0.8n is rounded down to a multiple of it (and is at least that), 1 to 64. The
        published width, rounded down to a whole number, is 1; 4 lets the grid of quarters divide it.

    Raises:
      UserError: an option out of range.

    Source: Yu et al. 2018 (arXiv 1808.08718); sizes, gains and the mean of 0.5 follow its later published code. The
    pixels' scale is ours: (p - 128) / 128 instead of p / 255 - 0.5, about twice as large on both ends. So are the
    gains of "b" (2, 1, 1 / sqrt(blocks)) and `linear_multiple`.
    """

    name: ClassVar[str] = "wdsr"
    task: ClassVar[str] = "super_resolution"

    image_shape: tuple[int, int, int]
    scale: int
    blocks: int = 16
    filters: int = 32
    variant: str = "a"
    expansion: int = 0
    linear_multiple: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        shape = self.image_shape
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
            raise UserError(f"{self.name}: image_shape is {shape}; it is (height, width, 3).")
        if self.variant not in _EXPANSIONS:
            raise UserError(f"{self.name}: variant is {self.variant!r}; it is one of {', '.join(_EXPANSIONS)}.")
        for option, least, most in (
            ("scale", 2, 4),
            ("blocks", 1, 128),
            ("filters", 1, 512),
            ("expansion", 0, 16),
            ("linear_multiple", 1, 64),
        ):
            value = getattr(self, option)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise UserError(f"{self.name}: {option} is {value!r}; it is a whole number from {least} to {most}.")

    @property
    def linear_width(self) -> int:
        """Channels between the two linear convolutions of a block "b", at full width."""
        whole = int(self.filters * _LINEAR_WIDTH)
        return max(whole // self.linear_multiple, 1) * self.linear_multiple

    def __call__(self, net: Reading[Tensor], image: Tensor) -> Outputs[Tensor]:
        x = net(Normalize(), image, name="normalize")
        x = net(WeightNormConv(self.filters, 3, slice_inputs=False), x, name="head_conv")
        for index in range(1, self.blocks + 1):
            x = self._block(net, x, f"block_{index}")
        maps = net(WeightNormConv(self._maps, 3, use_bias=False, slice_outputs=False), x, name="tail_conv")
        maps, features = net.boundary(FUSION, maps, x)
        return Outputs(self._tail(net, image, maps), features)

    def _tail(self, net: Reading[Tensor], image: Tensor, maps: Tensor) -> Tensor:
        """The image from the sum of the slices' maps and the low-resolution image; nothing in it is sliced."""
        x = net(Normalize(), image, name="normalize")
        skip = net(WeightNormConv(self._maps, 5, slice_inputs=False, slice_outputs=False), x, name="skip_conv")
        x = net(Add(), net(Bias(), maps, name="tail_bias"), skip, name="skip_add")
        return net(Denormalize(), net(DepthToSpace(self.scale), x, name="pixels"), name="denormalize")

    def get_config(self) -> dict[str, Any]:
        """The options that make it again, JSON-ready."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape)}

    @property
    def _maps(self) -> int:
        return 3 * self.scale**2

    def _block(self, net: Reading[Tensor], x: Tensor, name: str) -> Tensor:
        wide = self.filters * (self.expansion or _EXPANSIONS[self.variant])
        side = 3 if self.variant == "a" else 1
        y = net(WeightNormConv(wide, side, gain=2.0), x, name=f"{name}_wide_conv")
        y = net(Relu(), y, name=f"{name}_relu")
        if self.variant == "b":
            y = net(WeightNormConv(self.linear_width, 1), y, name=f"{name}_linear_conv")
        y = net(WeightNormConv(self.filters, 3, gain=1 / math.sqrt(self.blocks)), y, name=f"{name}_conv")
        return net(Add(), x, y, name=f"{name}_add")
