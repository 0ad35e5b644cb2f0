"""Kernels are told apart by the names that TensorFlow's trace gives them."""

from __future__ import annotations

import pytest

from benchmarks import kernels


@pytest.mark.parametrize(
    "event, expected",
    [
        ("supernet_1/stem_conv_1/convolution:_MklNativeConv2D", "convolution"),
        ("gradient_tape/a/convolution/Conv2DBackpropFilter:_MklNativeConv2DBackpropFilter", "convolution"),
        ("a/depthwise:_MklNativeDepthwiseConv2dNative", "depthwise convolution"),
        ("g/DepthwiseConv2dNativeBackpropInput:DepthwiseConv2dNativeBackpropInput", "depthwise convolution"),
        ("gradient_tape/a/FusedBatchNormGradV3:_MklNativeFusedBatchNormGradV3", "batch norm"),
        ("a/FusedBatchNormV3:FusedBatchNormV3", "batch norm"),
        ("gradient_tape/a/Relu6_26/Relu6Grad:Relu6Grad", "activation"),
        ("a/strided_slice/StridedSliceGrad:StridedSliceGrad", "slicing"),
        ("a/Pad_1:Pad", "slicing"),
        ("ArithmeticOptimizer/AddOpsRewrite_add_111:AddN", "elementwise"),
        ("supernet/stage_1_block_1_add/add:AddV2", "elementwise"),
        ("resnet_4x0.25_0_1/stem_norm_1/moments/mean:Mean", "batch norm"),
        ("gradient_tape/a/stem_norm/batchnorm/mul_1/Mul:Mul", "batch norm"),
        ("a/stem_norm_12/AssignVariableOp_1:AssignVariableOp", "batch norm"),
        ("a/stem_norm_1/strided_slice:StridedSlice", "slicing"),
        ("a/AssignVariableOp_1:AssignVariableOp", "variables"),
        ("optimizer/Mul_252/ReadVariableOp:ReadVariableOp", "optimizer"),
        ("optimizer/Sub_163:Sub", "optimizer"),
        ("a/logits/BiasAdd:_MklNativeFusedMatMul", "other"),
        ("Mean:Mean", "other"),
        ("EagerLocalExecute: AssignVariableOp", None),
        ("ExecutorState::Process", None),
        ("KernelAndDeviceFunc::Run", None),
        ("tf.constant", None),
    ],
)
def test_category(event: str, expected: str | None) -> None:
    assert kernels.category(event) == expected


def test_a_trace_holds_what_was_run_and_nothing_else() -> None:
    import tensorflow as tf

    @tf.function
    def step(image: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME")) * image

    arguments = (tf.ones([1, 8, 8, 4]), tf.ones([3, 3, 4, 4]))
    step(*arguments)
    spent = kernels.measure(lambda: step(*arguments))
    assert list(spent) == list(kernels.CATEGORIES)
    assert spent["convolution"] > 0 and spent["elementwise"] > 0
    assert spent["batch norm"] == spent["depthwise convolution"] == spent["optimizer"] == 0
