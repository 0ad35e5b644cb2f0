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
Offline = Mapping[str, Mapping[str, np.ndarray]]
"""What a device gives by a slice file, as stored, for all samples: by device, by file."""


def answer(bundle: Path, image: int, devices: str, offline: Offline) -> np.ndarray:
    """The sum of what these devices' slices give for a sample, by NumPy alone; of no device is no slice."""
    content = json.loads((bundle / "manifest.json").read_text())
    (parts,) = [entry["slices"] for entry in content["switches"] if entry["switch"] == SWITCH]
    total = np.zeros(len(content["labels"]))
    for device, part in zip(devices.split(","), parts, strict=True):
        if device:
            output = part["files"]["int8"]["output"]
            stored = offline[device][part["files"]["int8"]["path"]][image].astype(np.float64)
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


@pytest.mark.parametrize("own_slices", [True, False])
def test_the_others_answer_when_a_board_is_killed(exported: Exported, tmp_path: Path, own_slices: bool) -> None:
    emulator = tmp_path / "emulator"
    emulator.write_text(
        f'#!/bin/sh\nshift 3\nunset PYTHONHOME PYTHONPATH LD_LIBRARY_PATH\nexec "{sys.executable}" "$@"\n'
    )
    emulator.chmod(0o755)
    made = [Board(name, tmp_path / name, emulator) for name in ("aarch64", "aarch64", "armhf")]
    bundle = manifest.load(exported.bundle)
    told: list[str] = []
    trial = run_trial(bundle, SWITCH, "int8", made, own_slices, bundle.read_samples()[0], told.append)
    assert trial.boards == {"worker-0": "aarch64", "worker-1": "aarch64", "worker-2": "armhf"}
    assert [attempt.image for attempt in trial.calm] == list(range(len(bundle.samples)))
    assert "worker-0 is killed" in told and trial.under_way and len(trial.after) >= 60
    stored = dict.fromkeys(trial.boards, samples(exported.bundle, ""))
    for attempt in trial.attempts:
        assert attempt.status == 200, attempt.error
        devices = attempt.parameters["devices"]
        expected = answer(exported.bundle, attempt.image, devices, stored)
        np.testing.assert_array_equal(attempt.outputs["logits"], expected)
    if own_slices:
        assert {attempt.parameters["devices"] for attempt in trial.calm} == {"worker-0,worker-1,worker-2"}
        assert {attempt.parameters["devices"] for attempt in trial.after} == {",worker-1,worker-2"}
    else:
        assert not any("worker-0" in attempt.parameters["devices"] for attempt in trial.after)
        assert not any(attempt.parameters["missing"] for attempt in trial.after)


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
    expected = samples(exported.bundle, "/arm")
    for trial in told["trials"]:
        assert list(trial["boards"].values()) == ["aarch64", "aarch64", "armhf"] and trial["faults"] == []
        offline = {device: alone[name] for device, name in trial["boards"].items()}
        for place, request in enumerate(trial["requests"]):
            devices, image, given = request["devices"], request["image"], np.float32(request["logits"])
            assert request["status"] == 200 and request["switch"] == SWITCH
            logits = answer(exported.bundle, image, devices, offline)
            np.testing.assert_array_equal(given, logits)
            if place < len(next(iter(expected.values()))):
                logits = answer(exported.bundle, place, devices, dict.fromkeys(trial["boards"], expected))
                np.testing.assert_array_equal(given, logits)
                assert image == place and not request["missing"]
                assert devices == "worker-0,worker-1,worker-2" or not trial["own_slices"]
        after = [request["devices"].split(",") for request in trial["requests"] if request["sent_s"] > 0]
        assert len(after) >= 60 and not any(trial["killed"] in devices for devices in after)
        wanted = {1, 2} if trial["own_slices"] else {0, 1, 2}
        assert all({i for i, name in enumerate(devices) if name} == wanted for devices in after)
    assert [trial["own_slices"] for trial in told["trials"]] == [True, False]
    requests = sum(len(trial["requests"]) for trial in told["trials"])
    assert f"passed: {requests} requests" in done.stdout
    assert not list(exported.bundle.rglob("__pycache__"))
