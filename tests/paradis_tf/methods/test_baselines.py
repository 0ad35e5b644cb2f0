"""The passes of the individual, slimmable and universally slimmable networks."""

from __future__ import annotations

import pytest

from fusion.base.program import UserError
from paradis_tf import methods
from paradis_tf.configs import defaults
from paradis_tf.methods.passes import Draw, Pass, SoftLabels, Teacher
from paradis_tf.paths import paths_of
from paradis_tf.switches import Switch, parse_switches
from tests.paradis_tf.methods.check import check_method

WIDTHS = parse_switches(["0.5", "1.0", "0.25", "0.75"])
HALF, FULL, QUARTER, THREE_QUARTERS = WIDTHS
SPLIT = Switch.parse("4x0.25")


def test_an_individual_network_is_one_switch_on_hard_labels() -> None:
    assert methods.create("individual").passes((SPLIT,), SPLIT) == (Pass(SPLIT),)
    with pytest.raises(UserError, match="there are 2 switches, 1.0, 4x0.25; it takes one"):
        methods.create("individual").passes((FULL, SPLIT), FULL)
    with pytest.raises(UserError, match="soft_weight is -1"):
        methods.create("individual", soft_weight=-1)
    assert methods.create("individual", teacher="nowhere").teacher_run == "nowhere"


def test_slimmable_goes_from_the_widest_to_the_narrowest() -> None:
    expected = tuple(Pass(switch) for switch in (FULL, THREE_QUARTERS, HALF, QUARTER))
    assert methods.create("slimmable").passes(WIDTHS, FULL) == expected
    with pytest.raises(UserError, match=r"switch '4x0.25' has 4 devices; a slimmable network takes widths"):
        methods.create("slimmable").passes((FULL, SPLIT), FULL)


def test_us_slimmable_is_a_sandwich() -> None:
    taught = {switch: Pass(switch, (SoftLabels(1.0, Teacher(FULL)),)) for switch in WIDTHS}
    draw = Draw((taught[THREE_QUARTERS], taught[HALF]))
    expected = (Pass(FULL), draw, draw, taught[QUARTER])
    method = methods.create("us_slimmable", random_widths=2)
    assert method.passes(WIDTHS, FULL) == expected
    assert method.recalibrates
    assert method.passes((FULL, QUARTER), FULL) == (Pass(FULL), taught[QUARTER])
    with pytest.raises(UserError, match="'1.0' is the only switch; it takes two"):
        method.passes((FULL,), FULL)
    with pytest.raises(UserError, match="random_widths is -1"):
        methods.create("us_slimmable", random_widths=-1)


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_the_defaults_of_configs_are_those_of_the_methods(name: str) -> None:
    config = defaults.get_config(name)
    options = dict(config.method)
    assert options.pop("name") == name
    method = methods.create(name, **options)
    assert method.get_config() == options == methods.METHODS[name]().get_config()
    check_method(method, paths_of(config))
