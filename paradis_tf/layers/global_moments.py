"""Mean and variance of a batch that is spread over several replicas."""

from __future__ import annotations

import tensorflow as tf


def global_moments(inputs: tf.Tensor, context: tf.distribute.ReplicaContext) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Statistics of each channel over the batches of all replicas together; gradients flow through to all of them.

    Args:
      inputs: float32 (batch, height, width, channels), this replica's part; parts may differ in size.
      context: the context of the replica; every replica has to call.

    Returns:
      the mean, the biased variance and the unbiased one (n - 1 in the denominator), float32 (channels,), the same on
      all replicas.

    Source: pairwise combination of means and sums of squared deviations (Chan, Golub, LeVeque 1979).
    """
    axes = [0, 1, 2]
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
    own_mean = tf.math.divide_no_nan(tf.reduce_sum(inputs, axes), count)
    own_deviation = tf.reduce_sum(tf.square(inputs - own_mean), axes)
    # Each replica fills one row of a table that is all-reduced once. Sums of squares would need no table, and would
    # lose the variance of a channel whose mean is large beside it.
    row = tf.concat([[count], own_mean, own_deviation], 0)
    mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
    table = context.all_reduce(tf.distribute.ReduceOp.SUM, mine[:, None] * row)
    counts, means, deviations = tf.split(table, [1, inputs.shape[-1], inputs.shape[-1]], 1)
    total = tf.reduce_sum(counts)
    mean = tf.reduce_sum(counts * means, 0) / total
    deviation = tf.reduce_sum(deviations + counts * tf.square(means - mean), 0)
    return mean, deviation / total, deviation / tf.maximum(total - 1.0, 1.0)
