"""The passes of anytime and nested networks."""

from __future__ import annotations

import pytest

from fusion.base.program import UserError
from paradis_tf import methods
from paradis_tf.levels import create_levels
from paradis_tf.methods.passes import HardLabels, Joint, Pass, SoftLabels, Teacher
from paradis_tf.switches import parse_switches

SWITCHES = parse_switches(["1.0", "0.5"])


@pytest.mark.parametrize("connectivity", ["triangular", "diagonal"])
def test_anytime_is_one_run_of_all_levels_with_equal_weights(connectivity: str) -> None:
    levels = create_levels(3, connectivity)
    expected = (Joint(tuple(Pass(level) for level in levels)),)
    assert methods.create("anytime").passes(levels, levels[-1]) == expected


def test_anytime_may_learn_from_the_last_level() -> None:
    first, last = create_levels(2, "triangular")
    (joint,) = methods.create("anytime", soft_weight=0.5).passes((first, last), last)
    assert joint == Joint((Pass(first, (HardLabels(1.0), SoftLabels(0.5, Teacher(last)))), Pass(last)))
    with pytest.raises(UserError, match="anytime: soft_weight is -1; it is a number of 0 or more"):
        methods.create("anytime", soft_weight=-1)


def test_nested_is_a_pass_of_each_level_from_the_thinnest() -> None:
    levels = create_levels(3, "dense")
    assert methods.create("nested").passes(levels, levels[-1]) == tuple(Pass(level) for level in levels)


def test_networks_that_a_method_cannot_train_are_named() -> None:
    for name, connectivity, legal in (
        ("anytime", "dense", "'triangular' or 'diagonal', the others are of nested"),
        ("nested", "triangular", "'dense', the others are of anytime"),
        ("nested", "diagonal", "'dense', the others are of anytime"),
    ):
        levels = create_levels(2, connectivity)
        with pytest.raises(UserError, match=f"{name}: connectivity is '{connectivity}'; it trains networks of {legal}"):
            methods.create(name).passes(levels, levels[-1])
    for name in ("anytime", "nested"):
        with pytest.raises(UserError, match=rf"{name}: it trains levels, and the network has switches 1\.0, 0\.5; set"):
            methods.create(name).passes(SWITCHES, SWITCHES[0])
    for name in ("paradis", "individual", "slimmable", "us_slimmable"):
        levels = create_levels(2, "dense")
        with pytest.raises(UserError, match=f"{name}: it trains switches, and the network has levels; take anytime"):
            methods.create(name).passes(levels, levels[-1])
