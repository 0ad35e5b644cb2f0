"""Calibrated early answers keep their promise on the images they were found on, recomputed image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from export.early.calibration import calibrate, evaluate, margins_losing, measure, most_lost, orders
from export.early.tables import CalibratedSwitch, broken_promises
from fusion.base.program import UserError

CLASSES = 5


def partial_logits(devices, images=400, seed=0):
    """Slices that know a little each, in steps as of an int8 output, and the right classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, images)
    known = np.eye(CLASSES)[labels]
    return [np.round(4 * (known + rng.normal(0, 0.9, known.shape))) / 4 for _ in range(devices)], labels


def answered(partial, order, needed, images):
    """By the plain rule: the classes of a batch that is answered when all of its images may be."""
    for count in range(1, len(order)):
        arrived = order[:count]
        sums = sum(partial[device][images] for device in arrived)
        ordered = np.sort(sums, axis=1)
        if (ordered[:, -1] - ordered[:, -2] > needed.get(frozenset(arrived), np.inf)).all():
            return sums.argmax(axis=1), count
    return sum(one[images] for one in partial).argmax(axis=1), len(order)


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("max_drop", [0.0, 0.02, 0.1])
def test_no_order_loses_more_than_the_drop(devices, max_drop):
    partial, labels = partial_logits(devices)
    found = measure(partial, labels)
    needed = calibrate(found, max_drop)
    full = (sum(partial).argmax(axis=1) == labels).mean()
    accuracies, shares = [], []
    for order in itertools.permutations(range(devices)):
        answers = [answered(partial, order, needed, [image]) for image in range(len(labels))]
        accuracies.append(np.mean([classes[0] for classes, _ in answers] == labels))
        shares.append(np.mean([count < devices for _, count in answers]))
    assert min(accuracies) >= full - max_drop - 1e-9
    told = evaluate(found, needed)
    assert (told.accuracy, told.least_accuracy) == pytest.approx((full, min(accuracies)))
    assert (told.mean_accuracy, told.mean_share) == pytest.approx((np.mean(accuracies), np.mean(shares)))
    assert told.least_share == pytest.approx(min(shares))
    assert max_drop < 0.1 or min(shares) > 0


def test_a_promise_that_the_test_part_breaks_is_told():
    """Slices that the validation part knows better than they are."""
    kept = measure(*partial_logits(2))
    needed = calibrate(kept, 0.02)
    partial, labels = partial_logits(2)
    # Wherever the first slice alone is trusted, it is wrong on the test part, and the second one is right.
    partial[0] = np.roll(partial[0], 1, axis=1)
    partial[1] = partial[1] + 20 * np.eye(CLASSES)[labels]
    spoilt = measure(partial, labels)
    told = evaluate(spoilt, needed)
    lost = told.accuracy - told.least_accuracy
    assert lost > 0.02
    nothing = dict.fromkeys(needed, np.inf)
    (said,) = broken_promises([CalibratedSwitch("0.5+0.5", needed, nothing, kept, spoilt)], 0.02)
    assert f"switch '0.5+0.5' lose up to {100 * lost:.2f} points" in said and "more than --max_drop=2," in said
    assert broken_promises([CalibratedSwitch("0.5+0.5", needed, nothing, kept, kept)], 0.02) == []
    assert broken_promises([CalibratedSwitch("0.5+0.5", needed, nothing, kept, spoilt)], lost) == []


def test_neither_do_batches_that_arrive_in_any_order():
    partial, labels = partial_logits(3)
    needed = calibrate(measure(partial, labels), 0.05)
    full = (sum(partial).argmax(axis=1) == labels).mean()
    rng = np.random.default_rng(1)
    early = 0
    for _ in range(20):
        right = []
        for images in np.array_split(rng.permutation(len(labels)), 200):
            classes, count = answered(partial, tuple(rng.permutation(3)), needed, images)
            right += list(classes == labels[images])
            early += count < 3
        assert np.mean(right) >= full - 0.05 - 1e-9
    assert early > 0


def test_the_calibration_spends_the_drop():
    found = measure(*partial_logits(3, images=1000))
    spent = most_lost(found, calibrate(found, 0.05))
    assert 40 <= spent <= 50
    # With one more image allowed to each set, whatever the one before was, some order loses too many.
    allowed = next(one for one in range(60) if margins_losing(found, one) == calibrate(found, 0.05))
    assert most_lost(found, margins_losing(found, allowed + 1)) > 50


def test_margins_that_images_share_are_not_passed_by_rounding():
    found = measure(*partial_logits(2))
    for arrived, margin in margins_losing(found, 3).items():
        gap = np.abs(found.lead[arrived] - margin).min()
        assert gap > 1e-5
        assert (found.lost(arrived) & (found.lead[arrived] > margin)).sum() <= 3


def test_all_may_answer_when_all_may_be_lost():
    found = measure(*partial_logits(2))
    assert set(margins_losing(found, 400).values()) == {0.0}
    assert calibrate(found, 1.0) == margins_losing(found, 400)


@pytest.mark.parametrize(("devices", "sets", "number"), [(1, 0, 1), (2, 2, 2), (4, 14, 24), (7, 28, 42)])
def test_orders_run_through_the_sets(devices, sets, number):
    found = measure(*partial_logits(devices, images=10))
    assert len(found.lead) == sets
    every = list(orders(found))
    assert len(set(every)) == len(every) == number
    assert {arrived for order in every for arrived in order} == set(found.lead)
    for order in every:
        assert all(len(before) + 1 == len(after) and before < after for before, after in itertools.pairwise(order))


def test_logits_that_are_no_numbers():
    partial, labels = partial_logits(2)
    partial[1][3, 2] = np.nan
    with pytest.raises(UserError, match="slice 1 of a switch of 2 gives NaN or infinity"):
        measure(partial, labels)
