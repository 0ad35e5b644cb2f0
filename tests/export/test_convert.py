"""Bundles: what their files hold, and that a conversion leaves a whole bundle or none."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

from export.conversion.job import SliceFile
from export.conversion.slices import convert_slice
from export.tflite import graph
from fusion.bundle import manifest
from paradis_tf.builders.cost import cut_cost
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

Run = Callable[..., Any]
# The flags that made the shared bundle.
MADE = ("--precision=int8,float32", "--name=digits", "--quantization=ptq", "--processes=1")
INT8 = {"CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "QUANTIZE"}
# The versions that tflite-runtime 2.14.0 was seen to run.
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "MEAN": 2, "FULLY_CONNECTED": 4, "QUANTIZE": 1}


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def slices(bundle: Path) -> dict[str, str]:
    return {name: digest for name, digest in files(bundle).items() if name.startswith("slices")}


def test_int8_files_hold_the_plain_operators_and_take_the_raw_image(exported) -> None:
    bundle = manifest.load(exported.bundle)
    for entry in bundle.switches:
        for slice_ in entry.slices:
            contents = graph.read(bundle.read(slice_.files["int8"]))
            assert contents.operator_names <= INT8
            assert all(version <= VERSIONS[name] for name, version in contents.operators)
            # uint8 to int8 moves the zero point; nothing else touches the image.
            assert contents.operators["QUANTIZE", 1] == 1
            assert contents.operators["CONV_2D", 3] == 14
            assert (contents.inputs[0].dtype, contents.inputs[0].scale, contents.inputs[0].zero_point) == (
                "uint8",
                1 / 128,
                128,
            )
            assert contents.inputs[0].shape == (1, 16, 16, 3)
            assert (contents.outputs[0].dtype, contents.outputs[0].shape) == ("int8", (1, 10))
            assert slice_.files["int8"].output.scale == contents.outputs[0].scale


def test_outputs_carry_each_slices_own_scale(exported) -> None:
    entry = manifest.load(exported.bundle).find_switch("0.5+0.25+0.25")
    assert len({slice_.files["int8"].output.scale for slice_ in entry.slices}) == 3


def test_multiply_adds_counted_from_the_file_are_the_known_ones() -> None:
    """Of MobileNet v1 at 224 with 1000 classes, counted from the shapes in the exported graph."""
    model = Supernet({"name": "mobilenet_v1", "image_shape": (224, 224, 3), "classes": 1000}, ["0.5+0.25+0.25"])
    switch = model.switches[0]
    _, contents = convert_slice(model, SliceFile(switch, 1, "float32"), np.zeros((1, 224, 224, 3), np.uint8))
    assert round(contents.madds / 1e6, 1) == 41.0


def test_the_manifest_counts_the_files(exported) -> None:
    written = json.loads((exported.bundle / "manifest.json").read_text())
    for entry in written["switches"]:
        switch = Switch.parse(entry["switch"])
        assert (entry["switch"], entry["slug"]) == (str(switch), switch.slug)
        assert entry["madds"] == sum(part["madds"] for part in entry["slices"])
        for part in entry["slices"]:
            assert part["model"] == f"digits-{switch.slug}-{part['device']}"
            for file in part["files"].values():
                data = (exported.bundle / file["path"]).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    assert [tuple(part[key] for key in ("start", "stop")) for part in written["switches"][1]["slices"]] == [
        ("0.0", "0.5"),
        ("0.5", "0.75"),
        ("0.75", "1.0"),
    ]


def test_a_bundle_holds_all_a_board_needs(exported) -> None:
    bundle = exported.bundle
    assert (bundle / "labels.txt").read_text().split() == [str(digit) for digit in range(10)]
    assert "tflite-runtime==2.14.0" in (bundle / "requirements.txt").read_text()
    assert (bundle / "fusion" / "worker" / "__main__.py").is_file()
    assert not list(bundle.rglob("__pycache__"))
    text = (bundle / "README.md").read_text()
    assert "--switch=0.5+0.25+0.25" in text and str(bundle) not in text
    loaded = manifest.load(bundle)
    assert len(loaded.samples) == 5
    images, stored = loaded.read_samples()
    for number, sample in enumerate(loaded.samples):
        image = np.asarray(Image.open(bundle / sample.file))
        assert (image.shape, image.dtype.name) == ((16, 16, 3), "uint8")
        np.testing.assert_array_equal(images[number], image)
        # In float the expected answer is the network's own.
        for switch in exported.model.switches:
            logits = exported.model(image[np.newaxis], path=switch)["prediction"][0]
            parts = [stored[f"{part.model}/float32"][number] for part in loaded.find_switch(str(switch)).slices]
            np.testing.assert_allclose(np.sum(parts, axis=0), logits, atol=1e-3)


def test_a_second_conversion_converts_what_is_new(exported, run_main: Run, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    scores = {"float": 0.9, "exported": {"int8": 0.875, "float32": 0.9}}
    measured = {"part": "test", "images": 359, "metric": "accuracy", **scores}
    measured["live_subsets"] = [{"devices": [0], **scores}]
    written = json.loads((bundle / "manifest.json").read_text())
    written["switches"][0]["accuracy"] = measured
    (bundle / "manifest.json").write_text(json.dumps(written))
    flags = [f"--workdir={exported.workdir}", f"--bundle={bundle}", *MADE]
    done = run_main("export.convert", *flags)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 slice files are as they were" in done.stdout and "converting" not in done.stdout
    # What `verify` measured of these files is still true; of the other switch it has measured nothing.
    assert [entry.accuracy for entry in manifest.load(bundle).switches] == [measured, None]
    assert "export.verify measures and writes those of '0.5+0.25+0.25'" in done.stdout
    assert "| 87.50 | 90.00 |" in (bundle / "README.md").read_text()
    assert slices(bundle) == slices(exported.bundle)
    # A damaged file is made anew.
    damaged = bundle / "slices" / "1.0" / "0.float32.tflite"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = run_main("export.convert", *flags)
    assert done.returncode == 0, done.stderr
    assert "7 of 8 slice files are as they were" in done.stdout
    # Each line says whose it is, as several processes write them.
    lines = done.stdout.splitlines()
    name = "switch '1.0', device 0, float32"
    assert f"{name}: loading TensorFlow and the network" in lines and f"{name}: tracing and converting" in lines
    assert [line.partition(",")[0] for line in lines if " done: " in line] == ["1/1 done: switch '1.0'"]
    assert slices(bundle) == slices(exported.bundle)


def dense_scales(data: bytes) -> int:
    """How many scales the weights of the only dense layer have."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    code = schema.BuiltinOperator.FULLY_CONNECTED
    numbers = [max(one.builtinCode, one.deprecatedBuiltinCode) for one in model.operatorCodes]
    (dense,) = [one for one in model.subgraphs[0].operators if numbers[one.opcodeIndex] == code]
    return len(model.subgraphs[0].tensors[dense.inputs[1]].quantization.scale)


