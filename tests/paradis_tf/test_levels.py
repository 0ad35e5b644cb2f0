"""Levels and their cuts: which channels they take, what they mask, whose weights they share."""

from __future__ import annotations

import numpy as np
import pytest

from paradis_tf.cuts import SwitchError
from paradis_tf.levels import Level, StepCut, create_levels


def test_levels_are_prefixes_of_one_device() -> None:
    for connectivity in ("dense", "triangular"):
        levels = create_levels(4, connectivity)
        assert [str(level) for level in levels] == ["level_1", "level_2", "level_3", "level_4"]
        assert [level.devices for level in levels] == [1] * 4
        assert [level.cuts[0].inputs("x", 8) for level in levels] == [(0, 2), (0, 4), (0, 6), (0, 8)]
        assert [level.cuts[0].outputs("x", 12) for level in levels] == [(0, 3), (0, 6), (0, 9), (0, 12)]


def test_a_diagonal_level_has_a_device_for_each_slice() -> None:
    third = create_levels(4, "diagonal")[2]
    assert (third.devices, str(third.width)) == (3, "3/4")
    assert [cut.inputs("x", 8) for cut in third.cuts] == [(0, 2), (2, 4), (4, 6)]
    assert [cut.owns_bias for cut in third.cuts] == [True, False, False]


def test_private_weights_are_shared_as_the_connectivity_allows() -> None:
    keys = {name: [[c.key for c in level.cuts] for level in create_levels(2, name)] for name in ("dense", "triangular")}
    assert keys == {"dense": [["level_1"], ["level_2"]], "triangular": [["triangular"], ["triangular"]]}
    diagonal = create_levels(2, "diagonal")
    assert [[cut.key for cut in level.cuts] for level in diagonal] == [["slice_1"], ["slice_1", "slice_2"]]
    assert [[cut.head_key for cut in level.cuts] for level in diagonal] == [["level_1"], ["level_2", "level_2"]]


def test_the_triangle_is_a_constant() -> None:
    mask = Level(3, 4, "triangular").cuts[0].mask("x", 4, 8)
    assert mask is not None
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
    assert Level(1, 4, "triangular").cuts[0].mask("x", 4, 8) is None
    for connectivity in ("dense", "diagonal"):
        assert Level(3, 4, connectivity).cuts[0].mask("x", 4, 8) is None


def test_a_step_reads_a_prefix_and_makes_one_slice() -> None:
    second = Level(3, 4, "triangular").steps[1]
    assert second == StepCut(2, 4)
    assert (second.inputs("x", 8), second.outputs("x", 8), second.mask("x", 8, 8)) == ((0, 4), (2, 4), None)
    assert (second.key, second.head_key, second.slug) == ("triangular", "level_2", "step_2")
    assert create_levels(4, "diagonal")[3].steps == ()


@pytest.mark.parametrize("levels", [0, -1, 65, 2.0, True, "4", None])
def test_a_bad_number_of_levels_is_named(levels: object) -> None:
    with pytest.raises(SwitchError, match="levels is .*; it is a whole number from 1 to 64"):
        create_levels(levels, "dense")  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0, 5, 1.0])
def test_a_level_outside_of_the_network_is_named(level: object) -> None:
    with pytest.raises(SwitchError, match=f"level is {level!r}; the levels are 1 to 4"):
        Level(level, 4, "dense")  # type: ignore[arg-type]


def test_an_unknown_connectivity_is_named() -> None:
    with pytest.raises(SwitchError, match="'square'; it is one of dense, triangular, diagonal"):
        create_levels(4, "square")


def test_levels_that_divide_no_layer_name_it() -> None:
    with pytest.raises(SwitchError, match=r"layer 'stem' has 8 channels, and slice .0\.0, 1/3. would cut it"):
        Level(1, 3, "triangular").cuts[0].outputs("stem", 8)
