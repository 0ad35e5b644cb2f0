"""Early answers: the bound against brute force, the calibrated margins, and what is never settled."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.base.program import UserError
from fusion.bundle.contents import Bundle, SliceFile, SliceModel, SwitchEntry, TensorInfo
from fusion.bundle.tasks import TASKS
from fusion.rules import early
from fusion.rules.early import EarlyAnswer
from fusion.rules.sum import Sum

IMAGE = TensorInfo("image", "uint8", 1 / 128, 128)


def made(outputs, margins=None, task="classification") -> tuple[Bundle, SwitchEntry]:
    """A bundle of one switch whose slices have these outputs, and the switch."""
    slices = tuple(
        SliceModel(i, "0", "1", f"m-{i}", 1, 1, {"int8": SliceFile(f"{i}", "0" * 64, 1, "int8", 0, IMAGE, output)})
        for i, output in enumerate(outputs)
    )
    calibrated = {} if margins is None else {"int8": margins}
    entry = SwitchEntry("x", "x", 1, None, slices, calibrated)
    common = (Path("b"), "b", "0" * 64, TASKS[task], (8, 8, 3), (3,), 1, None, ("a", "b", "c"), ("int8",))
    return Bundle(*common, (entry,), (), None), entry


def quantized(scale, zero_point, dtype="int8"):
    return TensorInfo("logits", dtype, scale, zero_point)


def answering(outputs, mode="bound", margins=None):
    return EarlyAnswer(*made(outputs, margins), "int8", mode)


tensors = st.builds(
    quantized,
    st.floats(1e-3, 1.0).map(lambda scale: float(np.float32(scale))),
    st.integers(-128, 127),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_settled_by_the_bound_never_changes(data):
    outputs = data.draw(st.lists(tensors, min_size=2, max_size=4))
    classes = data.draw(st.integers(2, 4))
    arrived = data.draw(st.sets(st.sampled_from(range(len(outputs))), min_size=1, max_size=len(outputs) - 1))
    stored = st.lists(st.sampled_from([-128, -127, -1, 0, 90, 126, 127]), min_size=classes, max_size=classes)
    given_ = {device: np.array([data.draw(stored)], np.int8) for device in sorted(arrived)}

    def real(device, array):
        return Sum().contribution(outputs[device], array)

    partial = Sum().fuse([real(device, given_[device]) for device in sorted(arrived)])
    settled = answering(outputs).settled(partial, frozenset(arrived))
    leader = int(partial.argmax())
    missing = [device for device in range(len(outputs)) if device not in arrived]
    # All that can come: for the class at most -128 or 127, of each missing slice alike.
    changed = False
    for corner in itertools.product((-128, 127), repeat=classes):
        everything = dict(given_) | {device: np.array([corner], np.int8) for device in missing}
        fused = Sum().fuse([real(device, everything[device]) for device in range(len(outputs))])
        changed = changed or int(fused.argmax()) != leader
    if settled:
        assert not changed
    elif not changed:
        # Tight but for rounding, and for ties that go to the lower index.
        second = np.sort(partial[0])[-2]
        reach = sum(255 * outputs[device].scale for device in missing)
        assert partial[0, leader] - second <= reach * (1 + 1e-4) + 0.01


def test_the_bound_is_the_range_of_the_missing_outputs():
    answer = answering([quantized(0.1, 5), quantized(0.02, -3), quantized(0.01, 7)])
    # 255 steps of 0.02 and of 0.01.
    assert answer.needed_margin(frozenset({0})) == pytest.approx(5.1 + 2.55, abs=1e-3)
    assert answer.needed_margin(frozenset({0})) > 5.1 + 2.55
    assert answer.settled(np.array([[0.0, 7.66, -1.0]]), frozenset({0}))
    assert not answer.settled(np.array([[0.0, 7.65, -1.0]]), frozenset({0}))
    assert answer.settled(np.array([[0.0, 2.56, -1.0]]), frozenset({0, 1}))


def test_ranges_of_outputs():
    assert Sum().bounds(quantized(0.5, -28)) == (-50.0, 77.5)
    assert Sum().bounds(quantized(0.5, 100, "uint8")) == (-50.0, 77.5)
    assert Sum().bounds(TensorInfo("logits", "uint8", None, None)) == (0.0, 255.0)
    assert Sum().bounds(TensorInfo("logits", "float32", None, None)) is None


@pytest.mark.parametrize("arrived", [{0}, {1}])
def test_a_float_output_has_no_bound(arrived):
    answer = answering([quantized(0.001, 0), TensorInfo("logits", "float32", None, None)])
    assert not answer.settled(np.array([[1e30, 0.0]]), frozenset(arrived))
    assert answer.settled(np.array([[1e30, 0.0]]), frozenset({0, 1}))


def test_ties_are_not_settled():
    answer = answering([quantized(0.1, 0)] * 2, "confidence", {frozenset({0}): 0.0})
    assert not answer.settled(np.array([[1.0, 1.0, 0.0]]), frozenset({0}))
    assert answer.settled(np.array([[1.0, 1.0 - 1e-9, 0.0]]), frozenset({0}))


def test_confidence_has_a_margin_for_each_set_and_the_bound():
    margins = {frozenset({0}): 1.0, frozenset({0, 1}): 0.5}
    answer = answering([quantized(0.01, 0)] * 3, "confidence", margins)
    sums = np.array([[2.0, 1.25, 0.0]])
    assert not answer.settled(sums, frozenset({0}))
    assert answer.settled(sums, frozenset({0, 1}))
    # Not calibrated, so the bound of one missing slice, 2.55, holds.
    assert not answer.settled(np.array([[3.0, 0.5]]), frozenset({1, 2}))
    assert answer.settled(np.array([[3.1, 0.5]]), frozenset({1, 2}))


def test_a_batch_is_settled_when_all_its_images_are():
    answer = answering([quantized(0.1, 0)] * 2, "confidence", {frozenset({1}): 1.0})
    rng = np.random.default_rng(0)
    for _ in range(200):
        batch = rng.normal(0, 2, (rng.integers(1, 5), 3))
        each = [answer.settled(image[np.newaxis], frozenset({1})) for image in batch]
        ordered = np.sort(batch, axis=1)
        assert each == list(ordered[:, -1] - ordered[:, -2] > 1.0)
        assert answer.settled(batch, frozenset({1})) == all(each)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_not_settled(value):
    answer = answering([quantized(0.1, 0)] * 2, "confidence", {frozenset({0}): 0.0})
    one, two = frozenset({0}), frozenset({0, 1})
    # The second image, with two leading classes, must not stand in for the first one.
    assert not answer.settled(np.array([[value, 0.0, 1.0], [1.0, 1.0, 0.0]]), one)
    assert not answer.settled(np.array([[value, 0.0, 1.0]]), one)
    assert answer.settled(np.array([[value, 0.0, 1.0]]), two)


def test_off_settles_nothing_but_the_whole():
    answer = answering([quantized(1e-3, 0)] * 2, "off")
    assert not answer.settled(np.array([[1e9, 0.0]]), frozenset({0}))
    assert answer.settled(np.array([[1e9, 0.0]]), frozenset({0, 1}))
    assert not answering([quantized(1e-3, 0)] * 2).settled(np.zeros((1, 2)), frozenset())


def test_one_slice_needs_no_calibration():
    assert answering([quantized(0.1, 0)], "confidence").settled(np.array([[0.0, 0.0]]), frozenset({0}))


def test_margins():
    sums = np.array([[1.0, 4.0, 2.5], [3.0, 3.0, -1.0]])
    assert early.margins(sums).tolist() == [1.5, 0.0]
    assert early.margins(np.zeros((2, 1))).tolist() == [np.inf, np.inf]


def test_bad_input():
    outputs = [quantized(0.1, 0)] * 2
    with pytest.raises(UserError, match="'sure'; legal: off, bound, confidence"):
        answering(outputs, "sure")
    with pytest.raises(UserError, match="no calibrated early answers for int8; legal: one that export.calibrate"):
        answering(outputs, "confidence")
    with pytest.raises(UserError, match="is of super_resolution, where every slice changes the answer; legal"):
        EarlyAnswer(*made(outputs, task="super_resolution"), "int8", "bound")
    with pytest.raises(UserError, match="precision 'float32' is not in bundle"):
        EarlyAnswer(*made(outputs), "float32", "bound")
    with pytest.raises(ValueError, match=r"slices \[2\] of a switch of 2"):
        answering(outputs).settled(np.zeros((1, 2)), frozenset({2}))
