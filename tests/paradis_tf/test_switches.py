"""Slices and switches: their text forms, their channels, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paradis_tf.cuts import FULL, Slice, SwitchError
from paradis_tf.switches import Switch, legal_switches, parse_switches

ROOT = Path(__file__).parents[2]
ON_QUARTERS = [
    "1.0",
    "0.75+0.25",
    "0.5+0.5",
    "0.5+0.25+0.25",
    "4x0.25",
    "0.75",
    "0.5+0.25",
    "3x0.25",
    "0.5",
    "0.25+0.25",
    "0.25",
]
# How many multisets of positive integers add up to 1..grid, from the partition numbers 1 2 3 5 7 11 15 22.
COUNTS = {1: 1, 2: 3, 3: 6, 4: 11, 5: 18, 6: 29, 7: 44, 8: 66}


@st.composite
def partitions(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A grid and widths, in steps of the grid and any order, that fit on it."""
    grid = draw(st.integers(1, 8))
    left, widths = grid, []
    for width in [draw(st.integers(1, grid)), *draw(st.lists(st.integers(1, grid), max_size=8))]:
        if width <= left:
            widths.append(width)
            left -= width
    return grid, widths


def quarters(*bounds: int) -> tuple[Slice, ...]:
    return tuple(Slice(Fraction(a, 4), Fraction(b, 4)) for a, b in zip(bounds, bounds[1:], strict=False))


@pytest.mark.parametrize(
    ("text", "canonical", "bounds"),
    [
        ("1.0", "1.0", (0, 4)),
        ("1", "1.0", (0, 4)),
        ("4/4", "1.0", (0, 4)),
        (".5+.5", "0.5+0.5", (0, 2, 4)),
        ("2x0.5", "0.5+0.5", (0, 2, 4)),
        ("0.25+0.5+0.25", "0.5+0.25+0.25", (0, 2, 3, 4)),
        ("1/2 + 2x1/4", "0.5+0.25+0.25", (0, 2, 3, 4)),
        ("0.25+0.25+0.25+0.25", "4x0.25", (0, 1, 2, 3, 4)),
        ("2x0.25+0.25+1x0.25", "4x0.25", (0, 1, 2, 3, 4)),
        ("0.250", "0.25", (0, 1)),
    ],
)
def test_canonical_form(text: str, canonical: str, bounds: tuple[int, ...]) -> None:
    switch = Switch.parse(text)
    assert str(switch) == canonical
    assert switch.slices == quarters(*bounds)
    assert switch.devices == len(bounds) - 1
    assert switch.width == Fraction(bounds[-1], 4)


@pytest.mark.parametrize(
    ("text", "grid", "canonical", "slug"),
    [
        ("3x1/3", 3, "3x1/3", "3x1of3"),
        ("1/3+2/3", 3, "2/3+1/3", "2of3_1of3"),
        ("0.5+1/3+1/6", 6, "0.5+1/3+1/6", "0.5_1of3_1of6"),
        ("0.375+5x0.125", 8, "0.375+5x0.125", "0.375_5x0.125"),
        ("0.2+0.4", 5, "0.4+0.2", "0.4_0.2"),
    ],
)
def test_other_grids(text: str, grid: int, canonical: str, slug: str) -> None:
    switch = Switch.parse(text, grid)
    assert (str(switch), switch.slug) == (canonical, slug)
    assert Switch.parse(canonical, grid) == switch


@pytest.mark.parametrize("grid", [16, 512, 625, 999])
def test_fine_grids_have_an_exact_text(grid: int) -> None:
    switch = Switch.from_widths([Fraction(grid - 1, grid), Fraction(1, grid)])
    assert Switch.parse(str(switch), grid) == switch


