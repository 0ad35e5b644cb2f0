"""tf.data pipelines of image pairs. Every epoch is a function of (seed, epoch), so an interrupted run resumes."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.data import pipeline
from paradis_tf.data.augmentation import draws
from paradis_tf.data.parts import ImagePairs, Patches

# Largest side of a low-resolution validation patch.
_MIDDLE = 96


def training_batches(
    part: Patches,
    batch_size: int,
    *,
    seed: int,
    first_epoch: int,
    epochs: int,
    shard_index: int = 0,
    shard_count: int = 1,
    flip: bool = True,
    transpose: bool = True,
) -> tf.data.Dataset:
    """Batches of random patches of the epochs from `first_epoch` up to and without `epochs`, end to end.

    Image, place and augmentation of a patch are a function of (seed, epoch, its place in the epoch); each image is as
    likely as the others, whatever its size.

    Args:
      part: the training part; it is kept in memory.
      batch_size: patches per batch of all workers together; patches that do not fill a last batch are not drawn.
      seed: of all that is random.
      first_epoch: number of the first epoch, from 0.
      epochs: number after the last epoch.
      shard_index: which worker this is, from 0. Worker i of n gets the rows from i * batch_size // n to before
        (i + 1) * batch_size // n of each batch, the same as it has without workers.
      shard_count: how many workers share each batch.
      flip: whether each patch is mirrored left to right, and top to bottom, with probability one half each.
      transpose: whether rows and columns are exchanged with probability one half.

    Yields:
      (uint8 (rows, size, size, 3), uint8 (rows, size * scale, size * scale, 3)).

    Raises:
      UserError: a batch size that an epoch cannot fill or the workers cannot share.
    """
    if not 0 < batch_size <= len(part):
        raise UserError(f"batch_size is {batch_size}; it lies between 1 and the {len(part)} patches of an epoch.")
    if not 0 <= shard_index < shard_count <= batch_size:
        raise UserError(
            f"worker {shard_index} of {shard_count} cannot share batches of {batch_size}; workers count from 0, and "
            "each gets at least one patch."
        )
    steps = len(part) // batch_size
    start, stop = (worker * batch_size // shard_count for worker in (shard_index, shard_index + 1))
    scale = part.pairs.scale
    low, high = _Pixels(part.pairs.low), _Pixels(part.pairs.high)

    def places(epoch: tf.Tensor) -> tf.data.Dataset:
        rows = tf.reshape(tf.range(steps * batch_size, dtype=tf.int64), [steps, batch_size])[:, start:stop]
        return tf.data.Dataset.from_tensor_slices(tf.reshape(rows, [-1])).map(lambda place: (epoch, place))

    def patch(epoch: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, ...]:
        draw = tf.random.stateless_uniform([6], seed=[seed, epoch * len(part) + place], dtype=tf.float32)
        index = draws.below(draw[0], tf.constant(len(part.pairs)))
        sides = tf.gather(low.sides, index)
        row, column = (draws.below(draw[1 + axis], sides[axis] - part.size + 1) for axis in (0, 1))
        return tuple(
            _turned(pixels.cut(index, row * by, column * by, part.size * by), draw[3:], flip, transpose)
            for pixels, by in ((low, 1), (high, scale))
        )

    patches = pipeline.mapped(tf.data.Dataset.range(first_epoch, epochs).flat_map(places), patch)
    return pipeline.read_ahead(patches.batch(stop - start, drop_remainder=True))


def evaluation_batches(
    pairs: ImagePairs, batch_size: int, *, shard_index: int = 0, shard_count: int = 1
) -> tf.data.Dataset:
    """The middle of each image, in order, as patches of one size: the smallest image's side, 96 pixels at most.

    For validation while training; `paradis_tf.evaluation.super_resolution` judges whole images.

    Args:
      pairs: the images.
      batch_size: patches per batch; the last batch may be smaller.
      shard_index: which worker this is, from 0; worker i of n gets every n-th patch, from the i-th on.
      shard_count: how many workers share the images.

    Yields:
      (uint8 (rows, size, size, 3), uint8 (rows, size * scale, size * scale, 3)).
    """
    size = min(_MIDDLE, *(min(image.shape[:2]) for image in pairs.low))
    low, high = [], []
    for small, large in zip(pairs.low, pairs.high, strict=True):
        row, column = ((side - size) // 2 for side in small.shape[:2])
        low.append(small[row : row + size, column : column + size])
        rows, columns = (slice(place * pairs.scale, (place + size) * pairs.scale) for place in (row, column))
        high.append(large[rows, columns])
    patches = tf.data.Dataset.from_tensor_slices((np.stack(low), np.stack(high)))
    return pipeline.read_ahead(patches.shard(shard_count, shard_index).batch(batch_size), 1)


class _Pixels:
    """Images of different sizes end to end in one tensor, so that a patch is one gathering of pixels."""

    def __init__(self, images: tuple[np.ndarray, ...]) -> None:
        sides = np.array([image.shape[:2] for image in images])
        self.sides = tf.constant(sides, tf.int32)
        self.starts = tf.constant(np.cumsum(sides.prod(axis=1)) - sides.prod(axis=1), tf.int64)
        self.pixels = tf.constant(np.concatenate([image.reshape(-1, 3) for image in images]))

    def cut(self, index: tf.Tensor, row: tf.Tensor, column: tf.Tensor, size: int) -> tf.Tensor:
        width = tf.cast(tf.gather(self.sides, index)[1], tf.int64)
        rows = tf.cast(row, tf.int64) + tf.range(size, dtype=tf.int64)
        columns = tf.cast(column, tf.int64) + tf.range(size, dtype=tf.int64)
        return tf.gather(self.pixels, tf.gather(self.starts, index) + rows[:, None] * width + columns)


def _turned(image: tf.Tensor, draw: tf.Tensor, flip: bool, transpose: bool) -> tf.Tensor:
    if flip:
        image = tf.where(draw[0] < 0.5, image, tf.reverse(image, axis=[1]))
        image = tf.where(draw[1] < 0.5, image, tf.reverse(image, axis=[0]))
    if transpose:
        image = tf.where(draw[2] < 0.5, image, tf.transpose(image, [1, 0, 2]))
    return image
