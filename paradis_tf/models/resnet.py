"""ResNet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from paradis_tf.builders.architecture import FUSION, Outputs, Reading, Tensor
from paradis_tf.models import options
from paradis_tf.operations import Add, BatchNorm, Classifier, Conv, GlobalAveragePool, MaxPool, Normalize, Relu

# Blocks of the four stages, by depth.
_BASIC_DEPTHS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK_DEPTHS = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_DEPTHS = {**_BASIC_DEPTHS, **_BOTTLENECK_DEPTHS}
_STAGE_FILTERS = (64, 128, 256, 512)
_STAGE_STRIDES = (1, 2, 2, 2)
# Filters of a bottleneck's last convolution to those of its middle.
_EXPANSION = 4
_FORMS = ("224", "32")


@dataclass(frozen=True)
class ResNet:
    """ResNet: four stages of residual blocks with ReLU after the addition.

    A basic block has two 3x3 convolutions, a bottleneck 1x1, 3x3 (which has the stride) and 1x1 to four times the
    filters. A shortcut is the identity, or where the shape changes a strided 1x1 convolution with batch norm. Both lie
    within a slice: a device adds its channels of the shortcut to its channels of the block, and its slice of a
    bottleneck's middle is cut from the middle's own width.

    Args:
      image_shape: (height, width, 3) of the raw RGB image.
      classes: number of classes, at least 2.
      width_multiplier: multiplies the filters of every layer; the products are rounded to whole filters (of a
        bottleneck the middle's, and its output is four times that).
      form: "224" has the published stem, 7x7 at stride 2 and 3x3 max pooling at stride 2 (the image shrinks 32
        times); "32", for small images, has a 3x3 stem at stride 1 and no pooling (8 times).
      depth: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks), or the smaller 10 (basic blocks), 14, 26 (bottlenecks).

    Raises:
      UserError: an option out of range.

    Source: He et al. 2016, table 1, with the stride on the 3x3 convolution as the reference code of slimmable networks
    has it; depths 10, 14 and 26 and the "32" form are ours. Strides pad as TensorFlow's "same" does, that code pads
    both sides alike.
    """

    name: ClassVar[str] = "resnet"
    task: ClassVar[str] = "classification"

    image_shape: tuple[int, int, int]
    classes: int
    width_multiplier: float = 1.0
    form: str = "224"
    depth: int = 50

    def __post_init__(self) -> None:
        options.check_classifier(self)
        options.check_choice(self, "form", _FORMS)
        options.check_choice(self, "depth", sorted(_DEPTHS))

    def __call__(self, net: Reading[Tensor], image: Tensor) -> Outputs[Tensor]:
        scaled = options.scaler(self.width_multiplier)
        bottleneck = self.depth in _BOTTLENECK_DEPTHS
        channels = scaled(_STAGE_FILTERS[0])
        x = self._stem(net, net(Normalize(), image, name="normalize"), channels)
        for stage, blocks in enumerate(_DEPTHS[self.depth]):
            middle = scaled(_STAGE_FILTERS[stage])
            filters = middle * _EXPANSION if bottleneck else middle
            for block in range(blocks):
                name = f"stage_{stage + 1}_block_{block + 1}"
                strides = _STAGE_STRIDES[stage] if block == 0 else 1
                shortcut = x
                if strides != 1 or filters != channels:
                    shortcut = _conv_norm(net, x, filters, 1, f"{name}_shortcut", strides)
                if bottleneck:
                    x = _conv_norm_relu(net, x, middle, 1, f"{name}_reduce")
                    x = _conv_norm_relu(net, x, middle, 3, f"{name}_middle", strides)
                    x = _conv_norm(net, x, filters, 1, f"{name}_expand")
                else:
                    x = _conv_norm_relu(net, x, filters, 3, f"{name}_first", strides)
                    x = _conv_norm(net, x, filters, 3, f"{name}_second")
                x = net(Relu(), net(Add(), x, shortcut, name=f"{name}_add"), name=f"{name}_relu")
                channels = filters
        features = net(GlobalAveragePool(), x, name="features")
        logits = net(Classifier(self.classes), features, name="logits")
        return Outputs(*net.boundary(FUSION, logits, features))

    def get_config(self) -> dict[str, Any]:
        """The options that make it again, JSON-ready."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape)}

    def _stem(self, net: Reading[Tensor], x: Tensor, filters: int) -> Tensor:
        if self.form == "32":
            return _conv_norm_relu(net, x, filters, 3, "stem", slice_inputs=False)
        x = _conv_norm_relu(net, x, filters, 7, "stem", strides=2, slice_inputs=False)
        return net(MaxPool(3, 2), x, name="stem_pool")


def _conv_norm(
    net: Reading[Tensor],
    x: Tensor,
    filters: int,
    kernel_size: int,
    name: str,
    strides: int = 1,
    slice_inputs: bool = True,
) -> Tensor:
    x = net(Conv(filters, kernel_size, strides, slice_inputs), x, name=f"{name}_conv")
    return net(BatchNorm(), x, name=f"{name}_norm")


def _conv_norm_relu(
    net: Reading[Tensor],
    x: Tensor,
    filters: int,
    kernel_size: int,
    name: str,
    strides: int = 1,
    slice_inputs: bool = True,
) -> Tensor:
    return net(Relu(), _conv_norm(net, x, filters, kernel_size, name, strides, slice_inputs), name=f"{name}_relu")
