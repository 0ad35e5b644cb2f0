"""The strides of MobileNet v1."""

from __future__ import annotations

import pytest

from fusion.base.program import UserError
from paradis_tf import models
from paradis_tf.builders.cost import cut_cost
from paradis_tf.cuts import WHOLE


def positions(strides: tuple[int, ...]) -> list[int]:
    """Pixels of each depthwise layer's output, from its int8 activation bytes."""
    net = models.create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, form="32", strides=strides)
    rows = [row for row in cut_cost(net, WHOLE).layers if row.kind == "depthwise_conv"]
    filters = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024)
    return [row.activation_bytes // count for row, count in zip(rows, filters, strict=True)]


def test_strides_replace_those_of_the_form() -> None:
    assert positions(()) == [1024, 256, 256, 64, 64, 16, 16, 16, 16, 16, 16, 4, 4]
    assert positions((2, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1)) == [256, 64, 64, 64, 64, 16, 16, 16, 16, 16, 16, 4, 4]


@pytest.mark.parametrize("strides", [(1, 2), (3,) + (1,) * 13, "2" * 14, (True,) * 14])
def test_other_strides_are_refused(strides: object) -> None:
    with pytest.raises(UserError, match="strides is .*; it is empty, or 14 numbers of 1 or 2"):
        models.create("mobilenet_v1", image_shape=(32, 32, 3), classes=10, strides=strides)
