"""Differences between runtimes are measured as by hand, and those that matter are faults."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from export.emulation.boards import Board
from export.proof import agreement, engines
from export.proof.engines import Engine, EngineOutputs
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from paradis_tf.data import datasets

IMAGES = 6
LITERT = Engine("ai_edge_litert", delegates=False)
XNNPACK = Engine("ai_edge_litert")


def answers_of(bundle: Bundle, engine: Engine = engines.REFERENCE) -> EngineOutputs:
    """Made-up outputs: image i is of class i, by far."""
    stored: dict[str, np.ndarray] = {}
    for entry in bundle.switches:
        for part in entry.slices:
            stored[f"{part.model}/int8"] = 90 * np.eye(IMAGES, 10, dtype=np.int8)
            stored[f"{part.model}/float32"] = 4 * np.eye(IMAGES, 10, dtype=np.float32)
    return EngineOutputs(engine, "made up", stored)


@pytest.fixture
def bundle(exported) -> Bundle:
    return manifest.load(exported.bundle)


def compare(bundle: Bundle, other: EngineOutputs, switch: str, precision: str) -> agreement.Agreement:
    """A row of another engine's answers, against the made-up ones."""
    found = agreement.compare(bundle, [answers_of(bundle), other], np.arange(IMAGES))
    (one,) = [one for one in found[1::2] if (one.switch, one.precision) == (switch, precision)]
    return one


def test_equal_outputs_agree(bundle: Bundle) -> None:
    labels = np.array([0, 1, 2, 3, 9, 9])
    found = agreement.compare(bundle, [answers_of(bundle)], labels)
    assert [(one.switch, one.precision) for one in found] == [
        *(("1.0", "int8"), ("1.0", "float32")),
        *(("0.5+0.25+0.25", "int8"), ("0.5+0.25+0.25", "float32")),
    ]
    for one in found:
        whole = one.precision == "int8"
        assert (one.quanta, one.relative) == ((0, None) if whole else (None, 0.0))
        assert (one.images, one.same_class, one.accuracy) == (6, 1.0, 4 / 6)
        assert one.fault(max_quanta=0) is None


def test_int8_of_boards_is_held_to_the_kernels_that_round_as_they_do(bundle: Bundle, tmp_path: Path) -> None:
    board = answers_of(bundle, Engine("tflite_runtime", board=stub_board(tmp_path, "aarch64", "exit 1")))
    whole = {key: stored for key, stored in board.stored.items() if key.endswith("/int8")}
    for stored in whole.values():
        stored[1, 1] -= 3
    like_arm = EngineOutputs(engines.LIKE_ARM, "made up", whole)
    found = agreement.compare(bundle, [answers_of(bundle), like_arm, board], np.arange(IMAGES))
    quanta = [(one.quanta, one.held) for one in found if (one.switch, one.precision) == ("1.0", "int8")]
    assert quanta == [(0, True), (3, False), (0, True)]
    part = [(one.relative, one.held) for one in found if (one.switch, one.precision) == ("1.0", "float32")]
    assert part == [(0.0, True), (0.0, True)]
    assert agreement.other_classes(found) == ""


def test_another_class_than_here_is_told_of_boards(bundle: Bundle, tmp_path: Path) -> None:
    board = answers_of(bundle, Engine("tflite_runtime", board=stub_board(tmp_path, "aarch64", "exit 1")))
    whole = {key: stored for key, stored in board.stored.items() if key.endswith("/int8")}
    whole[f"{bundle.find_switch('1.0').slices[0].model}/int8"][2, 7] = 100
    like_arm = EngineOutputs(engines.LIKE_ARM, "made up", whole)
    found = agreement.compare(bundle, [answers_of(bundle), like_arm, board], np.arange(IMAGES))
    assert [one.fault(0) for one in found] == [None] * len(found)
    assert agreement.other_classes(found).startswith(
        "1 of 6 images are of another class on aarch64 (emulated) than here, switch '1.0', int8: "
    )


def test_differences_are_counted_in_steps_and_in_parts(bundle: Bundle) -> None:
    other = answers_of(bundle, LITERT)
    model = bundle.find_switch("0.5+0.25+0.25").slices[2].model
    other.stored[f"{model}/int8"][1, 1] -= 2
    other.stored[f"{model}/int8"][2, 5] += 1
    other.stored[f"{model}/float32"][3, 0] -= 0.01
    where = f"made up, {engines.machine(LITERT)}: a slice's output differs by"
    whole = compare(bundle, other, "0.5+0.25+0.25", "int8")
    assert (whole.quanta, whole.same_class) == (2, 1.0)
    assert whole.fault(1) == f"switch '0.5+0.25+0.25', int8 on {where} 2 quanta, legal 1."
    assert whole.fault(2) is None
    part = compare(bundle, other, "0.5+0.25+0.25", "float32")
    assert part.relative == pytest.approx(0.01 / 4)
    assert part.fault(1) == f"switch '0.5+0.25+0.25', float32 on {where} 0.0025 of its largest value, legal 0.0001."
    assert compare(bundle, other, "1.0", "int8").quanta == 0