def test_every_precision_stores_what_it_says(exported) -> None:
    switch = exported.model.switches[1]
    images = np.random.default_rng(4).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    parameters = cut_cost(exported.model.architecture, switch.cut(0)).parameters
    for precision, width in (("float32", 4), ("float16", 2), ("dynamic", 1), ("int8", 1)):
        if precision in ("int8", "float32"):
            data = (exported.bundle / f"slices/{switch.file_name}/0.{precision}.tflite").read_bytes()
        else:
            data, _ = convert_slice(exported.model, SliceFile(switch, 0, precision), images)
        contents = graph.read(data)
        (logits,) = contents.outputs
        assert (logits.name, logits.dtype) == ("logits", "int8" if precision == "int8" else "float32")
        assert ("DEQUANTIZE" in contents.operator_names) == (precision == "float16")
        assert contents.operators["CONV_2D", {"int8": 3, "dynamic": 5}.get(precision, 1)] == 14
        if precision in ("int8", "dynamic"):
            # A scale per output of a dense layer crashes tflite-runtime 2.14.0 on ARM, or is unknown to it.
            assert dense_scales(data) == 1
        assert width * parameters < len(data) < width * parameters + 80_000


def test_int8_files_may_give_floats(tiny_net: Callable[..., Supernet]) -> None:
    model = tiny_net(("1.0",))
    images = np.random.default_rng(4).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    (logits,) = convert_slice(model, SliceFile(model.switches[0], 0, "int8", float_output=True), images)[1].outputs
    assert (logits.dtype, logits.scale) == ("float32", None)


