"""The curve of early answers: simulated latencies against those worked out by hand, flags, picture."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from export.early import figures as early_figures
from export.early import latencies as early_latencies
from export.early.calibration import outcomes
from export.early.curve import BOUND, CALIBRATED, CONFIDENCE, FULL, Latencies, Point, curve, rows
from fusion.base.program import UserError
from fusion.bundle.contents import SwitchEntry

A, B, AB = frozenset({0}), frozenset({1}), frozenset({0, 1})
# Slice 0 is sure of images 0 and 1, wrongly of the second; all slices are right about every image.
FIRST = np.array([[9.0, 0.0], [9.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
SECOND = np.array([[1.0, 0.0], [0.0, 20.0], [1.0, 0.0], [0.0, 1.0]])
LABELS = np.array([0, 1, 0, 1])
NEVER = {A: np.inf, B: np.inf}


def points(latencies, calibrated, bound=NEVER):
    found = outcomes([FIRST, SECOND], LABELS)
    return curve(found, found, bound, calibrated, 0.25, latencies)


def of(kind, found) -> Point:
    (point,) = [point for point in found if point.answers == kind]
    return point


def test_given_latencies():
    found = points(Latencies((2.0, 10.0)), {A: 5.0, B: 0.0}, {A: 8.0, B: 8.0})
    assert of(FULL, found) == Point(FULL, None, 1.0, 0.0, 10.0, 10.0)
    # Half of the images are answered after 2 ms, half of these wrongly; slice 1 is never first.
    assert of(CALIBRATED, found) == Point(CALIBRATED, 0.25, 0.75, 0.5, 6.0, 10.0)
    assert of(BOUND, found).share == 0.5
    falling = [point for point in found if point.answers == CONFIDENCE]
    assert [point.allowed for point in falling] == [0.0, 0.25, 0.5, 0.75, 1.0]
    # None lost: only what is ahead by more than the lost image, nothing; one lost: all others at once.
    assert [(point.share, point.mean_ms) for point in falling[:2]] == [(0.0, 10.0), (1.0, 2.0)]


def test_nothing_is_early_among_slices_that_arrive_together():
    found = points(Latencies((3.0, 3.0)), {A: 0.0, B: 0.0})
    assert of(CALIBRATED, found) == Point(CALIBRATED, 0.25, 1.0, 0.0, 3.0, 3.0)


def test_stragglers_as_in_all_their_combinations():
    slice_ms, probability, factor = (3.0, 2.0), 0.3, 7.0
    calibrated = {A: 5.0, B: 15.0}
    found = points(Latencies(slice_ms, probability, factor), calibrated)
    mean = full = 0.0
    for late in itertools.product((False, True), repeat=2):
        ms = [one * (factor if slow else 1.0) for one, slow in zip(slice_ms, late, strict=True)]
        weight = float(np.prod([probability if slow else 1 - probability for slow in late]))
        full += weight * max(ms)
        early = 2 if ms[0] < ms[1] else 1  # images that the first slice to come settles
        mean += weight * (early * min(ms) + (4 - early) * max(ms)) / 4
    assert of(FULL, found).mean_ms == pytest.approx(full, rel=0.01)
    assert of(CALIBRATED, found).mean_ms == pytest.approx(mean, rel=0.01)


def test_more_slices_than_have_sets():
    rng = np.random.default_rng(0)
    partial, labels = [rng.normal(size=(20, 3)) for _ in range(7)], rng.integers(0, 3, 20)
    found = outcomes(partial, labels)
    told = curve(found, found, {}, dict.fromkeys(found.lead, 0.0), 1.0, Latencies((7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0)))
    # Sets that miss more than two slices have no outcomes, so five are waited for.
    assert of(CALIBRATED, told).mean_ms == 5.0


def test_rows():
    (row, *_) = rows("0.5+0.5", "int8", Latencies((2.0, 10.0), 0.1, 4.0), 4, points(Latencies((2.0, 10.0)), NEVER))
    assert row["slice_ms"] == "2 10" and row["late_factor"] == 4.0
    assert (row["answers"], row["allowed_drop"], row["accuracy"], row["mean_ms"]) == ("full", "", "100.00", "10")


def entries(*devices):
    return [SwitchEntry(f"{count}x", f"{count}x", 1, None, (None,) * count) for count in devices]


def test_reads_latencies():
    asked = early_latencies.parse(["5", "9.5"], ["0.1", "10"])
    assert asked.of([1.0, 1.0]) == Latencies((5.0, 9.5), 0.1, 10.0)
    assert [entry.switch for entry in asked.switches(entries(2, 4))] == ["2x"]
    assert str(asked) == "slices take 5, 9.5 ms, each one in 10 % of the requests 10 times that"
    measured = early_latencies.parse([], [])
    assert measured.of([1.0, 2.0]) == Latencies((1.0, 2.0))
    assert len(measured.switches(entries(2, 4))) == 2


@pytest.mark.parametrize(
    ("latencies", "straggler", "said"),
    [
        (["5", "x"], [], "--latencies_ms holds 'x'; legal: a number from 0 to"),
        (["nan"], [], "--latencies_ms holds 'nan'"),
        (["-1"], [], "--latencies_ms holds '-1'"),
        ([], ["0.1"], "--straggler=0.1; legal: a probability and a factor, as 0.1,10."),
        ([], ["1.1", "2"], "--straggler holds '1.1'; legal: a number from 0 to 1."),
        ([], ["0.1", "0.5"], "--straggler holds '0.5'; legal: a number from 1 to"),
    ],
)
def test_refuses_latencies(latencies, straggler, said):
    with pytest.raises(UserError) as error:
        early_latencies.parse(latencies, straggler)
    assert said in str(error.value)


def test_refuses_latencies_of_no_switch():
    with pytest.raises(UserError, match="has 3 latencies; legal: one per slice, 2 for 2x, 4 for 4x"):
        early_latencies.parse(["1", "2", "3"], []).switches(entries(2, 4))


def test_the_picture_names_its_lines_and_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(early_figures, "save", lambda figure, stem: kept.append(figure))
    found = points(Latencies((2.0, 10.0), 0.2, 5.0), {A: 5.0, B: 0.0})
    early_figures.draw({"0.5+0.5": found}, "Early answers", "slices take 2, 10 ms", Path("unused"))
    (figure,) = kept
    assert "slices take 2, 10 ms" in figure.get_suptitle()
    (legend,) = figure.legends
    assert [text.get_text().split()[0] for text in legend.get_texts()] == ["all", "early", "early", "as"]
    whole, compared = figure.axes
    for axis in figure.axes:
        assert "0.5+0.5" in [text.get_text() for text in axis.texts]
    line, *marks = [np.asarray(line.get_xydata()) for line in whole.lines]
    assert line[:, 0].tolist() == [one.mean_ms for one in found if one.answers in (FULL, CONFIDENCE)]
    assert [mark[0, 1] for mark in marks] == [100.0, 100.0, 100 * of(CALIBRATED, found).accuracy]
    full, _, calibrated = [np.asarray(line.get_xydata())[0] for line in compared.lines[1:]]
    assert full.tolist() == [100.0, 0.0]
    part = of(CALIBRATED, found).mean_ms / of(FULL, found).mean_ms
    assert calibrated == pytest.approx([100 * part, 100 * of(CALIBRATED, found).accuracy - 100])
