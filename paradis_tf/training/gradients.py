"""From the gradients of a step's passes to what the optimizer applies."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import keras
import tensorflow as tf


def combine(
    gradients: Mapping[int, tf.Tensor],
    variables: Sequence[keras.Variable],
    optimizer: keras.optimizers.Optimizer,
    *,
    clip_norm: float,
    weight_decay: float,
    decayed: Collection[int],
) -> tuple[list[tf.Tensor], list[keras.Variable]]:
    """The gradients to apply and their variables; called in each replica.

    In this order: the mean over the replicas, the clipping of the global norm, the weight decay. Keras' optimizers add
    up over the replicas what they are given, so each replica hands over its share of the result; and where the
    optimizer scales the loss, for float16, it divides by that scale itself, so the result is multiplied by it.

    Args:
      gradients: by index of the variable, the replica's own: the sum over its passes, of `optimizer.scale_loss(loss)`
        with `loss` the mean over its part of the batch.
      variables: the trainable variables.
      optimizer: a built optimizer.
      clip_norm: the largest global norm, over the gradients of all variables together; 0 for no limit.
      weight_decay: `weight_decay * variable` is added to its gradient.
      decayed: indices of the variables that have weight decay.

    Source: clipping as in Pascanu et al. 2013.
    """
    order = sorted(gradients)
    combined = [gradients[index] for index in order]
    scale = optimizer.scale_loss(1.0)
    context = tf.distribute.get_replica_context()
    replicas = context.num_replicas_in_sync
    if replicas > 1:
        if clip_norm or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # The norm, and whether all is finite, are to be judged on the whole gradient and alike everywhere.
            combined = [gradient / replicas for gradient in context.all_reduce("sum", combined)]
        combined = [gradient / replicas for gradient in combined]
    if clip_norm:
        norm = tf.linalg.global_norm(combined) * replicas / scale
        # A gradient that is not finite stays so, or the optimizer could not skip it, nor training be stopped.
        factor = tf.where(tf.math.is_finite(norm), clip_norm / tf.maximum(norm, clip_norm), float("nan"))
        combined = [gradient * factor for gradient in combined]
    if weight_decay:
        share = weight_decay * scale / replicas
        combined = [
            gradient + share * variables[index].value if index in decayed else gradient
            for index, gradient in zip(order, combined, strict=True)
        ]
    return combined, [variables[index] for index in order]
