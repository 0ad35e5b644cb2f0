"""The self-test passes what is right, names what is not, and says what the machine is."""

import hashlib
import json
import math
import os
import statistics
from pathlib import Path

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.runtime import machine, timing

NAMES = ["ai_edge_litert", "tflite_runtime"]


@pytest.mark.parametrize("name", NAMES)
def test_passes_the_bundle(bundle, runner, name, tmp_path):
    out = tmp_path / "out.json"
    done = runner("selftest", f"--bundle={bundle}", f"--runtime={name}", "--runs=3", f"--json={out}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: 10 slice files, 4 samples" in done.stdout
    written = json.loads(out.read_text())
    assert (written["faults"], written["runtime"].split()[0], written["threads"]) == ([], name, 1)
    assert written["peak_memory_bytes"] > 10_000_000
    assert len(written["slices"]) == 10
    for one in written["slices"]:
        assert one["apart"] <= (1 if one["quantized"] else 1e-4)
        assert one["timing"]["count"] == 3
        assert 0 < one["timing"]["min"] <= one["timing"]["p50"] <= one["timing"]["max"]


def test_checks_what_is_asked_for(bundle, runner):
    done = runner("selftest", f"--bundle={bundle}", "--switch=2x0.5", "--precision=float32", "--runs=0")
    assert done.returncode == 0, done.stderr
    assert "passed: 2 slice files" in done.stdout
    assert "checked   switch 0.5+0.5, float32" in done.stdout and "avg" not in done.stdout


def test_names_a_slice_that_answers_otherwise(altered_outputs, runner):
    folder = altered_outputs("tiny-0.5_0.5-1/int8", 2, 5)
    done = runner("selftest", f"--bundle={folder}", "--runs=0")
    assert done.returncode == 1
    faults = [line for line in done.stdout.splitlines() if line.startswith("fault")]
    where = "switch '0.5+0.5', device 1, int8"
    # Kernels may differ by one.
    legal = [f"fault: {where}: its outputs for the samples are off by {off} quanta, legal 1." for off in (4, 5, 6)]
    assert len(faults) == 1 and faults[0] in legal


def test_an_int8_slice_may_answer_as_on_x86_or_as_on_arm(altered_outputs, runner):
    folder = altered_outputs("tiny-0.5_0.5-1/int8/arm", 2, 5)
    done = runner("selftest", f"--bundle={folder}", "--runs=0", "--precision=int8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_a_fused_answer_of_another_class(altered_outputs, runner):
    folder = altered_outputs("tiny-1.0-0/float32", 2, 1000)
    done = runner("selftest", f"--bundle={folder}", "--runs=0", "--switch=1.0", "--precision=float32")
    assert done.returncode == 1
    assert "fault: switch '1.0', float32: sample 1 has another class than expected." in done.stdout


def test_a_damaged_file_is_named(altered, runner):
    folder = altered(lambda data: None)
    (folder / "slices" / "1.0" / "0.int8.tflite").write_bytes(b"half")
    done = runner("selftest", f"--bundle={folder}")
    assert done.returncode == 2
    assert "0.int8.tflite' has 4 bytes, its manifest says" in done.stderr


def test_slices_that_do_not_fit_are_named_and_the_others_checked(altered, runner, tmp_path):
    def change(data):
        data["switches"][0]["slices"][0]["files"]["int8"]["arena_bytes"] = 10**15

    folder, out = altered(change), tmp_path / "out.json"
    flags = (f"--bundle={folder}", "--precision=int8", "--runs=1")
    done = runner("selftest", *flags, f"--json={out}")
    assert done.returncode == 1, done.stderr
    (fault,) = [line for line in done.stdout.splitlines() if line.startswith("fault")]
    assert fault.startswith("fault: switch '1.0', device 0, int8: slice file 'slices/1.0/0.int8.tflite' takes ")
    assert [one["switch"] for one in json.loads(out.read_text())["slices"]] == ["0.5+0.5"] * 2 + ["0.75+0.25"] * 2
    alone = runner("selftest", *flags, "--switch=1.0")
    assert alone.returncode == 1 and "\n1 fault\n" in alone.stdout


def test_samples_that_are_no_archive_are_named(altered, runner):
    def change(data):
        data["sample_outputs"] |= {"path": "labels.txt", "bytes": 1, "sha256": SHA256_OF_X}

    folder = altered(change)
    (folder / "labels.txt").write_text("x")
    done = runner("selftest", f"--bundle={folder}")
    assert done.returncode == 2
    assert "file 'labels.txt' of bundle" in done.stderr and "is not an .npz file" in done.stderr


@pytest.mark.parametrize("samples", [[], None])
def test_a_bundle_without_samples_is_refused(altered, runner, samples):
    def change(data):
        data["samples"] = []
        if samples is None:
            data["sample_outputs"] = None

    done = runner("selftest", f"--bundle={altered(change)}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: bundle") and done.stderr.endswith("has no samples.\n")


def test_outputs_that_are_no_numbers_are_a_fault(altered_outputs, runner, tmp_path):
    folder = altered_outputs("tiny-1.0-0/float32", 2, math.nan)
    out = tmp_path / "out.json"
    flags = ["--runs=0", "--switch=1.0", "--precision=float32", f"--json={out}"]
    done = runner("selftest", f"--bundle={folder}", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "fault: switch '1.0', float32: sample 1 has another class than expected." in done.stdout
    assert json.loads(out.read_text())["slices"][0]["apart"] is None


@pytest.mark.parametrize("place", [100, 200, 300, 400])
def test_damaged_samples_of_the_right_hash_are_refused(altered, place):
    """What a zip holds is checked by zlib before the zip itself is."""

    def change(data):
        path = folder / "samples" / "outputs.npz"
        with np.load(path) as file:
            np.savez_compressed(path, **dict(file))
        stored = bytearray(path.read_bytes())
        stored[place : place + 60] = bytes(60)
        path.write_bytes(stored)
        data["sample_outputs"] |= {"sha256": hashlib.sha256(stored).hexdigest(), "bytes": len(stored)}

    folder = altered(lambda data: None)
    written = json.loads((folder / "manifest.json").read_text())
    change(written)
    (folder / "manifest.json").write_text(json.dumps(written))
    with pytest.raises(UserError, match="is not an .npz file|lacks the"):
        manifest.load(folder).read_samples()


SHA256_OF_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


def test_figures_of_timing_by_hand():
    found = timing.of([9.0, *(second / 1e6 for second in range(100, 0, -1))])
    figures = (found.count, found.first, found.min, found.max, found.avg, found.p50, found.p95, found.p99)
    assert figures == pytest.approx((101, 9e6, 1, 100, 50.5, 50, 95, 99))
    assert found.std == pytest.approx(statistics.pstdev(range(1, 101)))
    alone = timing.of([2e-6])
    assert (alone.first, alone.min, alone.p99, alone.std) == (2, 2, 2, 0)


def test_describes_a_raspberry_pi(tmp_path: Path):
    for name, text in (
        ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
        ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    found = machine.describe(tmp_path)
    assert (found.model, found.celsius) == ("Raspberry Pi 4 Model B Rev 1.4", 48.312)
    assert found.cores == len(os.sched_getaffinity(0))
    # 0x50005: under-voltage and throttled, now and earlier.
    assert found.throttling == ("under-voltage", "throttled", "under-voltage earlier", "throttled earlier")


def test_describes_a_machine_that_tells_little(tmp_path: Path):
    found = machine.describe(tmp_path)
    assert (found.celsius, found.throttling) == (None, None)
    assert found.model
