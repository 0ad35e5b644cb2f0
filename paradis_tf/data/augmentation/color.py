"""Operations on the colors of one uint8 (height, width, 3) RGB image. Each gives Pillow's result to within one grey
level, most of them exactly."""

from __future__ import annotations

import tensorflow as tf


def blend(first: tf.Tensor, second: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """first + factor * (second - first), clipped and cut to uint8; both 0..255 of a shape that broadcasts."""
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    return tf.cast(tf.clip_by_value(first + factor * (second - first), 0.0, 255.0), tf.uint8)


def grey(image: tf.Tensor) -> tf.Tensor:
    """Luma (ITU-R BT.601) as int32 (height, width, 1), in the fixed-point weights of 1/65536 that Pillow has."""
    weights = tf.constant([19595, 38470, 7471])
    return (tf.reduce_sum(tf.cast(image, tf.int32) * weights, axis=-1, keepdims=True) + 32768) // 65536


def brightness(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """0 gives black, 1 the image."""
    return blend(tf.zeros((), tf.uint8), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """0 gives the mean grey everywhere, 1 the image."""
    return blend(tf.floor(tf.reduce_mean(tf.cast(grey(image), tf.float32)) + 0.5), image, factor)


def saturation(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """0 gives a grey image, 1 the image; Pillow and RandAugment call it color."""
    return blend(grey(image), image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """0 gives the image smoothed by 3x3 weights of 1, 5 at the centre, over 13; 1 the image. Borders stay."""
    height, width = image.shape[:2]
    if min(height, width) < 3:
        return image
    whole = tf.cast(image, tf.int32)
    rows = whole[:-2] + whole[1:-1] + whole[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * whole[1:-1, 1:-1]
    # Halves cannot occur, 13 is odd.
    smooth = (total + 6) // 13
    inner = blend(smooth, image[1:-1, 1:-1], factor)
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], middle, image[-1:]], axis=0)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255; one of a single level stays."""
    whole = tf.cast(image, tf.int32)
    low, high = tf.reduce_min(whole, axis=(0, 1)), tf.reduce_max(whole, axis=(0, 1))
    stretched = (whole - low) * 255 // tf.maximum(high - low, 1)
    return tf.cast(tf.where(high > low, stretched, whole), tf.uint8)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Evens out the histogram of each channel; one of a single level stays."""
    return tf.stack([_equalized(image[:, :, channel]) for channel in range(3)], axis=-1)


def _equalized(channel: tf.Tensor) -> tf.Tensor:
    levels = tf.cast(channel, tf.int32)
    histogram = tf.math.bincount(tf.reshape(levels, [-1]), minlength=256, maxlength=256)
    last = tf.gather(histogram, tf.reduce_max(levels))
    step = (tf.reduce_sum(histogram) - last) // 255
    table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256))
    return tf.cast(tf.gather(table, levels), tf.uint8)


def posterize(image: tf.Tensor, bits: int) -> tf.Tensor:
    """Keeps the upper `bits` of each value, 1 to 8."""
    return tf.bitwise.bitwise_and(image, tf.constant(256 - 2 ** (8 - bits), tf.uint8))


def solarize(image: tf.Tensor, threshold: int) -> tf.Tensor:
    """Inverts the values from `threshold` on, 0 to 256."""
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def jitter(image: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Brightness, contrast and saturation by these three factors, in this order."""
    return saturation(contrast(brightness(image, factors[0]), factors[1]), factors[2])
