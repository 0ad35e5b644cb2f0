"""tf.data pipelines. Every epoch is a function of (seed, epoch), so an interrupted run resumes where it was."""

from __future__ import annotations

import tensorflow as tf

from export.fusion.program import UserError
from paradis_tf.data.datasets import Part


def training_batches(
    part: Part,
    batch_size: int,
    *,
    seed: int,
    first_epoch: int,
    epochs: int,
    flip: bool = False,
    crop_padding: int = 0,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of the epochs from `first_epoch` up to and without `epochs`, end to end.

    Args:
      part: the training part; it is kept in memory.
      batch_size: images per batch; the images that do not fill a last batch sit out that epoch.
      seed: with the epoch's number it fixes the order, and with the image's place in it the augmentation.
      first_epoch: number of the first epoch, from 0.
      epochs: number after the last epoch.
      flip: whether each image is mirrored left to right with probability one half.
      crop_padding: each image is padded by so many pixels of zero on every side and cut to its size again at
        random; 0 turns it off.

    Yields:
      (uint8 (batch_size, height, width, 3), int64 (batch_size,)).

    Raises:
      UserError: a batch size that the part cannot fill.
    """
    size = len(part)
    if not 0 < batch_size <= size:
        raise UserError(f"batch_size is {batch_size}; it lies between 1 and the {size} training images.")
    if not 0 <= crop_padding < min(part.images.shape[1:3]):
        raise UserError(
            f"augmentation.crop_padding is {crop_padding}; it is 0 or more and below the image's side of "
            f"{min(part.images.shape[1:3])} pixels."
        )
    images, labels = tf.constant(part.images), tf.constant(part.labels)
    steps = size // batch_size

    def epoch_indices(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(size), seed=[seed, epoch])
        places = tf.range(steps * batch_size)
        return tf.data.Dataset.from_tensor_slices((order[: steps * batch_size], places)).map(
            lambda index, place: (index, epoch, place)
        )

    def example(index: tf.Tensor, epoch: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.gather(images, index)
        draw = tf.random.stateless_uniform([3], seed=[seed + 1, epoch * size + place])
        return _augment(image, draw, flip, crop_padding), tf.gather(labels, index)

    return (
        tf.data.Dataset.range(first_epoch, epochs, output_type=tf.int32)
        .flat_map(epoch_indices)
        .map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _augment(image: tf.Tensor, draw: tf.Tensor, flip: bool, crop_padding: int) -> tf.Tensor:
    shape = image.shape
    if flip:
        image = tf.where(draw[0] < 0.5, image, tf.reverse(image, axis=[1]))
    if crop_padding:
        padded = tf.pad(image, [[crop_padding, crop_padding], [crop_padding, crop_padding], [0, 0]])
        corner = tf.cast(draw[1:] * (2 * crop_padding + 1), tf.int32)
        image = tf.slice(padded, [corner[0], corner[1], 0], shape)
    return image


def evaluation_batches(part: Part, batch_size: int) -> tf.data.Dataset:
    """All images of a part, in order; the last batch may be smaller."""
    return tf.data.Dataset.from_tensor_slices((part.images, part.labels)).batch(batch_size).prefetch(1)
