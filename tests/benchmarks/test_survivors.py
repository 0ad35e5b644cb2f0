"""A cluster of which one worker is dead: what its answers are held against, and real processes."""

import json
import math
import shutil

import numpy as np
import pytest

from benchmarks import survival
from fusion.bench.load import Attempt
from fusion.bundle import manifest
from fusion.runtime import choosing as runtime
from tests.benchmarks.test_chaos import parts_by_numpy

TABLE = {frozenset({0, 1}): 0.9, frozenset({0}): 0.8, frozenset({1}): 0.6}


def attempt(image, winner, devices, status=200, ms=20.0):
    outputs = {"logits": np.eye(4)[winner]} if status == 200 else {}
    return Attempt(image, status, 0.0, ms / 1e3, 1, 1, outputs, {"devices": devices}, "said")


def judge(*attempts, faults=None):
    labels = np.array([0, 1, 2, 3])
    return survival.judge(3, "killed", attempts, faults or [None] * len(attempts), labels, TABLE, 300.0)


def test_answers_are_held_against_the_table_of_what_they_are_of():
    row = judge(attempt(0, 0, "a,"), attempt(1, 1, "a,", ms=30), attempt(2, 0, ",b", ms=40), attempt(3, 3, "a,b"))
    assert (row.sets, row.answered, row.bad) == ({(0,): 2, (1,): 1, (0, 1): 1}, 4, [])
    assert row.right == pytest.approx(3 / 4) and row.table == pytest.approx((0.8 + 0.8 + 0.6 + 0.9) / 4)
    assert row.error == pytest.approx(math.sqrt(0.775 * 0.225 / 4)) and row.median_ms == 25 and row.is_as_expected


def test_answers_that_are_further_from_the_table_than_chance():
    labels, wrong = np.zeros(100, int), [attempt(i, 1 if i < 35 else 0, "a,") for i in range(100)]
    row = survival.judge(0, "stopped", wrong, [None] * 100, labels, TABLE, 300.0)
    assert row.right == 0.65 and row.table == pytest.approx(0.8) and not row.is_as_expected
    near = survival.judge(0, "stopped", wrong[6:], [None] * 94, labels, TABLE, 300.0)
    assert near.right == pytest.approx(65 / 94) and near.is_as_expected


def test_bad_answers_are_counted_and_judged_apart():
    given = [attempt(0, 0, "a,"), attempt(1, 1, "a,", ms=351), attempt(2, 2, "a,"), attempt(3, 3, "", status=503)]
    row = judge(*given, faults=[None, None, "its output is another", None])
    assert row.bad == ["answered after 351 ms", "its output is another", "status 503: said"]
    assert (row.asked, row.answered, row.right) == (4, 2, 1.0)
    none = judge(attempt(0, 0, "", status=503))
    assert none.answered == 0 and math.isnan(none.right) and not none.is_as_expected


@pytest.mark.parametrize(
    ("devices", "text"),
    [("a,b,c,d,,,", "0,1,2,3,-,-,-"), (",,c,,e,f,g", "-,-,2,-,4,5,6"), (",,,d,,,", "-,-,-,3,-,-,-")],
)
def test_answers_of_slices_that_nobody_has_measured_are_bad(devices, text):
    """Of more than six devices a verification measures the sets that miss two at most."""
    table = {frozenset(range(7)) - {missing}: 0.75 for missing in range(7)}
    given = [attempt(0, 0, devices), attempt(1, 1, "a,b,c,d,e,f,")]
    row = survival.judge(6, "killed", given, [None, None], np.arange(4), table, 300.0)
    assert row.bad == [f"the bundle has no accuracy of {text}, which its answer is of"]
    assert (row.asked, row.sets, row.right, row.table) == (2, {(0, 1, 2, 3, 4, 5): 1}, 1.0, 0.75)


def test_all_in_the_mean_over_the_answers():
    rows = [judge(attempt(0, 0, "a,"), attempt(1, 1, "a,")), judge(attempt(2, 0, ",b")), judge(attempt(0, 0, "", 503))]
    row = survival.together(rows, 2)
    assert (row.asked, row.answered, row.sets) == (4, 3, {(0,): 2, (1,): 1})
    assert row.right == pytest.approx(2 / 3) and row.table == pytest.approx(2.2 / 3)
    assert row.error == pytest.approx(math.sqrt(2.2 / 3 * 0.8 / 3 / 2)) and row.bad == ["status 503: said"]


def test_real_workers_that_are_killed_and_stopped(bundle, tmp_path):
    """The table is of NumPy alone."""
    with np.load(bundle / "data.npz") as data:
        images, labels = data["x_test"], data["y_test"]
    parts = parts_by_numpy(bundle, images)
    right = {
        live: float(((parts[0] * (0 in live) + parts[1] * (1 in live)).argmax(1) == labels).mean())
        for live in ((0, 1), (0,), (1,))
    }
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    content = json.loads((folder / "manifest.json").read_text())
    subsets = [
        {"devices": list(live), "float": share, "exported": dict.fromkeys(("int8", "float32"), share)}
        for live, share in right.items()
    ]
    for entry in content["switches"]:
        if entry["switch"] == "0.5+0.5":
            entry["accuracy"] = {"part": "test", "images": 16, "metric": "accuracy", "float": right[0, 1]}
            entry["accuracy"] |= {"exported": dict.fromkeys(("int8", "float32"), right[0, 1]), "live_subsets": subsets}
    (folder / "manifest.json").write_text(json.dumps(content))
    made = manifest.load(folder)
    entry = made.find_switch("0.5+0.5")
    rows = survival.measure(made, entry, "float32", runtime.choose("auto"), images, labels, 2000.0)
    assert [(row.worker, row.was) for row in rows] == [(0, "killed"), (0, "stopped"), (1, "killed"), (1, "stopped")]
    for row in rows:
        left = (0,) if row.worker == 1 else (1,)
        assert (row.sets, row.bad) == ({left: 16}, [])
        assert row.right == pytest.approx(right[left]) == row.table
