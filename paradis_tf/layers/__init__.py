"""Layers that own full-size weights and compute with a slice of them."""

from paradis_tf.layers.channel_bias import ChannelBias
from paradis_tf.layers.depth_to_space import DepthToSpace
from paradis_tf.layers.sliced_conv2d import SlicedConv2D
from paradis_tf.layers.sliced_dense import SlicedDense
from paradis_tf.layers.sliced_depthwise_conv2d import SlicedDepthwiseConv2D
from paradis_tf.layers.sliced_weight_norm_conv2d import SlicedWeightNormConv2D
from paradis_tf.layers.switchable_batch_normalization import SwitchableBatchNormalization
from paradis_tf.layers.switchable_weight_norm_conv2d import SwitchableWeightNormConv2D

__all__ = [
    "ChannelBias",
    "DepthToSpace",
    "SlicedConv2D",
    "SlicedDense",
    "SlicedDepthwiseConv2D",
    "SlicedWeightNormConv2D",
    "SwitchableBatchNormalization",
    "SwitchableWeightNormConv2D",
]
