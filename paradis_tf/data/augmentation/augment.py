"""Augmentation of training images: what may be asked for, and the geometric part. Each change is a function of
(seed, epoch, place), see `paradis_tf.data.augmentation.draws`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.data.augmentation import color, draws, rand_augment

_TRIES = 10
_ASPECTS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augmentation:
    """What happens to each training image, in this order; the keys of `config.augmentation`.

    Attributes:
      inception_crop: smallest area of a random crop as a fraction of the image's, below 1; the crop has an aspect of
        3/4 to 4/3 of the input's and is resized to the input (Szegedy et al., "Going Deeper with Convolutions",
        2014, section 6; 0.08 there, 0.25 is usual for MobileNets). 0 turns it off: images are then taken as for
        evaluation.
      flip: whether an image is mirrored left to right with probability one half.
      crop_padding: the image is padded by so many pixels of zero on every side and cut to its size again at random
        (He et al., "Deep Residual Learning", 2015, section 4.2); 0 turns it off.
      color_jitter: brightness, contrast and color, in this order, are each scaled by a random factor between 1 minus
        and 1 plus this, 0 to 1; 0 turns it off.
      rand_augment_layers: how many random operations of RandAugment follow (Cubuk et al., 2019); 0 turns it off.
      rand_augment_magnitude: their strength, 0 to 10; see `paradis_tf.data.augmentation.rand_augment`.
    """

    inception_crop: float = 0.0
    flip: bool = False
    crop_padding: int = 0
    color_jitter: float = 0.0
    rand_augment_layers: int = 0
    rand_augment_magnitude: float = 9.0

    def check(self, height: int, width: int) -> None:
        """Raises UserError unless images of this size can be augmented so."""
        side = min(height, width)
        for key, legal, good in (
            ("inception_crop", "0 or more and below 1", 0 <= self.inception_crop < 1),
            (
                "crop_padding",
                f"0 or more and below the image's side of {side} pixels",
                0 <= self.crop_padding < side,
            ),
            ("color_jitter", "from 0 to 1", 0 <= self.color_jitter <= 1),
            ("rand_augment_layers", "from 0 to 16", 0 <= self.rand_augment_layers <= 16),
            ("rand_augment_magnitude", "from 0 to 10", 0 <= self.rand_augment_magnitude <= 10),
        ):
            if not good:
                raise UserError(f"augmentation.{key} is {getattr(self, key)}; it is {legal}.")
        if self.inception_crop and self.crop_padding:
            raise UserError(
                f"augmentation.inception_crop is {self.inception_crop} and augmentation.crop_padding "
                f"{self.crop_padding}; only one of them crops, the other is 0."
            )

    @property
    def batched(self) -> bool:
        """Whether whole batches go through `change_batch` alone."""
        return not (self.inception_crop or self.color_jitter or self.rand_augment_layers)

    def draw(self, seed: int, epoch: tf.Tensor, places: tf.Tensor) -> dict[str, tf.Tensor]:
        """The random numbers for the images at these places of an epoch, float32 (n, numbers) for each use."""
        uses = {
            "crop_box": 2 * _TRIES + 2 if self.inception_crop else 0,
            "batch": 3 if self.flip or self.crop_padding else 0,
            "jitter": 3 if self.color_jitter else 0,
            "rand_augment": 2 * self.rand_augment_layers,
        }
        return {
            use: draws.uniform(seed, stream, epoch, places, count)
            for stream, (use, count) in enumerate(uses.items())
            if count
        }

    def crop_box(self, numbers: Mapping[str, tf.Tensor], shape: tf.Tensor, aspect: float) -> tf.Tensor:
        """The inception crop of one image.

        Args:
          numbers: of `draw`, for this image.
          shape: the image's height and width, integer (2,).
          aspect: the input's width over its height.

        Returns:
          int32 (4,): top, left, height and width in pixels of the image.
        """
        draw = numbers["crop_box"]
        sides = tf.cast(shape, tf.float32)
        area = sides[0] * sides[1] * (self.inception_crop + draw[:_TRIES] * (1 - self.inception_crop))
        low, high = (math.log(ratio) for ratio in _ASPECTS)
        ratio = aspect * tf.exp(low + draw[_TRIES : 2 * _TRIES] * (high - low))
        tries = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))
        fits = tf.reduce_all((tries >= 1) & (tries <= sides), axis=1)
        # When no try fits, the largest part of the image of a legal aspect.
        ratio = tf.clip_by_value(sides[1] / sides[0], aspect * _ASPECTS[0], aspect * _ASPECTS[1])
        width = tf.minimum(sides[1], sides[0] * ratio)
        largest = tf.maximum(1.0, tf.round(tf.stack([width / ratio, width])))
        size = tf.where(tf.reduce_any(fits), tries[tf.argmax(fits)], largest)
        size = tf.cast(tf.minimum(size, sides), tf.int32)
        return tf.concat([draws.below(draw[2 * _TRIES :], tf.cast(shape, tf.int32) - size + 1), size], axis=0)

    def change_batch(self, numbers: Mapping[str, tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        """Flips and padded crops of uint8 (n, height, width, 3) images, with their numbers of `draw`."""
        if not (self.flip or self.crop_padding):
            return images
        draw = numbers["batch"]
        pad = self.crop_padding
        height, width = images.shape[1:3]
        columns = tf.tile(tf.range(width)[None], [tf.shape(draw)[0], 1])
        if self.flip:
            columns = tf.where(draw[:, :1] < 0.5, columns, width - 1 - columns)
        if pad:
            images = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
            corners = draws.below(draw[:, 1:], 2 * pad + 1)
            images = tf.gather(images, corners[:, :1] + tf.range(height), axis=1, batch_dims=1)
            # Which columns of the mirrored image these are, so that both changes cost one look-up.
            columns = columns + corners[:, 1:]
        return tf.gather(images, columns, axis=2, batch_dims=1)

    def change_image(self, numbers: Mapping[str, tf.Tensor], image: tf.Tensor) -> tf.Tensor:
        """Everything but the inception crop, of one uint8 (height, width, 3) image, with its numbers of `draw`."""
        image = self.change_batch({use: draw[None] for use, draw in numbers.items()}, image[None])[0]
        if self.color_jitter:
            image = color.jitter(image, 1 + self.color_jitter * (2 * numbers["jitter"] - 1))
        for layer in range(self.rand_augment_layers):
            operation, sign = numbers["rand_augment"][2 * layer], numbers["rand_augment"][2 * layer + 1]
            image = rand_augment.apply(image, operation, sign, self.rand_augment_magnitude)
        return image
