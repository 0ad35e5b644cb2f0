"""A super-resolution run as a bundle: converted, verified, tested by itself and served by processes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
import keras
import numpy as np
import pytest
from PIL import Image
from tensorflow.lite.python import schema_py_generated as schema

from export.conversion import slices as conversion
from export.proof import judges
from fusion.bundle import manifest
from fusion.local.cluster import LocalCluster
from fusion.local.evaluation import evaluate
from paradis_tf.configs import wdsr_x2
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet
from paradis_tf.tasks.image_quality import luma, psnr
from paradis_tf.training import run as training

Run = Callable[..., Any]


class Upscaling(NamedTuple):
    workdir: Path
    model: Supernet
    bundle: Path


@pytest.fixture(scope="module")
def upscaling(tmp_path_factory: pytest.TempPathFactory, run_main: Run) -> Upscaling:
    folder = tmp_path_factory.mktemp("upscaling")
    rng = np.random.default_rng(5)
    for part, count in (("train", 4), ("test", 2)):
        (folder / part).mkdir()
        for number in range(count):
            # Smooth enough for a network of a few steps to learn something of it.
            coarse = Image.fromarray(rng.integers(0, 256, (14, 12, 3), dtype=np.uint8))
            coarse.resize((72, 84), Image.Resampling.BICUBIC).save(folder / part / f"{number}.png")
    config = wdsr_x2.get_config()
    config.update_from_flattened_dict(
        {
            "switches": ("1.0", "0.5+0.5"),
            "epochs": 2,
            "model.blocks": 1,
            "model.filters": 8,
            "dataset.train": (str(folder / "train"),),
            "dataset.test": (str(folder / "test"),),
            "dataset.validation_fraction": 0.25,
            "dataset.patch_size": 16,
            "dataset.patches_per_epoch": 256,
        }
    )
    workdir: Workdir = training.train(config, str(folder / "run"))
    bundle = folder / "bundle"
    places = (f"--workdir={workdir.path}", f"--bundle={bundle}", f"--archive={folder / 'bundle.zip'}")
    options = ("--precision=int8,float32", "--quantization=ptq", "--image_size=24", "--calibration_images=8")
    done = run_main("export.convert", *places, *options, "--processes=1")
    assert done.returncode == 0, done.stderr
    return Upscaling(workdir.path, workdir.load_model(), bundle)


def test_the_bundle_says_what_it_is(upscaling: Upscaling) -> None:
    bundle = manifest.load(upscaling.bundle)
    assert (bundle.task.name, bundle.scale, bundle.labels) == ("super_resolution", 2, ())
    assert (bundle.shape, bundle.task.output, bundle.output_shape) == ((24, 24, 3), "residual", (24, 24, 12))
    assert bundle.tail is not None and bundle.tail.file.path == "slices/tail.float32.tflite"
    assert [sample.label for sample in bundle.samples] == [None] * len(bundle.samples)
    text = (upscaling.bundle / "README.md").read_text()
    assert "enlarges 2 times" in text
    assert f"| `slices/tail.float32.tflite` |  | the tail | {bundle.tail.file.bytes:,} |" in text
    with zipfile.ZipFile(upscaling.bundle.with_suffix(".zip")) as archive:
        assert archive.testzip() is None
        assert {f"bundle/{file.path}" for file in bundle.files()} <= set(archive.namelist())
        assert "bundle/fusion/selftest.py" in archive.namelist()


def test_verification_scores_whole_images(upscaling: Upscaling, run_main: Run, tmp_path: Path) -> None:
    out = tmp_path / "checks.json"
    flags = [f"--workdir={upscaling.workdir}", f"--bundle={upscaling.bundle}", "--max_drop=2", f"--json={out}"]
    done = run_main("export.verify", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert {one["metric"] for one in found["switches"]} == {"psnr_y"}
    floats = [one for one in found["switches"] if one["precision"] == "float32"]
    assert all(one["score"] == pytest.approx(one["float_score"], abs=0.02) for one in floats)
    assert all(one["agreement"] > 60 for one in floats)
    for entry in manifest.load(upscaling.bundle).switches:
        assert entry.accuracy is not None
        live = entry.accuracy["live_subsets"]
        assert len(live) == 2 ** len(entry.slices) - 1
        # Half of the network is worse than both.
        assert all(one["float"] < live[0]["float"] for one in live[1:])
    # Against a better verification of the past it has lost.
    for one in found["switches"]:
        one["score"] += 3
    out.write_text(json.dumps(found))
    done = run_main("export.verify", *flags[:3], f"--baseline={out}")
    assert done.returncode == 1
    assert "earlier; it may lose 2 dB." in done.stdout


def of_unknown_version(data: bytes) -> bytes:
    """A file whose convolutions claim a version that no runtime has."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.CONV_2D:
            code.version = 99
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def of_another_run(model: Supernet) -> bytes:
    other = Supernet(model.architecture, ["1.0"], normalization=model.normalization)
    other.set_weights([weight + np.float32(0.01) for weight in other.get_weights()])
    return conversion.convert_tail(other, (24, 24, 3))[0]


