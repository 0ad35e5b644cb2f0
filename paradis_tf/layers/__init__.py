"""Layers that own full-size weights and compute with a slice of them."""

from paradis_tf.layers.sliced_conv2d import SlicedConv2D
from paradis_tf.layers.sliced_dense import SlicedDense
from paradis_tf.layers.sliced_depthwise_conv2d import SlicedDepthwiseConv2D
from paradis_tf.layers.switchable_batch_normalization import SwitchableBatchNormalization

__all__ = ["SlicedConv2D", "SlicedDense", "SlicedDepthwiseConv2D", "SwitchableBatchNormalization"]
