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

import numpy as np
import pytest
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

from export.conversion.job import SliceFile
from export.conversion.slices import convert_slice
from export.tflite import graph
from fusion.bundle import manifest
from fusion.bundle.contents import PRECISIONS
from paradis_tf.builders.cost import cut_cost
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

Run = Callable[..., subprocess.CompletedProcess[str]]
INT8 = {"CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "QUANTIZE"}
# The versions that tflite-runtime 2.14.0 was seen to run.
VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "MEAN": 2, "FULLY_CONNECTED": 4, "QUANTIZE": 1}


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_int8_files_hold_the_plain_operators_and_take_the_raw_image(exported) -> None:
    bundle = manifest.load(exported.bundle)
    for entry in bundle.switches:
        for part in entry.slices:
            found = graph.read(bundle.read(part.files["int8"]))
            assert found.operator_names <= INT8
            assert all(version <= VERSIONS[name] for name, version in found.operators)
            # uint8 to int8 moves the zero point; nothing else touches the image.
            assert found.operators["QUANTIZE", 1] == 1
            assert found.operators["CONV_2D", 3] == 14
            assert (found.inputs[0].dtype, found.inputs[0].scale, found.inputs[0].zero_point) == ("uint8", 1 / 128, 128)
            assert found.inputs[0].shape == (1, 16, 16, 3)
            assert (found.outputs[0].dtype, found.outputs[0].shape) == ("int8", (1, 10))
            assert part.files["int8"].output.scale == found.outputs[0].scale


def test_outputs_carry_each_slices_own_scale(exported) -> None:
    entry = manifest.load(exported.bundle).find_switch("0.5+0.25+0.25")
    assert len({part.files["int8"].output.scale for part in entry.slices}) == 3


@pytest.mark.parametrize(("device", "millions"), [(0, 149.5), (1, 41.0)])
def test_multiply_adds_counted_from_the_file_are_the_known_ones(device: int, millions: float) -> None:
    """Of MobileNet v1 at 224 with 1000 classes, counted from the shapes in the exported graph."""
    model = Supernet({"name": "mobilenet_v1", "image_shape": (224, 224, 3), "classes": 1000}, ["0.5+0.25+0.25"])
    switch = model.switches[0]
    _, found = convert_slice(model, SliceFile(switch, device, "float32"), np.zeros((1, 224, 224, 3), np.uint8))
    assert round(found.madds / 1e6, 1) == millions
    assert found.madds == cut_cost(model.architecture, switch.cut(device)).madds


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
    assert (bundle / "fusion" / "worker.py").is_file()
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


def set_accuracies(bundle: Path, accuracies: dict[str, dict]) -> None:
    """As `verify` writes them, and none of other switches."""
    file = bundle / "manifest.json"
    written = json.loads(file.read_text())
    for entry in written["switches"]:
        entry["accuracy"] = accuracies.get(entry["switch"])
    file.write_text(json.dumps(written))


def test_converting_twice_gives_the_same_bytes(exported, run_program: Run, tmp_path: Path) -> None:
    again = tmp_path / "bundle"
    flags = [
        f"--workdir={exported.workdir}",
        f"--bundle={again}",
        "--precision=int8,float32",
        "--name=digits",
        "--quantization=ptq",
    ]
    done = run_program("export.convert", *flags, "--processes=2")
    assert done.returncode == 0, done.stderr
    expected, found = files(exported.bundle), files(again)
    # `verify` may have written accuracies into the first one's manifest.
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (exported.bundle, again)]
    for written in manifests:
        for entry in written["switches"]:
            entry["accuracy"] = None
    assert manifests[0] == manifests[1]
    del expected["manifest.json"], found["manifest.json"]
    assert expected == found


