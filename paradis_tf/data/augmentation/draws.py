"""Random numbers with random access: each is a function of its place, so that images may be drawn in any grouping."""

from __future__ import annotations

import tensorflow as tf


def uniform(seed: int, stream: int, epoch: tf.Tensor, places: tf.Tensor, count: int) -> tf.Tensor:
    """Uniform numbers in [0, 1), the same for an image whichever batch or worker it comes in.

    The generator is SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014) at a
    counter that is hashed from the four arguments.

    Args:
      seed: of the run.
      stream: tells the users of one image's numbers apart, so that one more draw of one shifts no other's.
      epoch: integer scalar.
      places: integer (n,), the images' places in the epoch.
      count: numbers per image.

    Returns:
      float32 (n, count), multiples of 2**-24.
    """
    golden = tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    state = tf.constant(0, tf.uint64)
    for number in (seed, stream, epoch, places):
        state = _mixed(state + (tf.cast(number, tf.uint64) + 1) * golden)
    numbers = _mixed(state[:, None] + tf.cast(tf.range(1, count + 1), tf.uint64) * golden)
    return tf.cast(tf.bitwise.right_shift(numbers, tf.constant(40, tf.uint64)), tf.float32) * 2.0**-24


def _mixed(z: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(shift, tf.uint64)))
        z = z * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(31, tf.uint64)))


def below(draw: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Whole numbers from 0 to count - 1, int32, of uniform numbers in [0, 1)."""
    # A number just below 1 may round up to `count` in the product.
    return tf.minimum(tf.cast(draw * tf.cast(count, tf.float32), tf.int32), count - 1)
