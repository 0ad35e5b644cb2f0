"""MobileNet v1."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from paradis_tf.builders.architecture import FUSION, Outputs, Reading, Tensor
from paradis_tf.models import options
from paradis_tf.operations import BatchNorm, Classifier, Conv, DepthwiseConv, GlobalAveragePool, Normalize, Relu6

_STEM_FILTERS = 32
_BLOCK_FILTERS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
# Strides of the stem and of the thirteen blocks.
_FORMS = {
    "224": (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
    "32": (1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
}


@dataclass(frozen=True)
class MobileNetV1:
    """MobileNet v1: a 3x3 stem and thirteen depthwise separable blocks, each convolution with batch norm and ReLU6.

    Args:
      image_shape: (height, width, 3) of the raw RGB image.
      classes: number of classes, at least 2.
      width_multiplier: multiplies the filters of every layer; the products are rounded to whole filters.
      form: "224" has the published strides (the image shrinks 32 times); "32", for small images, keeps the stem at
        stride 1 (16 times).
      strides: strides of the stem and of the thirteen blocks, 1 or 2 each, in place of the form's; empty for those.

    Raises:
      UserError: an option out of range.

    Source: Howard et al. 2017, table 1; the "32" form is ours. Strides pad as TensorFlow's "same" does, the
    reference code of slimmable networks pads both sides alike.
    """

    name: ClassVar[str] = "mobilenet_v1"
    task: ClassVar[str] = "classification"

    image_shape: tuple[int, int, int]
    classes: int
    width_multiplier: float = 1.0
    form: str = "224"
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        options.check_classifier(self)
        options.check_choice(self, "form", _FORMS)
        options.check_strides(self, 1 + len(_BLOCK_FILTERS))

    def __call__(self, net: Reading[Tensor], image: Tensor) -> Outputs[Tensor]:
        stem_stride, *block_strides = self.strides or _FORMS[self.form]
        x = net(Normalize(), image, name="normalize")
        scaled = options.scaler(self.width_multiplier)
        x = net(Conv(scaled(_STEM_FILTERS), 3, stem_stride, slice_inputs=False), x, name="stem_conv")
        x = net(Relu6(), net(BatchNorm(), x, name="stem_norm"), name="stem_relu")
        for index, (filters, strides) in enumerate(zip(_BLOCK_FILTERS, block_strides, strict=True), 1):
            block = f"block_{index}"
            x = net(DepthwiseConv(3, strides), x, name=f"{block}_depthwise_conv")
            x = net(Relu6(), net(BatchNorm(), x, name=f"{block}_depthwise_norm"), name=f"{block}_depthwise_relu")
            x = net(Conv(scaled(filters), 1), x, name=f"{block}_pointwise_conv")
            x = net(Relu6(), net(BatchNorm(), x, name=f"{block}_pointwise_norm"), name=f"{block}_pointwise_relu")
        features = net(GlobalAveragePool(), x, name="features")
        logits = net(Classifier(self.classes), features, name="logits")
        return Outputs(*net.boundary(FUSION, logits, features))

    def get_config(self) -> dict[str, Any]:
        """The options that make it again, JSON-ready."""
        return {**dataclasses.asdict(self), "image_shape": list(self.image_shape), "strides": list(self.strides)}
