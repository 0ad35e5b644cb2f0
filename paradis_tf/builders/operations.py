"""The operations an architecture is written in, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

Tensor = TypeVar("Tensor")

# A raw pixel p enters a network as (p - 128) / 128: with this scale and offset the uint8 image is already the
# quantized input (scale 1/128, zero point 128), and an int8 file needs no arithmetic on it, only a moved zero point.
PIXEL_SCALE = 1 / 128
PIXEL_OFFSET = -1.0
NORMALIZED_RANGE = (PIXEL_OFFSET, 255 * PIXEL_SCALE + PIXEL_OFFSET)


@dataclass(frozen=True)
class Outputs(Generic[Tensor]):
    """What an architecture gives for one slice, or for a whole switch after fusion.

    Attributes:
      prediction: what is summed over the slices: of a classifier the logits (batch, classes), partial for one slice; of
        super-resolution the residual maps (batch, height, width, 3 * scale * scale). What an architecture with a tail
        makes of the sum takes their place after fusion: the image (batch, height * scale, width * scale, 3).
      features: (batch, channels), the pooled features of a classifier, or (batch, height, width, channels), those
        before the last convolution; of one slice, in channel order after fusion.
    """

    prediction: Tensor
    features: Tensor


class Operations(ABC, Generic[Tensor]):
    """One interpretation of an architecture. `Tensor` is whatever the interpretation hands from op to op.

    Names are unique within an architecture. Sizes and channels are those of the full width; each interpretation
    knows what it makes of them.
    """

    @abstractmethod
    def normalize(self, image: Tensor) -> Tensor:
        """Raw pixels 0..255 to [-1, 1): (pixel - 128) / 128."""

    @abstractmethod
    def conv(
        self,
        x: Tensor,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        strides: int = 1,
        slice_inputs: bool = True,
    ) -> Tensor:
        """Convolution without bias, padding "same"; outputs are sliced, inputs unless they are the image."""

    @abstractmethod
    def weight_norm_conv(
        self,
        x: Tensor,
        filters: int,
        kernel_size: int,
        *,
        name: str,
        gain: float = 1.0,
        use_bias: bool = True,
        slice_inputs: bool = True,
        slice_outputs: bool = True,
    ) -> Tensor:
        """Weight-normalized convolution, stride 1, padding "same", its gains starting from `gain`.

        With `slice_outputs=False` its partial outputs are summed over the devices; `bias` adds its bias after that.
        """

    @abstractmethod
    def bias(self, x: Tensor, *, name: str) -> Tensor:
        """One learnt value added to each channel, of a tensor that is not sliced."""

    @abstractmethod
    def depthwise_conv(self, x: Tensor, kernel_size: int, *, name: str, strides: int = 1) -> Tensor:
        """Depthwise convolution without bias, padding "same"."""

    @abstractmethod
    def batch_norm(self, x: Tensor, *, name: str) -> Tensor:
        """Batch normalization, private to each device of each switch."""

    @abstractmethod
    def relu6(self, x: Tensor, *, name: str) -> Tensor:
        """min(max(x, 0), 6)."""

    @abstractmethod
    def relu(self, x: Tensor, *, name: str) -> Tensor:
        """max(x, 0)."""

    @abstractmethod
    def add(self, x: Tensor, y: Tensor, *, name: str) -> Tensor:
        """x + y, of one shape. Both hold the slice's channels, so each device adds its own."""

    @abstractmethod
    def max_pool(self, x: Tensor, pool_size: int, *, name: str, strides: int) -> Tensor:
        """Largest value of each window, padding "same"."""

    @abstractmethod
    def depth_to_space(self, x: Tensor, block_size: int, *, name: str) -> Tensor:
        """Pixel shuffle of a tensor that is not sliced; see `paradis_tf.layers.DepthToSpace`."""

    @abstractmethod
    def denormalize(self, x: Tensor, *, name: str) -> Tensor:
        """The inverse of `normalize`: 128 x + 128, float pixels, not clipped to 0..255."""

    @abstractmethod
    def global_average_pool(self, x: Tensor, *, name: str) -> Tensor:
        """Mean over height and width."""

    @abstractmethod
    def classifier(self, x: Tensor, classes: int, *, name: str) -> Tensor:
        """Dense layer to partial logits: inputs are sliced, outputs are not, the bias is in the first slice."""


class Architecture(Protocol):
    """An architecture written once: its options as attributes, its layers as a call on `Operations`.

    Attributes:
      name: its name in configs.
      task: the name of the task it is made for, in `paradis_tf.tasks`.
    """

    name: ClassVar[str]
    task: ClassVar[str]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, 3) of the raw RGB image."""

    def __call__(self, ops: Operations[Tensor], image: Tensor) -> Outputs[Tensor]:
        """Applies the layers to a raw image."""

    def get_config(self) -> dict[str, Any]:
        """The options that make it again."""


@runtime_checkable
class Tailed(Protocol):
    """An architecture that makes something of the fused prediction, once, where the parts are added.

    A device that is missing then lacks only its part of the sum. Architectures without a tail answer with the sum.
    """

    def tail(self, ops: Operations[Tensor], image: Tensor, prediction: Tensor) -> Tensor:
        """The answer, from the raw image and the sum over the slices; nothing in it is sliced."""


def apply_tail(architecture: Architecture, ops: Operations[Tensor], image: Tensor, prediction: Tensor) -> Tensor:
    """The answer of an architecture, from the raw image and the sum of the slices' predictions."""
    return architecture.tail(ops, image, prediction) if isinstance(architecture, Tailed) else prediction