@pytest.mark.parametrize(
    ("engine", "precision", "fault"),
    [
        (LITERT, "int8", True),
        (XNNPACK, "int8", False),
        (XNNPACK, "float32", True),
        (Engine("tflite_runtime", board=Board("armhf", Path("a"), Path("q"))), "int8", True),
    ],
)
def test_another_class_is_a_fault_except_by_xnnpack_on_int8(
    bundle: Bundle, engine: Engine, precision: str, fault: bool
) -> None:
    other = answers_of(bundle, engine)
    other.stored[f"{bundle.find_switch('1.0').slices[0].model}/{precision}"][2, 7] = 100
    one = compare(bundle, other, "1.0", precision)
    assert (one.same_class, one.accuracy) == (5 / 6, 5 / 6)
    assert (one.fault(1) is not None) == fault
    alone = dataclasses.replace(one, quanta=None, relative=None).fault(1)
    assert (alone is not None and alone.endswith(": 1 of 6 images are of another class.")) == fault


def test_a_value_that_is_no_number_is_a_fault(bundle: Bundle) -> None:
    other = answers_of(bundle, LITERT)
    other.stored[f"{bundle.find_switch('1.0').slices[0].model}/float32"][0, 9] = np.nan
    one = compare(bundle, other, "1.0", "float32")
    assert "differs by nan" in str(one.fault(1))
    assert json.loads(json.dumps(one.as_json(), allow_nan=False))["relative"] is None


@pytest.fixture
def data(tmp_path: Path) -> str:
    test = datasets.load("digits").test
    np.savez(tmp_path / "digits.npz", x_test=test.images, y_test=test.labels)
    return str(tmp_path / "digits.npz")


def test_the_runtimes_of_this_machine_agree(exported, run_main, data: str, tmp_path: Path) -> None:
    flags = [f"--bundle={exported.bundle}", f"--data={data}", "--boards=", f"--json={tmp_path / 'a.json'}"]
    done = run_main("export.compare", *flags, "--limit=50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: what is to agree with the reference does" in done.stdout
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["faults"] == []
    rows = written["switches"]
    assert len(rows) == 2 * 2 * 3
    assert {row["images"] for row in rows} == {50}
    assert sum(row["held"] for row in rows) == 10


def stub_board(folder: Path, name: str, script: str) -> Board:
    emulator = folder / name
    emulator.write_text(f"#!/bin/sh\n{script}\n")
    emulator.chmod(0o755)
    return Board(name, folder / name, emulator)


def test_a_board_is_an_engine(bundle: Bundle, tmp_path: Path) -> None:
    script = f'shift 3\nunset PYTHONHOME PYTHONPATH LD_LIBRARY_PATH\nexec "{sys.executable}" "$@"'
    engine = Engine("tflite_runtime", board=stub_board(tmp_path, "armhf", script))
    images = datasets.load("digits").test.images[:5]
    reference, other = engines.run_all(bundle, [engines.REFERENCE, engine], images)
    assert other.engine == engine
    assert other.name == "tflite_runtime 2.14.0, built-in kernels"
    assert len(other.stored) == 8
    for key in reference.stored:
        np.testing.assert_array_equal(other.stored[key], reference.stored[key])


def test_a_board_that_fails_is_named_and_ends_the_others(bundle: Bundle, tmp_path: Path) -> None:
    slow = stub_board(tmp_path, "aarch64", "exec sleep 600")
    broken = stub_board(tmp_path, "armhf", "echo first >&2; echo 'error: no file.' >&2; exit 2")
    asked = [Engine("tflite_runtime", board=board) for board in (slow, broken)]
    with pytest.raises(UserError, match=r"^runtime tflite_runtime on armhf could not run the bundle: no file\.$"):
        engines.run_all(bundle, asked, np.zeros((1, 16, 16, 3), np.uint8))


@pytest.mark.slow
def test_emulated_boards_agree(exported, run_program, data: str, tmp_path: Path) -> None:
    """Downloads 250 MB. MobileNet v1 gives the same int8 values on both boards as here, within a quantum."""
    flags = [f"--bundle={exported.bundle}", f"--data={data}", f"--cache={tmp_path / 'cache'}", "--limit=20"]
    done = run_program("export.compare", *flags, f"--json={tmp_path / 'a.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "a.json").read_text())["switches"]
    boards = [row for row in rows if row["machine"] in ("aarch64 (emulated)", "armhf (emulated)")]
    assert len(boards) == 2 * 2 * 2
    assert all(row["quanta"] in (0, 1) for row in boards if row["precision"] == "int8")
    assert all(row["same_class_here"] == 1 for row in boards)
