"""The operations that architectures are written in: one class each, with the layer, the static form and the cost.

The Keras layers among them can be used on their own.
"""

from paradis_tf.operations.activations import Relu, Relu6
from paradis_tf.operations.add import Add
from paradis_tf.operations.append_channels import AppendChannels
from paradis_tf.operations.batch_norm import BatchNorm, SwitchableBatchNormalization
from paradis_tf.operations.bias import Bias, ChannelBias
from paradis_tf.operations.conv import Conv, SlicedConv2D
from paradis_tf.operations.dense import Classifier, SlicedDense, SwitchableDense
from paradis_tf.operations.depth_to_space import DepthToSpace, PixelShuffle
from paradis_tf.operations.depthwise_conv import DepthwiseConv, SlicedDepthwiseConv2D
from paradis_tf.operations.grouped_conv import GroupedConv, SlicedGroupedConv2D
from paradis_tf.operations.pixels import Denormalize, Normalize
from paradis_tf.operations.pooling import AveragePool, GlobalAveragePool, MaxPool
from paradis_tf.operations.weight_norm_conv import SlicedWeightNormConv2D, SwitchableWeightNormConv2D, WeightNormConv

__all__ = [
    "Add",
    "AppendChannels",
    "AveragePool",
    "BatchNorm",
    "Bias",
    "ChannelBias",
    "Classifier",
    "Conv",
    "Denormalize",
    "DepthToSpace",
    "DepthwiseConv",
    "GlobalAveragePool",
    "GroupedConv",
    "MaxPool",
    "Normalize",
    "PixelShuffle",
    "Relu",
    "Relu6",
    "SlicedConv2D",
    "SlicedDense",
    "SlicedDepthwiseConv2D",
    "SlicedGroupedConv2D",
    "SlicedWeightNormConv2D",
    "SwitchableBatchNormalization",
    "SwitchableDense",
    "SwitchableWeightNormConv2D",
    "WeightNormConv",
]
