"""Evaluation against NumPy on the static models of each slice, and what is counted and listed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import keras
import numpy as np
import pytest

from paradis_tf.builders.static import extract
from paradis_tf.data.parts import Part
from paradis_tf.evaluation.all_switches import evaluate, left_table, live_table, switch_table
from paradis_tf.evaluation.classification import label_places
from paradis_tf.evaluation.live_subsets import live_subsets, means_by_left, text_form
from paradis_tf.operations import SwitchableBatchNormalization
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

IMAGES = 300  # one batch and a smaller one


@pytest.fixture
def part() -> Part:
    rng = np.random.default_rng(1)
    # Plain colours with some noise, which the network tells apart; of noise alone it says the same of every image.
    images = rng.integers(0, 200, (IMAGES, 1, 1, 3)) + rng.integers(0, 56, (IMAGES, 8, 8, 3))
    return Part(images.astype(np.uint8), rng.integers(0, 5, IMAGES))


def answer_by_colour(model: Supernet, part: Part) -> None:
    """Wakes the features, and takes from each quarter of the classifier what answers the mean image."""
    *others, classifier = model.shared_layers
    for layer in others:
        if not isinstance(layer, SwitchableBatchNormalization):
            layer.kernel.assign(4 * layer.kernel)
        else:
            layer.beta.assign(layer.beta + 1)
    features = np.mean(model(part.images, path=model.switches[-1])["features"], axis=0).reshape(4, -1)
    kernel = classifier.kernel.numpy().reshape(4, features.shape[1], -1)
    answers = np.einsum("qf,qfc->qc", features, kernel) / np.sum(features**2, axis=1, keepdims=True)
    kernel = kernel - features[:, :, None] * answers[:, None, :]
    classifier.set_weights([kernel.reshape(classifier.kernel.shape), 0.1 * classifier.bias.numpy()])


def test_every_subset_is_the_sum_of_the_static_slices_that_arrived(
    tiny_net: Callable[..., Supernet], part: Part
) -> None:
    model = tiny_net(("1.0", "0.5+0.25+0.25"))
    answer_by_colour(model, part)
    told: list[str] = []
    rows = evaluate(model, part, told.append)
    assert told == ["evaluating switch 1.0", "evaluating switch 0.5+0.25+0.25"]
    different = set()
    for row in rows:
        switch = Switch.parse(row["switch"])
        slices = [extract(model, switch.cut(device)) for device in range(switch.devices)]
        partial = [np.asarray(one(part.images), np.float64) for one in slices]
        expected = {}
        for kept in product((0, 1), repeat=switch.devices):
            if any(kept):
                fused = sum(logits for logits, here in zip(partial, kept, strict=True) if here)
                live = tuple(device for device, here in enumerate(kept) if here)
                expected[live] = np.mean(np.argmax(fused, axis=1) == part.labels)
        found = {tuple(subset["devices"]): subset["accuracy"] for subset in row["live_subsets"]}
        assert found == pytest.approx(expected, abs=1e-9)
        assert row["accuracy"] == found[tuple(range(switch.devices))]
        different |= set(found.values())
    assert len(different) > 5  # the subsets are not one another's copies


def test_a_row_says_what_the_path_costs(tiny_net: Callable[..., Supernet], part: Part) -> None:
    model = tiny_net(("1.0", "0.5+0.5"))
    full, halves = evaluate(model, part)
    assert (full["model_id"], full["images"], full["metric"]) == (model.model_id(), IMAGES, "accuracy")
    assert full["top5_accuracy"] is None  # of 5 classes
    # Stem 3x3x3x8 on 4x4, depthwise 3x3x8, pointwise 8x16, classifier 16x5.
    assert full["madds_total"] == full["madds_largest"] == 16 * (216 + 72 + 128) + 80
    assert halves["madds_total"] == 16 * (216 + 72 + 2 * 32) + 80
    assert 2 * halves["madds_largest"] == halves["madds_total"]
    # The same with a bias of 5, and a scale and a shift for each of 8 + 8 + 16 channels.
    assert full["parameters"] == 216 + 72 + 128 + 80 + 5 + 2 * 32
    assert halves["parameters"] == 216 + 72 + 2 * 32 + 80 + 5 + 2 * 32


def test_top_5_counts_the_five_best(tiny_net: Callable[..., Supernet], part: Part) -> None:
    tiny: Any = type(tiny_net().architecture)
    model = Supernet(tiny(classes=9), ("0.5+0.5",))
    (row,) = evaluate(model, part)
    logits = keras.ops.convert_to_numpy(model(part.images)["prediction"])
    best = np.argsort(-logits, axis=1)[:, :5]
    assert row["top5_accuracy"] == pytest.approx(np.mean((best == part.labels[:, None]).any(axis=1)))
    assert 0 < row["accuracy"] < row["top5_accuracy"] < 1


def test_places_of_labels() -> None:
    logits = np.array([[3, 1, 2], [3, 1, 2], [1, 1, 0], [1, 1, 0], [np.nan, 9, 9], [np.inf, 1, np.inf]], np.float32)
    labels = np.array([0, 1, 0, 1, 0, 2])
    np.testing.assert_array_equal(label_places(logits, labels), [0, 2, 0, 1, 3, 1])


def test_subsets_of_live_devices() -> None:
    assert list(live_subsets(1)) == [(0,)]
    assert list(live_subsets(3)) == [(0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,)]
    assert len(list(live_subsets(6))) == 2**6 - 1
    eight = list(live_subsets(8))
    assert len(eight) == 1 + 8 + 28
    assert min(map(len, eight)) == 6
    assert text_form((0, 1, 3), 4) == "0,1,-,3"


def test_the_tables() -> None:
    row = {"switch": "0.5+0.5", "devices": 2, "metric": "accuracy", "accuracy": 0.975, "top5_accuracy": None}
    costs = {"madds_total": 1_500_000, "madds_largest": 750_000, "parameters": 12_345}
    live = [{"devices": [0, 1], "accuracy": 0.975}, {"devices": [1], "accuracy": 0.25}]
    rows = [{**row, **costs, "live_subsets": live}]
    assert switch_table(rows).splitlines()[2].split() == ["0.5+0.5", "2", "1.50", "0.75", "12,345", "97.50"]
    assert [line.split() for line in live_table(rows).splitlines()[2:]] == [
        ["0.5+0.5", "0,1", "97.50"],
        ["-,1", "25.00"],
    ]
    rows[0]["top5_accuracy"] = 0.99
    assert switch_table(rows).splitlines()[2].endswith("97.50      99.00")


def test_means_over_the_sets_of_so_many_devices() -> None:
    values = {(0, 1, 2): 0.9, (0, 1): 0.8, (0, 2): 0.7, (1, 2): 0.3, (0,): 0.5, (1,): 0.25, (2,): 0.0}
    assert means_by_left(values, 3) == pytest.approx({3: 0.9, 2: 0.6, 1: 0.25})
    assert list(means_by_left(dict(reversed(values.items())), 3)) == [3, 2, 1]
    assert means_by_left({(0,): 0.5}, 1) == {1: 0.5}
    # A mean over some of the sets would be of luckier or unluckier ones.
    del values[1, 2]
    assert list(means_by_left(values, 3)) == [3, 1]
    assert means_by_left({}, 3) == {}


@pytest.mark.parametrize(("metric", "unit"), [("accuracy", 100), ("psnr_y", 1)])
def test_the_table_of_devices_left(metric: str, unit: int) -> None:
    def row(switch: str, devices: int, values: dict[tuple[int, ...], float]) -> dict[str, Any]:
        live = [{"devices": list(answering), metric: value / unit} for answering, value in values.items()]
        return {"switch": switch, "devices": devices, "metric": metric, metric: 0.5, "live_subsets": live}

    three = {(0, 1, 2): 90.0, (0, 1): 80.0, (0, 2): 70.0, (1, 2): 30.0, (0,): 50.0, (1,): 25.0, (2,): 0.0}
    rows = [row("1.0", 1, {(0,): 99.0}), row("0.5+0.25+0.25", 3, three), row("0.5+0.5", 2, {(0, 1): 95.0})]
    rows[2]["live_subsets"] += [{"devices": [0], metric: 61.5 / unit}, {"devices": [1], metric: 60.0 / unit}]
    assert left_table(rows) == (
        "switch         3 left  2 left  1 left\n"
        "-------------  ------  ------  ------\n"
        "0.5+0.25+0.25   90.00   60.00   25.00\n"
        "0.5+0.5                 95.00   60.75"
    )