def test_control_c_keeps_the_older_bundle(exported, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    before = files(bundle)
    command = [sys.executable, "-m", "export.convert", f"--workdir={exported.workdir}", f"--bundle={bundle}"]
    command += ["--precision=float16", "--processes=1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(": tracing and converting\n"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert files(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_control_c_in_a_training_keeps_the_older_bundle(exported, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    before = files(bundle)
    flags = [f"--workdir={exported.workdir}", f"--bundle={bundle}", "--quantization=qat", "--processes=2"]
    flags += ["--compression_steps=1000000", "--compression_images=64", "--calibration_images=16"]
    with subprocess.Popen(
        [sys.executable, "-m", "export.convert", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match("switch '.*', quantization: step ", line):
                break
        training = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert files(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert len(training) >= 2
    wait_for_end(training)


BAD = {
    "no run": (["--workdir=/nowhere"], "--workdir=/nowhere holds no run"),
    "precision": (["--precision=int4"], "--precision=int4; it takes float32, float16, dynamic, int8"),
    "images": (["--calibration_images=5000"], "--calibration_images is 5000; it lies between 1 and the 1294"),
    "name": (["--name=a/b"], "--name=a/b"),
    "folder": (["--bundle=paradis_tf"], "--bundle=paradis_tf holds '__init__.py', which is not part of a bundle"),
    "image size": (["--image_size=32"], "--image_size=32 is for super-resolution; the files of this run take images"),
    "archive": (
        ["--archive=build/new/a.zip", "--bundle=build/new"],
        "lies in the bundle build/new; give a file outside",
    ),
    "idle training": (
        ["--precision=float32", "--quantization=qat"],
        "--quantization=qat is of int8 files, and --precision=float32; leave it out",
    ),
    "idle drop": (["--quantization=ptq", "--max_drop=1"], "--max_drop=1.0 is of --quantization=auto, and it is ptq"),
    "idle steps": (
        ["--quantization=ptq", "--compression_steps=9"],
        "--compression_steps=9 is of --clusters, --sparsity and trained quantization, none here",
    ),
    "clusters": (["--clusters=16"], "--clusters=16 needs --quantization=ptq, as training for 8 bits would part equal"),
    "one cluster": (["--clusters=1", "--precision=float32"], "clusters is 1; it is 0 for none, or 2 to 256"),
    "sparsity": (["--sparsity=1"], "legal: a number from 0 to 0.99"),
    "steps": (["--clusters=16", "--compression_steps=0"], "--compression_steps"),
    "file": (["--bundle=README.md"], "--bundle=README.md is a file"),
}


@pytest.mark.parametrize(("flags", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(exported, run_main: Run, flags: list, sentence: str, tmp_path: Path) -> None:
    done = run_main("export.convert", f"--workdir={exported.workdir}", f"--bundle={tmp_path / 'new'}", *flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_manifest_of_something_else_is_kept(exported, run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    done = run_main("export.convert", f"--workdir={exported.workdir}", f"--bundle={tmp_path}")
    assert done.returncode == 2
    assert "is there and is not a bundle" in done.stderr
    assert (tmp_path / "manifest.json").read_text() == '{"name": "a web app"}'


def test_a_bundle_with_somebody_elses_files_is_kept(exported, run_main: Run, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    (bundle / "token.txt").write_text("secret")
    done = run_main("export.convert", f"--workdir={exported.workdir}", f"--bundle={bundle}")
    assert done.returncode == 2
    assert "holds 'token.txt', which is not part of a bundle and would be lost" in done.stderr


def test_another_model_in_the_run_is_refused(exported, run_main: Run, mobilenet: Supernet, tmp_path: Path) -> None:
    shutil.copytree(exported.workdir, tmp_path / "run")
    mobilenet.save(tmp_path / "run" / "model.keras")
    done = run_main("export.convert", f"--workdir={tmp_path / 'run'}", f"--bundle={tmp_path / 'new'}")
    assert done.returncode == 2
    assert re.search(r"model.keras has architecture\.\w+ .*give .*Another version of the program made it", done.stderr)
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_refused(exported, run_main: Run, tmp_path: Path) -> None:
    shutil.copytree(exported.workdir, tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    (tmp_path / "run" / "checkpoints" / "epoch_0004.keras").unlink()
    done = run_main("export.convert", f"--workdir={tmp_path / 'run'}", f"--bundle={tmp_path / 'new'}")
    assert done.returncode == 2
    assert "holds no finished model (3 of 4 epochs done)" in done.stderr


def test_a_damaged_model_is_refused(exported, run_main: Run, tmp_path: Path) -> None:
    shutil.copytree(exported.workdir, tmp_path / "run")
    data = (tmp_path / "run" / "model.keras").read_bytes()
    (tmp_path / "run" / "model.keras").write_bytes(data[: len(data) // 2])
    done = run_main("export.convert", f"--workdir={tmp_path / 'run'}", f"--bundle={tmp_path / 'new'}")
    assert done.returncode == 2
    assert "model.keras cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 300
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"processes live on: {pids}"
        time.sleep(0.1)


def test_a_killed_conversion_leaves_the_older_bundle_and_the_next_gives_the_same_bytes(
    exported, run_main: Run, tmp_path: Path
) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    written = json.loads((bundle / "manifest.json").read_text())
    # Without their recipes its files are all made anew.
    for entry in written["switches"]:
        for part in entry["slices"]:
            for file in part["files"].values():
                del file["recipe"]
    (bundle / "manifest.json").write_text(json.dumps(written))
    before = files(bundle)
    flags = [f"--workdir={exported.workdir}", f"--bundle={bundle}", *MADE[:-1], "--processes=2"]
    with subprocess.Popen(
        [sys.executable, "-m", "export.convert", *flags], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(": tracing and converting\n"):
                break
        converting = children(process.pid)
        process.kill()
    assert len(converting) >= 2
    assert files(bundle) == before
    wait_for_end(converting)
    # What it left beside the bundle goes with the next conversion.
    assert len(list(tmp_path.iterdir())) == 2
    done = run_main("export.convert", *flags)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert files(bundle) == files(exported.bundle)
