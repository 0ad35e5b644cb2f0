"""The passes of ParaDiS."""

from __future__ import annotations

from typing import Any

import pytest

from fusion.base.program import UserError
from paradis_tf import methods
from paradis_tf.methods.paradis import Paradis
from paradis_tf.methods.passes import HardLabels, LiveSets, Pass, Teacher, distillation
from paradis_tf.switches import Switch, parse_switches

WIDE, SPLIT = Switch.parse("1.0"), Switch.parse("4x0.25")
# Without sets of live devices.
NEVER: dict[str, Any] = dict(live_weight=0.0, final_live_weight=0.0)


def test_the_widest_comes_first_and_teaches_the_others() -> None:
    switches = parse_switches(["4x0.25", "1.0", "0.5+0.5"])
    passes = Paradis(0.5, 0.75, 0.25, temperature=2.0, **NEVER).passes(switches, WIDE)
    taught = [
        Pass(switch, distillation(Teacher(WIDE), 0.5, 0.75, 0.25, 2.0), (1.0, 0.1)) for switch in (SPLIT, switches[2])
    ]
    assert passes == (Pass(WIDE), *taught)


def test_the_average_of_the_weights_may_teach() -> None:
    passes = Paradis(teacher="average").passes((WIDE, SPLIT), WIDE)
    assert passes[1].teachers == {Teacher(WIDE, "average")}


def test_a_finished_training_teaches_all_switches() -> None:
    teacher = Teacher(Switch.parse("1.0"), "fixed")
    method = Paradis(0.5, 0.75, 0.25, temperature=2.0, teacher="nowhere", **NEVER)
    passes = method.passes((SPLIT, WIDE), WIDE)
    objectives = distillation(teacher, 0.5, 0.75, 0.25, 2.0)
    assert passes == (Pass(WIDE, objectives), Pass(SPLIT, objectives, (1.0, 0.1)))
    assert (method.teacher_run, method.learns_features, Paradis().teacher_run) == ("nowhere", True, "")


def test_students_may_count_for_less() -> None:
    weights: dict[str, Any] = dict(hard_weight=1.0, soft_weight=0.5, feature_weight=0.25)
    student = Pass(SPLIT, distillation(Teacher(WIDE), 1.0, 0.5, 0.25), (0.5, 0.125))
    method = Paradis(**weights, student_weight=0.5, final_student_weight=0.125, **NEVER)
    assert method.passes((WIDE, SPLIT), WIDE) == (Pass(WIDE), student)
    objectives = distillation(Teacher(WIDE, "fixed"), 1.0, 0.5, 0.25)
    method = Paradis(**weights, student_weight=0.5, final_student_weight=0.125, teacher="nowhere", **NEVER)
    assert method.passes((WIDE, SPLIT), WIDE) == (
        Pass(WIDE, objectives),
        Pass(SPLIT, objectives, (0.5, 0.125)),
    )


def test_switches_of_several_devices_learn_to_do_without_some() -> None:
    options: dict[str, Any] = dict(feature_weight=1.0, live_weight=0.5, final_live_weight=0.25, live_sets=2)
    wide, split = Paradis(**options, most_missing=2).passes((WIDE, SPLIT), WIDE)
    assert wide == Pass(WIDE)
    # Missing devices have no features.
    assert split.live == LiveSets(distillation(Teacher(WIDE), 1.0, 1.0, 0.0), 2, 2, (0.5, 0.25))
    (alone,) = Paradis(**options).passes((SPLIT,), SPLIT)
    assert alone.live == LiveSets((HardLabels(),), 2, 3, (0.5, 0.25))
    # So they do if nothing is said.
    wide, split = Paradis().passes((WIDE, SPLIT), WIDE)
    assert (wide.live, split.live) == (None, LiveSets(distillation(Teacher(WIDE), 1.0, 1.0, 0.0), 4, 3, (1.0, 1.0)))
    assert all(entry.live is None for entry in Paradis(**NEVER).passes((WIDE, SPLIT), WIDE))


def test_devices_that_no_switch_has_cannot_be_missing() -> None:
    half = Switch.parse("0.5+0.5")
    with pytest.raises(UserError, match="most_missing is 4, and no switch has more than 4 devices.*it is 1 to 3, or 0"):
        Paradis(live_weight=1.0, most_missing=4).passes((WIDE, half, SPLIT), WIDE)
    with pytest.raises(UserError, match="every switch has one device, 1.0, so none can be missing; set live_weight"):
        Paradis(live_weight=0.0).passes((WIDE,), WIDE)
    # What the switch with most devices can lack is for narrower ones all but one.
    _, narrow, _ = Paradis(live_weight=1.0, most_missing=3).passes((WIDE, half, SPLIT), WIDE)
    assert narrow.live is not None
    assert Paradis(most_missing=9, **NEVER).passes((WIDE,), WIDE) == (Pass(WIDE),)


def test_without_distillation_nobody_teaches() -> None:
    passes = Paradis(1.0, 0.0, 0.0, **NEVER).passes((WIDE, SPLIT), WIDE)
    assert passes == (Pass(WIDE), Pass(SPLIT, factor=(1.0, 0.1)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"feature_weight": -1}, "feature_weight is -1; it is a number of 0 or more"),
        ({"hard_weight": float("nan")}, "hard_weight is nan"),
        ({"hard_weight": 0, "soft_weight": 0, "feature_weight": 0}, "are all 0"),
        ({"student_weight": 0}, "student_weight is 0; it is above 0"),
        ({"final_student_weight": -1}, "final_student_weight is -1; it is a number of 0 or more"),
        ({"temperature": 0}, "temperature is 0; it is above 0"),
        ({"live_weight": -1}, "live_weight is -1; it is a number of 0 or more"),
        ({"final_live_weight": float("inf")}, "final_live_weight is inf"),
        (
            {"hard_weight": 0, "soft_weight": 0, "feature_weight": 1},
            "live_weight is 1.0, .* set one above 0, or live_weight and final_live_weight to 0",
        ),
        ({"live_sets": 0}, "live_sets is 0; it is a whole number from 1 to 16"),
        ({"live_sets": 1.5}, "live_sets is 1.5"),
        ({"most_missing": -1}, "most_missing is -1; it is a whole number of 0 or more"),
        ({"teacher": ""}, "teacher is ''; it is in_place, average or a run folder"),
        ({"wieght": 1}, "no option 'wieght'; it has hard_weight, soft_weight, feature_weight, student_weight"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        methods.create("paradis", **options)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(
        UserError, match="'paradise' is unknown; known are anytime, individual, nested, paradis, slimmable"
    ):
        methods.create("paradise")
