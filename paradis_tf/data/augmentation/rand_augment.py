"""The operations of RandAugment (Cubuk, Zoph, Shlens, Le, arXiv 1909.13719, 2019) with the ranges of AutoAugment
(Cubuk et al., arXiv 1805.09501, 2018, table 6), in the form in which a larger magnitude never changes an image less.

At magnitude m of 0..10: shear by 0.03 m, translation by 15/331 m of the side, rotation by 3 m degrees; brightness,
contrast, color and sharpness by a factor of 1 plus or minus 0.09 m; posterize to 8 - 0.4 m bits, rounded; solarize from
256 - 25.6 m, rounded. Signs are drawn. Autocontrast, equalize and invert have no magnitude. What an image does not
cover is filled with grey, 128. Source: the ranges the papers', the signs of the factors and the growth of posterize and
solarize with the magnitude ours, as is usual since.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from paradis_tf.data.augmentation import color, draws

_FILL = 128.0
# Takes the image, and the magnitude and the signed magnitude in tenths.
Operation = Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]


def affine(image: tf.Tensor, matrix: list[tf.Tensor | float]) -> tf.Tensor:
    """Looks each pixel up, nearest, at (a b; c d) times its offset (x, y) from the image's centre, plus (e, f).

    Args:
      image: uint8 (height, width, 3).
      matrix: a, b, e, c, d, f.
    """
    height, width = image.shape[:2]
    a, b, e, c, d, f = (tf.cast(value, tf.float32) for value in matrix)
    x, y = (width - 1) / 2, (height - 1) / 2
    transform = tf.stack([a, b, x + e - a * x - b * y, c, d, y + f - c * x - d * y, 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=[height, width],
        fill_value=_FILL,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _rotate(image: tf.Tensor, strength: float, signed: tf.Tensor) -> tf.Tensor:
    angle = signed * math.radians(30)
    return affine(image, [tf.cos(angle), tf.sin(angle), 0.0, -tf.sin(angle), tf.cos(angle), 0.0])


def _translation(signed: tf.Tensor, side: int) -> tf.Tensor:
    return tf.round(signed * (150 / 331) * side)


OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda image, strength, signed: color.autocontrast(image),
    "equalize": lambda image, strength, signed: color.equalize(image),
    "invert": lambda image, strength, signed: 255 - image,
    "rotate": _rotate,
    "posterize": lambda image, strength, signed: color.posterize(image, round(8 - 4 * strength)),
    "solarize": lambda image, strength, signed: color.solarize(image, round(256 - 256 * strength)),
    "color": lambda image, strength, signed: color.saturation(image, 1 + 0.9 * signed),
    "contrast": lambda image, strength, signed: color.contrast(image, 1 + 0.9 * signed),
    "brightness": lambda image, strength, signed: color.brightness(image, 1 + 0.9 * signed),
    "sharpness": lambda image, strength, signed: color.sharpness(image, 1 + 0.9 * signed),
    "shear_x": lambda image, strength, signed: affine(image, [1.0, 0.3 * signed, 0.0, 0.0, 1.0, 0.0]),
    "shear_y": lambda image, strength, signed: affine(image, [1.0, 0.0, 0.0, 0.3 * signed, 1.0, 0.0]),
    "translate_x": lambda image, strength, signed: affine(
        image, [1.0, 0.0, _translation(signed, image.shape[1]), 0.0, 1.0, 0.0]
    ),
    "translate_y": lambda image, strength, signed: affine(
        image, [1.0, 0.0, 0.0, 0.0, 1.0, _translation(signed, image.shape[0])]
    ),
}


def apply(image: tf.Tensor, operation: tf.Tensor, sign: tf.Tensor, magnitude: float) -> tf.Tensor:
    """One operation on one image.

    Args:
      image: uint8 (height, width, 3), the shape static.
      operation: float32 scalar in [0, 1), chooses among `OPERATIONS` evenly.
      sign: float32 scalar in [0, 1); from 0.5 on the magnitude is negative.
      magnitude: 0 to 10.
    """
    strength = magnitude / 10
    signed = tf.where(sign < 0.5, strength, -strength)
    branches = [lambda change=change: change(image, strength, signed) for change in OPERATIONS.values()]
    changed = tf.switch_case(draws.below(operation, len(OPERATIONS)), branches)
    return tf.ensure_shape(changed, image.shape)
