"""A weight that is not finite ends a training though its losses are, and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from fusion.base.program import UserError
from paradis_tf.methods import Individual
from paradis_tf.records.recording import RunRecorder
from paradis_tf.records.training_progress import Speed
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet


def test_a_weight_that_is_not_finite_is_named_with_what_to_do(
    tiny_net: Callable[..., Supernet], tmp_path: Path
) -> None:
    model = tiny_net(("1.0",))
    model.compile(keras.optimizers.SGD(0.1), method=Individual())
    kernel = next(weight for weight in model.weights if "pointwise_conv" in weight.path)
    values = kernel.numpy()
    values.flat[3] = np.nan
    kernel.assign(values)
    recorder = RunRecorder(Workdir(tmp_path), Speed(16), "last")
    recorder.set_model(model)
    recorder.on_epoch_begin(4)
    with pytest.raises(
        UserError,
        match=r"pointwise_conv.* is not finite after epoch 5\. The epochs before are kept; lower "
        r"optimizer\.learning_rate or set optimizer\.clip_norm, in a new workdir",
    ):
        recorder.on_epoch_end(4, {"loss": 1.0})
    assert not any(tmp_path.iterdir())
