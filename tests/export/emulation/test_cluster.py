"""Whole workers on boards: on some that only pretend, and on two of 64 and one of 32 bits with a coordinator here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.emulation import boards, installation
from export.emulation.boards import Board
from export.emulation.cluster import run_trial
from fusion.bundle import manifest
from tests.export.conftest import Exported

SWITCH = "0.5+0.25+0.25"
Offline = Callable[[str, str], np.ndarray]
"""What a device gives by a slice file, as stored, for all samples."""


def answer(bundle: Path, image: int, devices: str, offline: Offline) -> np.ndarray:
    """The sum of what these devices' slices give for a sample, by NumPy alone; of no device is no slice."""
    content = json.loads((bundle / "manifest.json").read_text())
    (parts,) = [entry["slices"] for entry in content["switches"] if entry["switch"] == SWITCH]
    total = np.zeros(len(content["labels"]))
    for device, part in zip(devices.split(","), parts, strict=True):
        if device:
            output = part["files"]["int8"]["output"]
            stored = offline(device, part["files"]["int8"]["path"])[image].astype(np.float64)
            total = total + (stored - output["zero_point"]) * output["scale"]
    return total.astype(np.float32)


def samples(bundle: Path, end: str) -> Mapping[str, np.ndarray]:
    """What the bundle says that its int8 files give for its samples, by file."""
    content = json.loads((bundle / "manifest.json").read_text())
    with np.load(bundle / "samples" / "outputs.npz") as stored:
        return {
            part["files"]["int8"]["path"]: stored[f"{part['model']}/int8{end}"]
            for entry in content["switches"]
            for part in entry["slices"]
        }


def test_workers_run_on_boards_and_others_do_the_work_of_the_dead(exported: Exported, tmp_path: Path) -> None:
    emulator = tmp_path / "emulator"
    emulator.write_text(
        f'#!/bin/sh\nshift 3\nunset PYTHONHOME PYTHONPATH LD_LIBRARY_PATH\nexec "{sys.executable}" "$@"\n'
    )
    emulator.chmod(0o755)
    made = [Board(name, tmp_path / name, emulator) for name in ("aarch64", "aarch64", "armhf")]
    bundle = manifest.load(exported.bundle)
    told: list[str] = []
    trial = run_trial(bundle, SWITCH, "int8", made, bundle.read_samples()[0], told.append)
    assert trial.boards == {"worker-0": "aarch64", "worker-1": "aarch64", "worker-2": "armhf"}
    assert {attempt.image for attempt in trial.shared} == set(range(len(bundle.samples)))
    assert "worker-0 is killed" in told and trial.under_way and len(trial.after) >= 60
    stored = samples(exported.bundle, "")
    for attempt in trial.attempts:
        assert attempt.status == 200, attempt.error
        devices = attempt.parameters["devices"]
        expected = answer(exported.bundle, attempt.image, devices, lambda device, file: stored[file])
        np.testing.assert_array_equal(attempt.outputs["logits"], expected)
    assert not any("worker-0" in attempt.parameters["devices"] for attempt in trial.after)


ALONE = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
images, outputs = np.load("samples/outputs.npz")["images"], {}
for entry in json.load(open("manifest.json"))["switches"]:
    for part in entry["slices"]:
        file = part["files"]["int8"]["path"]
        run = Interpreter(file, num_threads=1).get_signature_runner()
        outputs[file] = np.stack([list(run(image=image[np.newaxis]).values())[0][0] for image in images])
np.savez(sys.argv[1], **outputs)
"""


@pytest.mark.slow
def test_emulated_boards_answer_to_the_bit_while_one_is_killed(
    exported: Exported, run_program: Callable[..., Any], tmp_path: Path
) -> None:
    """Downloads 250 MB. Every answer is judged by what stock tflite-runtime gives alone on the boards it claims."""
    made: Sequence[Board] = installation.set_up(["aarch64", "armhf"], tmp_path / "cache")
    alone: dict[str, Mapping[str, np.ndarray]] = {}
    for board in made:
        done = boards.run(board, ["-c", ALONE, str(tmp_path / f"{board.name}.npz")], exported.bundle, timeout_s=600)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / f"{board.name}.npz") as outputs:
            alone[board.name] = dict(outputs)
    flags = [f"--bundle={exported.bundle}", "--precision=int8", f"--cache={tmp_path / 'cache'}"]
    done = run_program("export.emulated_cluster", *flags, f"--json={tmp_path / 'a.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "a.json").read_text())
    assert list(told["boards"].values()) == ["aarch64", "aarch64", "armhf"] and told["faults"] == []
    expected = samples(exported.bundle, "/arm")
    shared, after = set(), 0
    for request in told["requests"]:
        devices, image = request["devices"], request["image"]
        assert request["status"] == 200 and request["switch"] == SWITCH
        logits = answer(exported.bundle, image, devices, lambda device, file: alone[told["boards"][device]][file])
        np.testing.assert_array_equal(np.float32(request["logits"]), logits)
        if len(set(devices.split(","))) == 3:
            shared.add(image)
            logits = answer(exported.bundle, image, devices, lambda device, file: expected[file])
            np.testing.assert_array_equal(np.float32(request["logits"]), logits)
        if request["sent_s"] > 0:
            after += 1
            assert told["killed"] not in devices.split(",")
    assert len(shared) == len(next(iter(expected.values()))) and after >= 60
    assert f"passed: {len(told['requests'])} requests" in done.stdout
    assert not list(exported.bundle.rglob("__pycache__"))