@pytest.mark.parametrize(
    ("fault", "status", "sentence"),
    [
        ("another run's tail", 1, "fault: the tail differs from Keras by"),
        ("tampered tail", 2, r"slices/tail.float32.tflite' has SHA-256 .*, its manifest says"),
        (
            "unknown operator of the tail",
            2,
            "tail.float32.tflite' needs operator CONV_2D version 99, which tflite_runtime",
        ),
        (
            "unknown operator of a slice",
            2,
            r"0.int8.tflite' needs operator CONV_2D version 99, which \w+ \S+ is too old",
        ),
    ],
)
def test_a_wrong_file_is_named(
    upscaling: Upscaling, run_main: Run, tmp_path: Path, fault: str, status: int, sentence: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(upscaling.bundle, bundle)
    written = json.loads((bundle / "manifest.json").read_text())
    entry = written["fusion"]["tail"]
    if fault.endswith("slice"):
        entry = written["switches"][0]["slices"][0]["files"]["int8"]
    file = bundle / entry["path"]
    data = file.read_bytes()
    if fault.startswith("unknown"):
        data = of_unknown_version(data)
    elif fault.startswith("another"):
        data = of_another_run(upscaling.model)
    else:
        data = data[:-4] + bytes(byte ^ 1 for byte in data[-4:])
    file.write_bytes(data)
    if status == 1 or fault.startswith("unknown"):
        entry |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (bundle / "manifest.json").write_text(json.dumps(written))
    flags = [f"--workdir={upscaling.workdir}", f"--bundle={bundle}", "--max_drop=5", "--limit=1"]
    done = run_main("export.verify", *flags)
    assert done.returncode == status, done.stdout + done.stderr
    assert re.search(sentence, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


def test_tiles_score_as_whole_images_do(upscaling: Upscaling) -> None:
    """With tiles as large as the image, the judge gives the PSNR of the network on it."""
    bundle = manifest.load(upscaling.bundle)
    workdir = Workdir.open(upscaling.workdir)
    model, dataset = training.load_run(workdir, None)
    part = dataset.test
    judge = judges.UpscalerJudge(part, bundle)
    switch = model.switches[1]
    summed = np.sum([model.call_cut(judge.images, switch.cut(device)).prediction.numpy() for device in (0, 1)], axis=0)
    whole = [model(low[np.newaxis], path=switch)["prediction"].numpy()[0] for low in part.low]
    expected = [
        psnr(luma(high), luma(np.clip(np.rint(image), 0, 255)), 2) for high, image in zip(part.high, whole, strict=True)
    ]
    assert judge.score(judge.answers(summed)) == pytest.approx(np.mean(expected), abs=0.05)


def test_the_self_test_passes(upscaling: Upscaling, run_program: Run) -> None:
    done = run_program("fusion.selftest", f"--bundle={upscaling.bundle}", "--runs=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: 6 slice files" in done.stdout


def test_a_cluster_enlarges_images(upscaling: Upscaling, run_program: Run, tmp_path: Path) -> None:
    bundle = manifest.load(upscaling.bundle)
    images, _ = bundle.read_samples()
    big = np.random.default_rng(1).integers(0, 256, (12, 14, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(big).save(tmp_path / "big.png")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "big.png", tmp_path / "other" / "big.png")
    shutil.copy(tmp_path / "big.png", tmp_path / "big_x2.png")
    dot = np.array([[[1, 2, 3]]], np.uint8)
    Image.fromarray(dot).save(tmp_path / "dot.png")
    refused = {
        ("big.png", "other/big.png"): "would both be written to",
        ("big.png", "big_x2.png"): "would replace the image",
        ("big.png", "--target=/nowhere"): "--target=/nowhere is no folder that can be written to",
        ("big.png", "--overlap=12"): "overlap is 12; legal for tiles of 24x24: 0 to 11",
    }
    with LocalCluster(bundle, "0.5+0.5", "float32") as cluster:
        for names, said in refused.items():
            paths = [name if name.startswith("--") else str(tmp_path / name) for name in names]
            wrong = run_program("fusion.predict", f"--url={cluster.url}", f"--target={tmp_path}", *paths)
            assert (wrong.returncode, said in wrong.stderr) == (2, True), wrong.stderr
            assert (tmp_path / "big_x2.png").read_bytes() == (tmp_path / "big.png").read_bytes()
        result = evaluate(cluster.url, images)
        done = run_program(
            "fusion.predict",
            f"--url={cluster.url}",
            f"--target={tmp_path}",
            str(tmp_path / "big.png"),
            str(tmp_path / "dot.png"),
            "none.png",
        )
    switch = upscaling.model.switches[1]
    expected = keras.ops.convert_to_numpy(upscaling.model(images, path=switch)["prediction"])
    assert (result.answers.dtype.name, result.accuracy) == ("uint8", None)
    np.testing.assert_allclose(result.answers, np.clip(np.rint(expected), 0, 255), atol=1)
    assert done.returncode == 2 and "image 'none.png' does not exist" in done.stderr
    answer = np.asarray(Image.open(tmp_path / "big_x2.png"))
    whole = keras.ops.convert_to_numpy(upscaling.model(big[np.newaxis], path=switch)["prediction"])[0]
    assert answer.shape == (96, 112, 3)
    assert np.asarray(Image.open(tmp_path / "dot_x2.png")).shape == (2, 2, 3)
    assert np.abs(answer - np.clip(whole, 0, 255)).mean() < 0.5


def test_images_of_the_wrong_kind_are_refused(upscaling: Upscaling, run_program: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x_test=np.zeros((1, 24, 24, 3), np.uint8), y_test=np.zeros(1, int))
    flags = [f"--bundle={upscaling.bundle}", "--switch=1.0", f"--data={tmp_path / 'data.npz'}"]
    done = run_program("fusion.local", *flags)
    assert done.returncode == 2
    assert "--data is for classifiers, and bundle" in done.stderr