def test_a_second_conversion_converts_what_is_new(exported, run_program: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    scores = {"float": 0.9, "exported": {"int8": 0.875, "float32": 0.9}}
    measured = {"part": "test", "images": 359, "metric": "accuracy", **scores}
    measured["live_subsets"] = [{"devices": [0], **scores}]
    set_accuracies(bundle, {"1.0": measured})
    flags = [
        f"--workdir={exported.workdir}",
        f"--bundle={bundle}",
        "--name=digits",
        "--precision=int8,float32",
        "--quantization=ptq",
    ]
    done = run_program("export.convert", *flags)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 slice files are as they were" in done.stdout and "converting" not in done.stdout
    # What `verify` measured of these files is still true; of the other switch it has measured nothing.
    assert [entry.accuracy for entry in manifest.load(bundle).switches] == [measured, None]
    assert "export.verify measures and writes those of '0.5+0.25+0.25'" in done.stdout
    assert "| 87.50 | 90.00 |" in (bundle / "README.md").read_text()
    slices = {name: digest for name, digest in files(exported.bundle).items() if name.startswith("slices")}
    assert {name: digest for name, digest in files(bundle).items() if name.startswith("slices")} == slices
    # A damaged file is made anew, and so is what other settings give.
    damaged = bundle / "slices" / "1.0" / "0.float32.tflite"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = run_program("export.convert", *flags, "--output=float32")
    assert done.returncode == 0, done.stderr
    assert "3 of 8 slice files are as they were" in done.stdout
    # Each line says whose it is, as several processes write them.
    lines = done.stdout.splitlines()
    count = [line for line in lines if " done: switch " in line]
    assert [line.partition(" ")[0] for line in count] == [f"{number}/5" for number in range(1, 6)]
    assert "switch '1.0', device 0, int8: tracing and converting, calibrating by 256 images" in lines
    assert "switch '1.0', device 0, float32: tracing and converting" in lines
    loading = [line for line in lines if line.endswith(": loading TensorFlow and the network")]
    assert loading and all(line.startswith("switch '") for line in loading)
    loaded = manifest.load(bundle)
    again = {name: digest for name, digest in files(bundle).items() if name.endswith("float32.tflite")}
    assert again == {name: digest for name, digest in slices.items() if name.endswith("float32.tflite")}
    assert [entry.accuracy for entry in loaded.switches] == [None, None]
    outputs = [part.files["int8"].output for entry in loaded.switches for part in entry.slices]
    assert {(output.dtype, output.scale) for output in outputs} == {("float32", None)}


def test_an_int8_file_is_hardly_larger_than_its_weights() -> None:
    model = Supernet(
        {"name": "mobilenet_v1", "image_shape": (32, 32, 3), "classes": 10, "width_multiplier": 0.5, "form": "32"},
        ["1.0", "0.5+0.5"],
    )
    images = np.random.default_rng(4).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    data, _ = convert_slice(model, SliceFile(model.switches[0], 0, "int8"), images)
    parameters = cut_cost(model.architecture, model.switches[0].cut(0)).parameters
    assert parameters > 300_000
    assert len(data) <= 1.25 * parameters


def dense_scales(data: bytes) -> int:
    """How many scales the weights of the only dense layer have."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    code = schema.BuiltinOperator.FULLY_CONNECTED
    numbers = [max(one.builtinCode, one.deprecatedBuiltinCode) for one in model.operatorCodes]
    (dense,) = [one for one in model.subgraphs[0].operators if numbers[one.opcodeIndex] == code]
    return len(model.subgraphs[0].tensors[dense.inputs[1]].quantization.scale)


def test_every_precision_stores_what_it_says(mobilenet: Supernet) -> None:
    switch = mobilenet.switches[2]
    images = np.random.default_rng(4).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    sizes = {}
    for precision in PRECISIONS:
        data, found = convert_slice(mobilenet, SliceFile(switch, 0, precision), images)
        sizes[precision] = len(data)
        assert (found.outputs[0].name, found.outputs[0].dtype) == (
            "logits",
            "int8" if precision == "int8" else "float32",
        )
        assert ("DEQUANTIZE" in found.operator_names) == (precision == "float16")
        assert found.operators["CONV_2D", {"int8": 3, "dynamic": 5}.get(precision, 1)] == 14
        if precision in ("int8", "dynamic"):
            # A scale per output of a dense layer crashes tflite-runtime 2.14.0 on ARM, or is unknown to it.
            assert dense_scales(data) == 1
    parameters = cut_cost(mobilenet.architecture, switch.cut(0)).parameters
    for precision, width in (("float32", 4), ("float16", 2), ("dynamic", 1), ("int8", 1)):
        assert width * parameters < sizes[precision] < width * parameters + 120_000


def test_control_c_keeps_the_older_bundle(exported, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    before = files(bundle)
    command = [sys.executable, "-m", "export.convert", f"--workdir={exported.workdir}", f"--bundle={bundle}"]
    command.append("--precision=float16")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("1/"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert files(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_control_c_in_a_training_keeps_the_older_bundle(exported, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
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
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors.strip()) == (130, "interrupted")
    assert files(bundle) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert len(training) >= 2
    wait_for_end(training)


def test_two_conversions_into_one_folder(exported, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    flags = [f"--workdir={exported.workdir}", f"--bundle={bundle}", "--precision=int8,float32", "--quantization=ptq"]
    both = {
        name: subprocess.Popen(
            [sys.executable, "-m", "export.convert", *flags, f"--name={name}"], stderr=subprocess.PIPE, text=True
        )
        for name in ("left", "right")
    }
    ended = {name: (process.communicate(timeout=600)[1], process.returncode) for name, process in both.items()}
    won = manifest.load(bundle)
    # Whoever comes last has its bundle there, all of it; the other may have been refused the place, in a sentence.
    assert ended[won.name] == ("", 0)
    assert all(status == 0 or (status, said.count("\n")) == (2, 1) for said, status in ended.values())
    for file in won.files():
        won.read(file)
    assert won.name in (bundle / "README.md").read_text()
    assert {part.model.partition("-")[0] for entry in won.switches for part in entry.slices} == {won.name}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


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
    "file": (["--bundle=README.md"], "--bundle=README.md is a file"),
}


@pytest.mark.parametrize(("flags", "sentence"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence(exported, run_program: Run, flags: list, sentence: str, tmp_path: Path) -> None:
    done = run_program("export.convert", f"--workdir={exported.workdir}", f"--bundle={tmp_path / 'new'}", *flags)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_manifest_of_something_else_is_kept(exported, run_program: Run, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    done = run_program("export.convert", f"--workdir={exported.workdir}", f"--bundle={tmp_path}")
    assert done.returncode == 2
    assert "is there and is not a bundle" in done.stderr
    assert (tmp_path / "manifest.json").read_text() == '{"name": "a web app"}'


def test_a_bundle_with_somebody_elses_files_is_kept(exported, run_program: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    (bundle / "token.txt").write_text("secret")
    done = run_program("export.convert", f"--workdir={exported.workdir}", f"--bundle={bundle}")
    assert done.returncode == 2
    assert "holds 'token.txt', which is not part of a bundle and would be lost" in done.stderr


def test_another_model_in_the_run_is_refused(exported, run_program: Run, mobilenet: Supernet, tmp_path: Path) -> None:
    shutil.copytree(exported.workdir, tmp_path / "run")
    mobilenet.save(tmp_path / "run" / "model.keras")
    done = run_program("export.convert", f"--workdir={tmp_path / 'run'}", f"--bundle={tmp_path / 'new'}")
    assert done.returncode == 2
    assert re.search(r"model.keras has architecture\.\w+ .*give .*Another version of the program made it", done.stderr)
    assert not (tmp_path / "new").exists()


def test_an_unfinished_run_is_refused(exported, run_program: Run, tmp_path: Path) -> None:
    shutil.copytree(exported.workdir, tmp_path / "run")
    (tmp_path / "run" / "model.keras").unlink()
    (tmp_path / "run" / "checkpoints" / "epoch_0004.keras").unlink()
    done = run_program("export.convert", f"--workdir={tmp_path / 'run'}", f"--bundle={tmp_path / 'new'}")
    assert done.returncode == 2
    assert "holds no finished model (3 of 4 epochs done)" in done.stderr


def test_a_damaged_model_is_refused(exported, run_program: Run, tmp_path: Path) -> None:
    shutil.copytree(exported.workdir, tmp_path / "run")
    data = (tmp_path / "run" / "model.keras").read_bytes()
    (tmp_path / "run" / "model.keras").write_bytes(data[: len(data) // 2])
    done = run_program("export.convert", f"--workdir={tmp_path / 'run'}", f"--bundle={tmp_path / 'new'}")
    assert done.returncode == 2
    assert "model.keras cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"processes live on: {pids}"
        time.sleep(0.1)


def test_a_killed_conversion_leaves_the_older_bundle_and_no_process(exported, run_program: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(exported.bundle, bundle)
    before = files(bundle)
    flags = [f"--workdir={exported.workdir}", f"--bundle={bundle}", "--name=again", "--processes=2"]
    flags.append("--precision=float16,dynamic")
    with subprocess.Popen(
        [sys.executable, "-m", "export.convert", *flags], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("1/"):
                break
        converting = children(process.pid)
        process.kill()
    assert len(converting) >= 2
    assert files(bundle) == before
    wait_for_end(converting)
    # What it left beside the bundle goes with the next conversion.
    assert len(list(tmp_path.iterdir())) == 2
    done = run_program("export.convert", *flags)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert manifest.load(bundle).name == "again"
