"""What the bias is worth without the slice that has it, against NumPy on the parts themselves and sums by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.bias import accuracies, means, table
from paradis_tf.data.parts import Part
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch


def test_the_bias_is_added_to_sets_without_the_first_device(tiny_net: Callable[..., Supernet]) -> None:
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), rng.integers(0, 5, 40)
    model, switch = tiny_net(("0.5+0.25+0.25",)), Switch.parse("0.5+0.25+0.25")
    found = accuracies(model, switch, Part(images, labels))
    parts = [model.call_cut(images, cut).prediction.numpy() for cut in switch.cuts]
    (bias,) = [layer.bias.numpy() for layer in model.shared_layers if layer.name == "logits"]
    assert list(found) == [(1, 2), (1,), (2,)]
    for live, both in found.items():
        logits = sum(parts[device] for device in live)
        assert both == tuple((values.argmax(1) == labels).mean() for values in (logits, logits + bias))
    assert any(without != with_bias for without, with_bias in found.values())


def test_parts_are_added_in_double_precision() -> None:
    """As the runner adds them: in single precision the 1 of the right class would be lost beside 1e8."""
    switch = Switch.parse("4x0.25")
    parts = dict(zip(switch.cuts, ([0, 0], [1e8, 0.5], [1, 0], [-1e8, 0]), strict=True))

    def call_cuts(images: tf.Tensor, cuts: Sequence[Any]) -> dict[Any, Any]:
        zeros = tf.zeros((tf.shape(images)[0], 1))
        return {cut: SimpleNamespace(prediction=zeros + tf.constant(parts[cut], tf.float32)) for cut in cuts}

    layer = SimpleNamespace(bias=tf.constant([0.0, 0.25]))
    architecture = SimpleNamespace(image_shape=(2, 2, 3))
    model = SimpleNamespace(architecture=architecture, call_cuts=call_cuts, shared_layers=[layer])
    images, labels = np.zeros((3, 2, 2, 3), np.uint8), np.zeros(3, np.int64)
    found = accuracies(model, switch, Part(images, labels))
    assert found[1, 2, 3] == (1, 1)
    assert (found[1, 2], found[1, 3], found[2,], found[3,]) == ((1, 1), (0, 0), (1, 1), (0, 0))


def test_means_over_the_sets_of_so_many_devices() -> None:
    measured = {(1, 2): (0.9, 0.95), (1,): (0.5, 0.75), (2,): (0.25, 0.5)}
    rows = means("digits", Switch.parse("0.5+0.25+0.25"), measured)
    assert rows == [
        ("digits", "0.5+0.25+0.25", 2, 1, 0.9, 0.95, pytest.approx(0.05)),
        ("digits", "0.5+0.25+0.25", 1, 2, 0.375, 0.625, 0.25),
    ]
    worse = ("flowers", "0.5+0.5", 1, 1, 0.5, 0.25, -0.25)
    assert table([*rows, worse]).splitlines() == [
        "run             switch  left  sets  without bias  with it  difference",
        "-------  -------------  ----  ----  ------------  -------  ----------",
        "digits   0.5+0.25+0.25     2     1         90.00    95.00       +5.00",
        "digits   0.5+0.25+0.25     1     2         37.50    62.50      +25.00",
        "flowers        0.5+0.5     1     1         50.00    25.00      -25.00",
    ]


def test_means_of_a_switch_of_which_not_all_sets_are_measured() -> None:
    """Of more than six devices those that miss two at most: the first alone, and it with each of the others."""
    of_six = {live: (live[0] / 4, 0.0) for live in itertools.combinations(range(1, 8), 6)}
    measured = {tuple(range(1, 8)): (0.5, 1.0), **of_six}
    rows = means("wide", Switch.parse("8x0.125", 8), measured)
    # The first is 2 in one of the seven sets, and 1 in the others.
    assert [row[2:6] for row in rows] == [(7, 1, 0.5, 1.0), (6, 7, pytest.approx(2 / 7), 0.0)]