@settings(deadline=None)
@given(partitions())
def test_text_form_round_trips(partition: tuple[int, list[int]]) -> None:
    grid, widths = partition
    switch = Switch.from_widths(Fraction(width, grid) for width in widths)
    assert Switch.parse(str(switch), grid) == switch
    assert [part.width * grid for part in switch.slices] == sorted(widths, reverse=True)
    # Every order of the widths is the same switch, written out or folded.
    for order in list(permutations(widths))[:24]:
        assert Switch.parse("+".join(f"{width}/{grid}" for width in order), grid) == switch
    assert re.fullmatch(r"[A-Za-z0-9._-]+", switch.slug)
    assert "/" not in switch.file_name


@settings(deadline=None)
@given(partitions(), st.integers(1, 100))
def test_channels_adjoin(partition: tuple[int, list[int]], factor: int) -> None:
    grid, widths = partition
    switch = Switch.from_widths(Fraction(width, grid) for width in widths)
    owned = [switch.slices[device].channels(grid * factor, "conv") for device in range(switch.devices)]
    owners = [channel for first, last in owned for channel in range(first, last)]
    assert owners == list(range(sum(widths) * factor))
    assert all(type(bound) is int for pair in owned for bound in pair)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 200))
def test_a_count_off_the_grid_is_refused_by_name(grid: int, count: int) -> None:
    switch = Switch.from_widths([Fraction(1, grid)] * grid)
    if count % grid == 0:
        assert switch.cut(grid - 1).outputs("block_7_conv", count) == (count - count // grid, count)
        return
    with pytest.raises(SwitchError, match=rf"'block_7_conv' has {count} channels.*multiple of"):
        for cut in switch.cuts:
            cut.inputs("block_7_conv", count)


def test_a_cut_inside_a_channel_says_where() -> None:
    with pytest.raises(SwitchError, match=r"'stem' has 6 channels.*\[0\.25, 0\.5\).*channel 1\.5.*multiple of 4"):
        Slice(Fraction(1, 4), Fraction(1, 2)).channels(6, "stem")


def test_legal_switches_on_quarters() -> None:
    assert [str(switch) for switch in legal_switches()] == ON_QUARTERS


@pytest.mark.parametrize("grid", COUNTS)
def test_legal_switches_are_all_and_distinct(grid: int) -> None:
    switches = legal_switches(grid)
    assert len(switches) == COUNTS[grid]
    for kind in (lambda s: s, str, lambda s: s.slug, lambda s: s.file_name):
        assert len({kind(switch) for switch in switches}) == len(switches)
    assert [switch.width for switch in switches] == sorted((s.width for s in switches), reverse=True)


ILLEGAL = [
    *("", " ", "+", "x", "/", ".", "1.", "0.5+", "+0.5", "0.5++0.5", "0..5", "0.5.5", "0,5", "0.5,0.5", "0.5;0.5"),
    *("nan", "inf", "-inf", "1e-1", "1e0", "0x1p-1", "1_0", "½", "²", "full", "None", "True", "[0.5]", "0.5)", "'0.5'"),
    *("-0.5", "0.5+-0.25", "0.5-0.25", "- 0.5", "0.5\n", "\t0.5", "0.5\x00", "0.5\u00a0", "0.5%2B0.5", "0.5_0.5"),
    *("x0.25", "4x", "4xx0.25", "4X0.25", "4*0.25", "0.25x4", "4.0x0.25", "-1x0.25", "2x2x0.25", "x", "1x1x1x1"),
    *("0x0.25", "0x1.0", "00x0.5", "5x0.25", "999x0.25", "9999999999x0.25"),
    *("0", "0.0", ".0", "000", "0/4", "2x0", "0.5+0", "1/0", "0/0", "1/00", "2x1/0", "1/-2", "1/2/2", "1//2", "/2"),
    *("2", "1.25", "5/4", "100", "999", "999.999", "1.0+0.25", "0.75+0.5", "3x0.5", "4x0.25+0.25"),
    *("1/\u0660", "\u0660.\u0665", "2x1/\u0660", "\uff11", "1/\uff10", "\u0662x0.25"),
    *("0.3", "0.125", "1/3", "3x1/3", "0.249999999", "0.2500000001", "0.500000001", "0.5+0.125"),
    "0.25+" * 5000,
    "9" * 5000,
    "1/" + "9" * 5000,
]


@pytest.mark.parametrize("text", ILLEGAL, ids=lambda text: ascii(text[:20]))
def test_illegal_texts_are_refused_with_the_legal_ones(text: str) -> None:
    with pytest.raises(SwitchError) as error:
        Switch.parse(text)
    message = str(error.value)
    assert repr(text) in message
    assert all(legal in message for legal in ON_QUARTERS)


@pytest.mark.parametrize("value", [None, 1, 0.5, True, b"0.5", ["0.5", "0.5"], Fraction(1, 2)], ids=repr)
def test_what_is_not_text_is_refused(value: Any) -> None:
    with pytest.raises(SwitchError, match="is not text") as error:
        Switch.parse(value)
    assert repr(value) in str(error.value)


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.text(), st.text("0123456789.x+/ -e_", max_size=12)), st.integers(1, 8))
def test_any_text_is_a_switch_or_refused(text: str, grid: int) -> None:
    try:
        switch = Switch.parse(text, grid)
    except SwitchError as error:
        assert repr(text) in str(error)
    else:
        assert switch in legal_switches(grid)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), ("1/2", "1/4"), (-1, 1), ("3/4", "5/4"), (1, 1), ("1/2", "1/2")])
