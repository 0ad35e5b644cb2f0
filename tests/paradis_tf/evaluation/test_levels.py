"""Evaluation of levels against NumPy on their static models, and the heads that sets of devices answer with."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from paradis_tf.builders.static import extract
from paradis_tf.data.parts import Part
from paradis_tf.evaluation.all_switches import evaluate, left_table, live_table, switch_table
from paradis_tf.levels import Level, answers_of, create_levels
from paradis_tf.supernet import Supernet
from tests.conftest import TinyNet, randomize


def part(seed: int, images: int = 300) -> Part:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 200, (images, 1, 1, 3)) + rng.integers(0, 56, (images, 8, 8, 3))
    return Part(pixels.astype(np.uint8), rng.integers(0, 5, images))


def network(connectivity: str) -> Supernet:
    model = randomize(Supernet(TinyNet(), levels=4, connectivity=connectivity), seed=11)
    for layer in model.shared_layers:
        if hasattr(layer, "beta"):
            layer.beta.assign(layer.beta + 1)
    return model


def logits_of(model: Supernet, images: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """By level and device, what the static model gives."""
    return {
        (int(path.width * 4), device): np.asarray(extract(model, cut)(images.astype(np.float32)), np.float64)
        for path in model.paths
        for device, cut in enumerate(path.cuts)
    }


@pytest.mark.parametrize("connectivity", ["dense", "triangular"])
def test_each_level_is_a_row_of_one_device(connectivity: str) -> None:
    model, test = network(connectivity), part(1)
    told: list[str] = []
    rows = evaluate(model, test, told.append)
    assert told == ["evaluating level 1, level 2, level 3, level 4"]
    logits = logits_of(model, test.images)
    for level, row in enumerate(rows, 1):
        expected = np.mean(np.argmax(logits[level, 0], axis=1) == test.labels)
        assert (row["switch"], row["devices"], row["accuracy"]) == (f"level_{level}", 1, pytest.approx(expected))
        assert row["live_subsets"] == [{"devices": [0], "accuracy": row["accuracy"]}]
        assert row["madds_total"] == row["madds_largest"]
    assert switch_table(rows).split()[0] == "level"


def test_sets_of_devices_answer_with_the_head_that_validation_chooses() -> None:
    model, test, validation = network("diagonal"), part(1), part(2, images=40)
    rows = evaluate(model, test, validation=validation)
    logits = {name: logits_of(model, each.images) for name, each in (("test", test), ("validation", validation))}
    heads_of_sets = set()
    for level, row in enumerate(rows, 1):
        expected = []
        for count in range(level, 0, -1):
            for live in combinations(range(level), count):
                accuracy = {}
                for name, each in (("test", test), ("validation", validation)):
                    for head in range(min(live) + 1, level + 1) if count < level else [level]:
                        fused = sum(logits[name][head, device] for device in live if device < head)
                        accuracy[name, head] = np.mean(np.argmax(fused, axis=1) == each.labels)
                heads = [head for name, head in accuracy if name == "test"]
                best = max(heads, key=lambda head: (accuracy["validation", head], head))
                expected.append((list(live), best, accuracy["test", best]))
                heads_of_sets.add((level, best))
        found = [(one["devices"], one.get("level", level), one["accuracy"]) for one in row["live_subsets"]]
        assert found == [(devices, head, pytest.approx(accuracy)) for devices, head, accuracy in expected]
        assert row["accuracy"] == found[0][2]
    # Neither the first head nor the last is always the best.
    assert len(heads_of_sets) > 4
    lines = live_table(rows).splitlines()
    assert lines[0].split()[:3] == ["level", "answering", "head"]
    assert left_table(rows).split()[0] == "level"


def test_what_a_set_of_devices_can_answer_with() -> None:
    third = create_levels(4, "diagonal")[2]
    assert answers_of(third, (0, 1, 2)) == [third.cuts]
    found = answers_of(third, (1, 2))
    assert [[(cut.head_key, cut.key) for cut in answer] for answer in found] == [
        [("level_2", "slice_2")],
        [("level_3", "slice_2"), ("level_3", "slice_3")],
    ]
    dense = Level(3, 4, "dense")
    assert answers_of(dense, (0,)) == [dense.cuts]
