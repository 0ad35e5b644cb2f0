"""tf.data pipelines. Every epoch is a function of (seed, epoch), so an interrupted run resumes where it was."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf.data import encoded
from paradis_tf.data.augmentation.augment import Augmentation
from paradis_tf.data.parts import Part

# Batches that are ready before they are asked for.
_AHEAD = 2


def training_batches(
    part: Part,
    batch_size: int,
    *,
    seed: int,
    first_epoch: int,
    epochs: int,
    shard_index: int = 0,
    shard_count: int = 1,
    **augmentation: Any,
) -> tf.data.Dataset:
    """Shuffled, augmented batches of the epochs from `first_epoch` up to and without `epochs`, end to end.

    The order is a function of (seed, epoch), an image's augmentation of (seed, epoch, its place in the epoch).

    Args:
      part: the training part; arrays are kept in memory, encoded images are read and decoded as they are needed.
      batch_size: images per batch of all workers together; the images that do not fill a last batch sit out that
        epoch.
      seed: of order and augmentation.
      first_epoch: number of the first epoch, from 0.
      epochs: number after the last epoch.
      shard_index: which worker this is, from 0. Worker i of n gets the rows from i * batch_size // n to before
        (i + 1) * batch_size // n of each batch, the same as it has without workers.
      shard_count: how many workers share each batch.
      **augmentation: the fields of `paradis_tf.data.augmentation.augment.Augmentation`.

    Yields:
      (uint8 (rows, height, width, 3), int64 (rows,)).

    Raises:
      UserError: a batch size that the part cannot fill or the workers cannot share, or an augmentation out of range.
    """
    size = len(part)
    if not 0 < batch_size <= size:
        raise UserError(f"batch_size is {batch_size}; it lies between 1 and the {size} training images.")
    if not 0 <= shard_index < shard_count <= batch_size:
        raise UserError(
            f"worker {shard_index} of {shard_count} cannot share batches of {batch_size}; workers count from 0, and "
            "each gets at least one image."
        )
    height, width = part.images.shape[1:3]
    augment = Augmentation(**augmentation)
    augment.check(height, width)
    steps = size // batch_size
    start, stop = (worker * batch_size // shard_count for worker in (shard_index, shard_index + 1))
    in_memory = isinstance(part.images, np.ndarray)
    labels = tf.constant(part.labels)
    read = functools.partial(tf.gather, tf.constant(part.images)) if in_memory else part.images.reader()

    def plan(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(size), seed=[seed, epoch])[: steps * batch_size]
        indices, places = (
            tf.reshape(values, [steps, batch_size])[:, start:stop] for values in (order, tf.range(steps * batch_size))
        )
        return tf.data.Dataset.from_tensor_slices((indices, places)).map(
            lambda indices, places: (indices, augment.draw(seed, epoch, places))
        )

    def batch(indices: tf.Tensor, numbers: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        return augment.change_batch(numbers, read(indices)), tf.gather(labels, indices)

    def example(index: tf.Tensor, numbers: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = read(index)
        if augment.inception_crop:
            box = augment.crop_box(numbers, tf.shape(image)[:2], width / height)
            image = encoded.crop(image, box, height, width)
        elif not in_memory:
            image = encoded.central(image, height)
        return augment.change_image(numbers, tf.ensure_shape(image, (height, width, 3))), tf.gather(labels, index)

    plans = tf.data.Dataset.range(first_epoch, epochs, output_type=tf.int32).flat_map(plan)
    if in_memory and augment.batched:
        return read_ahead(mapped(plans, batch))
    return read_ahead(mapped(plans.unbatch(), example).batch(stop - start, drop_remainder=True))


def evaluation_batches(part: Part, batch_size: int, shard_index: int = 0, shard_count: int = 1) -> tf.data.Dataset:
    """The images of a part, in order, those from files as `paradis_tf.data.encoded.central` takes them; the last batch
    may be smaller. Worker `shard_index` of `shard_count` gets every `shard_count`-th image."""
    if isinstance(part.images, np.ndarray):
        rows = tf.data.Dataset.from_tensor_slices((part.images, part.labels)).shard(shard_count, shard_index)
        return read_ahead(rows.batch(batch_size), 1)
    height, width = part.images.shape[1:3]
    read = part.images.reader()

    def example(index: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = encoded.central(read(index), height)
        return tf.ensure_shape(image, (height, width, 3)), label

    places = tf.data.Dataset.from_tensor_slices((np.arange(len(part), dtype=np.int32), part.labels))
    return read_ahead(mapped(places.shard(shard_count, shard_index), example).batch(batch_size), 1)


@contextmanager
def reading() -> Iterator[None]:
    """Around the work that consumes a pipeline: an image that cannot be read ends it with a `UserError` that names the
    file instead of an error of TensorFlow."""
    try:
        yield
    except tf.errors.OpError as error:
        fault = encoded.fault_behind(error)
        if fault:
            raise fault from None
        raise


def mapped(elements: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """What a function makes of each element, in order, on all cores that this process may use."""
    return elements.map(function, num_parallel_calls=len(os.sched_getaffinity(0)), deterministic=True)


def read_ahead(batches: tf.data.Dataset, count: int = _AHEAD) -> tf.data.Dataset:
    """The batches, some of them ready before they are asked for; `untuned`."""
    return batches.prefetch(count).with_options(untuned())


def untuned() -> tf.data.Options:
    """Of datasets whose numbers of threads and buffers are given, so that TensorFlow has none to tune.

    Where it tunes them each iterator has a thread that sleeps longer and longer, up to a minute. That thread is not
    always woken when the iterator goes, which waits for it: the program seems to hang.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
