"""The examples run, and give what the bundle, the network and the cluster that they are given hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# The tiny bundle and a cluster of it, as the runner's tests have them.
from tests.fusion.conftest import coordinator, data, reference, start_for_session, worker  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
_LINES = 60


def run(example: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{example}", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("file", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_they_are_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) < _LINES


def test_a_network_is_trained_and_a_slice_cut_from_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (96, 16, 16, 3), np.uint8), rng.integers(0, 3, 96)
    labels[:3] = range(3)
    images[:, 0, 0] = labels[:, np.newaxis] * 100
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    files = (f"--data={tmp_path}/mine.npz", f"--model={tmp_path}/mine.keras")
    table = run("train_on_own_images", *files, "--epochs=1", "--width=0.125", "--switches=0.5+0.5")
    assert table.splitlines()[-1].split()[:2] == ["0.5+0.5", "2"]

    told = run("extract_a_slice", *files, "--device=1", f"--target={tmp_path}/slice.tflite")
    keras_line, tflite_line, sizes = told.splitlines()[-3:]
    floats, stored = (np.array(line[line.index("[") + 1 : -1].split(), float) for line in (keras_line, tflite_line))
    assert floats.shape == (3,)
    np.testing.assert_allclose(stored, floats, atol=0.1 * max(1.0, np.ptp(floats)))
    assert f"{(tmp_path / 'slice.tflite').stat().st_size:,} bytes" in sizes


@pytest.mark.parametrize("switch", ["1.0", "0.75+0.25"])
def test_slices_are_fused_by_hand(bundle: Path, reference: Callable[[int, int], np.ndarray], switch: str) -> None:  # noqa: F811
    told = run("fuse_by_hand", f"--bundle={bundle}", f"--switch={switch}", f"--image={bundle}/samples/1.png")
    *slices, total, label = told.splitlines()[-len(switch.split("+")) - 2 :]
    assert [line.split(":")[0] for line in slices] == {
        "1.0": ["slice [0.0, 1.0)"],
        "0.75+0.25": ["slice [0.0, 0.75)", "slice [0.75, 1.0)"],
    }[switch]
    expected = reference(0, 8)[1]
    np.testing.assert_allclose(np.array(total[6:-1].split(), float), expected, atol=0.05 * np.ptp(expected))
    assert label == ["ant", "bee", "cat", "dög"][int(np.argmax(expected))]


def test_a_cluster_is_asked(bundle: Path, coordinator: Any) -> None:  # noqa: F811
    images = [str(bundle / "samples" / f"{number}.png") for number in (0, 1)]
    told = run("ask_a_cluster", f"--url={coordinator.url}", *images)
    labels = [run("fuse_by_hand", f"--bundle={bundle}", f"--image={image}").splitlines()[-1] for image in images]
    for line, image, label in zip(told.splitlines(), images, labels, strict=True):
        # Either device may be the faster one, and run both slices.
        assert re.fullmatch(rf"{re.escape(image)}: {label}, by switch 0\.5\+0\.5 on pi-[01],pi-[01]", line)
