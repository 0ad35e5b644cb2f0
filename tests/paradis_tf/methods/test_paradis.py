"""The passes of ParaDiS and their losses, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from export.fusion.program import UserError
from paradis_tf import methods
from paradis_tf.methods.paradis import Paradis
from paradis_tf.methods.passes import Pass
from paradis_tf.switches import Switch, parse_switches

WIDE, SPLIT, HALF = Switch.parse("1.0"), Switch.parse("4x0.25"), Switch.parse("0.5")
RNG = np.random.default_rng(1)
LABELS = RNG.integers(0, 3, 6)
STUDENT = {"logits": RNG.normal(size=(6, 3)), "features": RNG.normal(size=(6, 8))}
TEACHER = {"logits": RNG.normal(size=(6, 3)), "features": RNG.normal(size=(6, 8))}


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_the_widest_comes_first_and_teaches_the_others() -> None:
    switches = parse_switches(["4x0.25", "1.0", "0.5+0.5"])
    passes = Paradis(feature_weight=0.25).passes(switches, WIDE)
    assert passes == (Pass(WIDE), Pass(SPLIT, WIDE, 0.25), Pass(switches[2], WIDE, 0.25))


def test_the_widest_learns_hard_labels() -> None:
    expected = -log_softmax(STUDENT["logits"])[np.arange(6), LABELS].mean()
    assert float(Pass(WIDE).loss(LABELS, STUDENT, None)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.5, 10.0])
def test_the_others_learn_the_softmax_and_the_features(weight: float) -> None:
    target = np.exp(log_softmax(TEACHER["logits"]))
    expected = -(target * log_softmax(STUDENT["logits"])).sum(axis=1).mean()
    expected += weight * ((STUDENT["features"] - TEACHER["features"]) ** 2).mean()
    assert float(Pass(SPLIT, WIDE, weight).loss(LABELS, STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-5)


def test_a_narrower_switch_compares_the_channels_it_owns() -> None:
    narrow = {"logits": STUDENT["logits"], "features": STUDENT["features"][:, :4]}
    soft = float(Pass(HALF, WIDE, 0.0).loss(LABELS, narrow, TEACHER))
    expected = ((narrow["features"] - TEACHER["features"][:, :4]) ** 2).mean()
    assert float(Pass(HALF, WIDE, 1.0).loss(LABELS, narrow, TEACHER)) - soft == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_has_not_run_is_named() -> None:
    with pytest.raises(ValueError, match="'4x0.25' learns from '1.0', which has not run"):
        Pass(SPLIT, WIDE).loss(LABELS, STUDENT, None)


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="feature_weight is -1; it is 0 or more"):
        methods.create("paradis", feature_weight=-1)
    with pytest.raises(UserError, match="no option 'wieght'; it has feature_weight"):
        methods.create("paradis", wieght=1)
    with pytest.raises(UserError, match="method 'paradise' is unknown; known are paradis"):
        methods.create("paradise")
