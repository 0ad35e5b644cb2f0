"""How runs become lines, and the three comparisons, worked out by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fusion.base.program import UserError
from paradis_tf.reports.claims import Comparison, compare, interpolate
from paradis_tf.reports.lines import Line, make_lines
from paradis_tf.reports.results import read_all
from paradis_tf.reports.runs import check_together, read_folder


def lines_of(folders: list[Path], *labels: str) -> list[Line]:
    runs = read_all([str(folder) for folder in folders], labels, [])
    check_together(runs)
    return make_lines(runs)


def test_runs_that_differ_in_the_seed_alone_are_averaged(four_methods: list[Path]) -> None:
    lines = lines_of(four_methods)
    assert [line.label for line in lines] == ["ParaDiS", "individual networks", "slimmable", "universally slimmable"]
    paradis, individual, slimmable, _ = lines
    assert [point.switch for point in paradis.points] == ["1.0", "0.5+0.5", "4x0.25"]
    assert [point.value.mean for point in paradis.points] == pytest.approx([0.91, 0.88, 0.81])
    # Two values 0.02 apart have the sample standard deviation 0.02 / sqrt(2).
    assert [point.value.spread for point in paradis.points] == pytest.approx([0.02 / 2**0.5, 0, 0.02 / 2**0.5])
    assert [(point.switch, point.value.spread) for point in individual.points] == [("1.0", None), ("4x0.25", None)]
    assert [point.switch for point in slimmable.points] == ["1.0", "0.5", "0.25"]
    assert paradis.points[2].live[(1, 3)].mean == pytest.approx(0.405)


def found(lines: list[Line], claim: str) -> dict[tuple[str, str], Comparison]:
    return {(one.switch, one.reference_line): one for one in compare(lines) if one.claim == claim}


def test_a_tail_does_not_keep_widths_from_being_compared(write_run: Callable[..., Path]) -> None:
    """A super-resolution network's multiply-adds in all have those of its tail, which runs on no device."""
    folders = [
        write_run("p", "paradis", {"4x0.25": 0.8}),
        write_run("s", "slimmable", {"0.25": 0.7}),
    ]
    file = folders[1] / "evaluation.json"
    (row,) = json.loads(file.read_text())
    file.write_text(json.dumps([row | {"madds_total": row["madds_largest"] + 5}]))
    (one,) = found(lines_of(folders), "c").values()
    assert one.against == "width 0.25" and one.difference and one.difference.mean == pytest.approx(0.1)


def test_the_three_comparisons(four_methods: list[Path]) -> None:
    lines = lines_of(four_methods)
    alone = found(lines, "a")
    assert {key[0]: one.difference and round(one.difference.mean, 6) for key, one in alone.items()} == {
        "1.0": -0.02,
        "0.5+0.5": None,
        "4x0.25": 0.03,
    }
    assert alone["0.5+0.5", "individual networks"].against == "not trained alone"

    curve = found(lines, "b")
    # 10^6.5 lies half way between the widths 0.25 and 0.5 in the logarithm: (0.70 + 0.84) / 2 and (0.72 + 0.86) / 2.
    quarters = curve["4x0.25", "universally slimmable"]
    assert quarters.reference and quarters.difference
    assert quarters.reference.seeds == 2
    assert quarters.reference.mean == pytest.approx(0.78)
    assert quarters.reference.spread == pytest.approx(0.02 / 2**0.5)
    assert quarters.difference.mean == pytest.approx(0.03)
    assert quarters.difference.spread == pytest.approx(0.02)  # sqrt(2 * 0.02^2 / 2)
    halves = curve["0.5+0.5", "universally slimmable"]
    assert halves.reference and halves.reference.mean == pytest.approx(0.875)

    widths = found(lines, "c")
    assert {key: round(one.difference.mean, 6) for key, one in widths.items() if one.difference} == {
        ("0.5+0.5", "slimmable"): 0.03,
        ("4x0.25", "slimmable"): 0.11,
        ("0.5+0.5", "universally slimmable"): 0.03,
        ("4x0.25", "universally slimmable"): 0.10,
    }
    assert widths["4x0.25", "slimmable"].against == "width 0.25"


def test_interpolation() -> None:
    curve = {1_000: 0.5, 100_000: 0.9}
    assert interpolate(curve, 10_000) == pytest.approx(0.7)
    assert interpolate(curve, 100_000) == 0.9
    assert interpolate(curve, 999) is None
    assert interpolate(curve, 100_001) is None