def test_illegal_slices(start: int | str, stop: int | str) -> None:
    with pytest.raises(SwitchError, match=r"0 <= start < stop <= 1"):
        Slice(Fraction(start), Fraction(stop))


@pytest.mark.parametrize(
    ("bounds", "fault"),
    [
        ([], "at least one slice"),
        ([("1/4", "1/2")], "leaves a gap"),
        ([("0", "1/4"), ("1/2", "3/4")], "leaves a gap"),
        ([("0", "1/2"), ("1/4", "1/2")], "overlaps"),
        ([("0", "1/2"), ("0", "1/2")], "overlaps"),
        ([("0", "1/4"), ("1/4", "1")], "increase"),
    ],
)
def test_slices_that_make_no_switch(bounds: list[tuple[str, str]], fault: str) -> None:
    with pytest.raises(SwitchError, match=fault):
        Switch(tuple(Slice(Fraction(start), Fraction(stop)) for start, stop in bounds))


@pytest.mark.parametrize(
    ("widths", "fault"),
    [
        ([], "at least one slice"),
        (["3/4", "1/2"], r"0\.75\+0\.5 add up to 1\.25"),
        ([0], r"width 0\.0"),
        ([Fraction(-1, 4), Fraction(1, 2)], r"width -0\.25"),
        ([2], r"width 2\.0"),
    ],
)
def test_widths_that_make_no_switch(widths: list, fault: str) -> None:
    with pytest.raises(SwitchError, match=fault):
        Switch.from_widths(widths)


def test_switches_are_values() -> None:
    assert Switch.parse("0.25+0.5") == Switch.parse("0.5+0.25") != Switch.parse("0.75")
    assert len({Switch.parse("0.5"), Switch.parse("1/2"), Switch.parse("2/4")}) == 1
    assert Slice(Fraction(0), Fraction(1)) == FULL
    assert (str(Slice(Fraction(1, 3), Fraction(1))), FULL.texts) == ("[1/3, 1.0)", ("0.0", "1.0"))


def test_a_list_of_switches_keeps_its_order() -> None:
    texts = ["4x0.25", "1.0", "0.5"]
    assert [str(switch) for switch in parse_switches(texts)] == texts
    with pytest.raises(SwitchError, match="empty.*0.75\\+0.25"):
        parse_switches([])
    with pytest.raises(SwitchError, match=r"'0.5\+0.25' is listed twice"):
        parse_switches(["0.5+0.25", "1.0", "0.25+0.5"])


def test_no_tensorflow_is_imported() -> None:
    code = "import sys, paradis_tf.switches; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    modules = set(shown.stdout.split())
    assert "paradis_tf.switches" in modules
    assert not {"tensorflow", "keras", "tf_keras"} & modules