def test_lines_of_one_method_are_named_by_what_differs(write_run: Callable[..., Path]) -> None:
    short = write_run("short", "paradis", {"1.0": 0.9}, epochs=5)
    long = write_run("long", "paradis", {"1.0": 0.95}, epochs=50)
    assert [line.label for line in lines_of([short, long])] == ["ParaDiS (epochs=5)", "ParaDiS (epochs=50)"]
    assert [line.label for line in lines_of([short, long], "brief", "whole")] == ["brief", "whole"]
    with pytest.raises(UserError, match="short and .*long are two lines labelled 'same'"):
        lines_of([short, long], "same", "same")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dataset": {"name": "cifar10", "path": ""}}, "has config.dataset.name digits and .* cifar10"),
        (
            {"model": {"name": "mobilenet_v1", "width_multiplier": 0.5, "form": "224"}},
            "config.model.width_multiplier 1.0 and .* 0.5; .* one architecture",
        ),
        ({}, "both give switch 1.0 of paradis with seed 0; give one of them"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(
    write_run: Callable[..., Path], changes: dict, sentence: str
) -> None:
    folders = [write_run("one", "paradis", {"1.0": 0.9}), write_run("other", "paradis", {"1.0": 0.9}, **changes)]
    with pytest.raises(UserError, match=sentence) as caught:
        lines_of(folders)
    assert all(str(folder) in str(caught.value) for folder in folders)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"images": 1000', '"images": 900', "is evaluated on 1000 images and .* on 900"),
        ('"madds_total": 100000000', '"madds_total": 7', "takes 100000000 multiply-adds in .* and 7 in"),
        ('"accuracy": 0.9,', '"accuracy": NaN,', "accuracy is nan; it is a finite number"),
        ('"devices": 1,', '"devices": "1",', "devices is '1'; it is a whole number of at least 1"),
    ],
)
def test_evaluations_that_cannot_be_used(write_run: Callable[..., Path], old: str, new: str, sentence: str) -> None:
    folders = [write_run(f"p{seed}", "paradis", {"1.0": 0.9}, seed=seed) for seed in (0, 1)]
    file = folders[1] / "evaluation.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        lines_of(folders)


def test_runs_that_are_not_ready(write_run: Callable[..., Path]) -> None:
    folder = write_run("run", "paradis", {"1.0": 0.9})
    (folder / "model.keras").write_text("trained again")
    with pytest.raises(UserError, match=re.escape(f"{folder / 'evaluation.json'} is of another model")):
        read_folder(str(folder))
    (folder / "evaluation.json").unlink()
    with pytest.raises(UserError, match="run is not evaluated; run paradis_tf.evaluate on it"):
        read_folder(str(folder))
    (folder / "model.keras").unlink()
    with pytest.raises(UserError, match="holds no finished model"):
        read_folder(str(folder))
    with pytest.raises(UserError, match="holds no run"):
        read_folder(str(folder.parent))


def test_switches_are_compared_by_what_they_are(write_run: Callable[..., Path]) -> None:
    folder = write_run("run", "paradis", {"0.5+0.5": 0.9}, switches=["2x0.5"])
    assert read_folder(str(folder)).rows[0].switch == "0.5+0.5"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (
            "config.json",
            '"method": {"name": "paradis"',
            '"method": {"title": "x"',
            "config.json lacks 'name' of method",
        ),
        ("config.json", '"seed"', '"sead"', "config.json lacks 'seed'. Another version of the program made the run"),
        ("config.json", '"flip": false', '"flop": false', "augmentation has flop; it takes inception_crop, flip"),
        ("config.json", '"seed": 0', '"seed": "abc"', "'seed' is 'abc'; it is written like 0"),
        ("config.json", '"grid": 4', '"grid": "x"', "'grid' is 'x'; it is written like 4"),
        ("config.json", '["1.0"]', "5", "'switches' is 5; it is written like"),
        ("config.json", '["1.0"]', "[5]", r"'switches' is \[5\]; its elements are written like '1.0'"),
        ("config.json", '"name": "paradis"', '"name": [1]', r"'method.name' is \[1\]; it is written like 'paradis'"),
        ("config.json", '"name": "digits"', '"name": 5', "'dataset.name' is 5; it is written like 'digits'"),
        ("config.json", '"model": {', '"model": null, "old": {', "'model' is None; it is written like"),
        ("evaluation.json", '"switch": "1.0"', '"switch": 1.0', "evaluation.json is no evaluation"),
        ("evaluation.json", '"accuracy": 0.9, "top5', '"accuracy": true, "top5', "accuracy is True; it is a number"),
        (
            "evaluation.json",
            '"parameters": 12345',
            '"parameters": "x"',
            "parameters is 'x'; it is a whole number.*evaluate again",
        ),
        ("evaluation.json", '"live_subsets": [{', '"live_subsets": [5, {', "live_subsets is not a list of devices"),
        ("evaluation.json", '{"devices": [0]', '{"device": [0]', "live_subsets is not a list of devices and accuracy"),
        ("evaluation.json", '"devices": [0]', '"devices": 0', "live_subsets is not a list of devices and accuracy"),
    ],
)
def test_damaged_files_are_named(write_run: Callable[..., Path], file: str, old: str, new: str, sentence: str) -> None:
    path = write_run("run", "paradis", {"1.0": 0.9}) / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        read_folder(str(path.parent))


def test_an_evaluation_of_other_switches_is_named(write_run: Callable[..., Path]) -> None:
    folder = write_run("run", "paradis", {"1.0": 0.9})
    config = (folder / "config.json").read_text().replace('"switches": ["1.0"]', '"switches": ["1.0", "0.5+0.5"]')
    (folder / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"has the paths 1.0, and its run 1.0, 0.5\+0.5"):
        read_folder(str(folder))
