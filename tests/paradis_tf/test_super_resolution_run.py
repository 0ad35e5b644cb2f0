"""A small super-resolution run as its user meets it: train, evaluate, look at crops."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from fusion.base.program import UserError
from paradis_tf.configs import digits_mobilenet_v1, wdsr_x2
from paradis_tf.data.pairs.bicubic import enlarge
from paradis_tf.evaluation.super_resolution import Upscaler, measure, quality_table
from paradis_tf.pictures import crops
from paradis_tf.records.workdir import Workdir
from paradis_tf.switches import Switch
from paradis_tf.tasks.image_quality import scores, to_8_bits
from paradis_tf.training import run as training

EPOCHS = 3


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Coloured discs with sharp edges, which bicubic enlargement blurs."""
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for _ in range(12):
        row, column, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(4, 20)
        image[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = rng.integers(0, 256, 3)
    return image


def small(root: Path) -> ConfigDict:
    config = wdsr_x2.get_config()
    config.epochs = EPOCHS
    config.batch_size = 8
    config.switches = ("1.0", "0.5+0.5")
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_epochs = 0.0
    with config.unlocked():
        config.dataset.update(train=["train"], test=["Two/HR", "One"], patch_size=16, patches_per_epoch=240)
        config.dataset.validation_fraction = 0.3
        config.model.update(blocks=1, filters=8)
    return config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(9)
    for name, height, width in (
        ("train/a", 60, 70),
        ("train/b", 64, 50),
        ("train/c", 48, 80),
        ("Two/HR/d", 45, 62),
        ("Two/HR/e", 70, 52),
        ("One/f", 64, 64),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rng, height, width)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workdir:
    return training.train(small(root), str(tmp_path_factory.mktemp("run") / "run"), str(root))


def test_it_learns_and_reports_psnr(run: Workdir) -> None:
    with run.metrics_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == EPOCHS
    assert float(rows[-1]["loss/1.0"]) < 0.8 * float(rows[0]["loss/1.0"])
    assert float(rows[-1]["val_psnr_y/0.5+0.5"]) > float(rows[0]["val_psnr_y/0.5+0.5"])


def test_us_slimmable_needs_no_batch_norm(root: Path, tmp_path: Path) -> None:
    config = small(root)
    config.epochs, config.switches = 1, ("1.0", "0.5")
    with config.unlocked():
        config.method = wdsr_x2.get_config("us_slimmable").method
        config.dataset.patches_per_epoch = 16
    assert training.train(config, str(tmp_path / "run"), str(root)).model_file.exists()


def test_a_border_wider_than_the_patches_is_refused(root: Path, tmp_path: Path) -> None:
    config = small(root)
    config.loss.border = 16
    with pytest.raises(UserError, match=r"config.loss.border is 16, and patches have 32x32 high-res.*less than 16\."):
        training.train(config, str(tmp_path / "run"), str(root))
    assert not (tmp_path / "run").exists()


def test_whole_images_are_measured(run: Workdir, root: Path) -> None:
    model, dataset = training.load_run(run, str(root))
    measured = measure(model, dataset.test, lambda text: None)
    switch = Switch.parse("0.5+0.5")
    found = measured[switch]
    assert {name: one["images"] for name, one in found["sets"].items()} == {"Two": 2, "One": 1}
    # By another way: the call of the supernet, an image at a time.
    expected, halves = [], []
    for low, high in zip(dataset.test.low, dataset.test.high, strict=True):
        expected.append(scores(high, model(low[None], path=switch)["prediction"].numpy()[0], 2))
        halves.append(scores(high, model(low[None], path=switch, devices=[1])["prediction"].numpy()[0], 2))
    for key in expected[0]:
        assert found[key] == pytest.approx(np.mean([one[key] for one in expected]), abs=2e-3)
        assert found["sets"]["Two"][key] == pytest.approx(np.mean([one[key] for one in expected[:2]]), abs=2e-3)
    bicubic = scores(dataset.test.high[2], enlarge(dataset.test.low[2], 2), 2)
    assert found["bicubic"]["sets"]["One"]["ssim_y"] == bicubic["ssim_y"]
    assert [one["devices"] for one in found["live_subsets"]] == [[0, 1], [0], [1]]
    assert found["live_subsets"][0]["psnr_y"] == pytest.approx(found["psnr_y"])
    assert found["live_subsets"][2]["psnr_y"] == pytest.approx(np.mean([one["psnr_y"] for one in halves]), abs=2e-3)
    # 8 filters, 1 block, counted by hand for a pixel: head, wide and narrow convolution, tail, skip.
    whole = 27 * 8 + 2 * 9 * 8 * 32 + 9 * 8 * 12 + 75 * 12
    half = 27 * 4 + 2 * 9 * 4 * 16 + 9 * 4 * 12
    assert measured[Switch.parse("1.0")]["madds_per_pixel"] == whole
    assert (found["madds_per_pixel"], found["madds_per_pixel_largest"]) == (2 * half + 75 * 12, half)


def test_an_upscaler_answers_images_of_any_size(run: Workdir) -> None:
    model = run.load_model()
    rng = np.random.default_rng(1)
    upscale = Upscaler(model, model.switches[0])
    for height, width in ((7, 9), (20, 11)):
        low = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        expected = to_8_bits(model(low[None], path="1.0")["prediction"].numpy()[0]).astype(int)
        assert np.abs(upscale(low).astype(int) - expected).max() <= 1


def test_evaluate_prints_a_table_for_each_set(run: Workdir, root: Path) -> None:
    command = [sys.executable, "-m", "paradis_tf.evaluate", f"--workdir={run.path}", f"--data_dir={root}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(run.evaluation_file.read_text())
    assert [(row["switch"], row["metric"], row["images"]) for row in rows] == [
        ("1.0", "psnr_y", 3),
        ("0.5+0.5", "psnr_y", 3),
    ]
    assert quality_table(rows) in done.stdout
    lines = done.stdout[done.stdout.index("Two, 2 images") :].splitlines()
    assert lines[3].split() == ["bicubic", *(f"{rows[0]['bicubic']['sets']['Two'][key]:.{digits}f}" for key, digits in (
        ("psnr_y", 2), ("ssim_y", 4), ("psnr_rgb", 2), ("ssim_rgb", 4)))]  # fmt: skip
    assert lines[4].startswith("1.0 ")


def test_crops_are_drawn(run: Workdir, root: Path, tmp_path: Path) -> None:
    output = tmp_path / "crops.svg"
    flags = (f"--workdir={run.path}", f"--data_dir={root}", "--images=Two,One/f", f"--output={output}")
    command = [sys.executable, "-m", "paradis_tf.super_resolution_crops", *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(output)), done.stderr
    assert output.read_bytes().startswith(b"<?xml")
    assert os.listdir(tmp_path) == [output.name]


def test_the_crop_is_where_the_error_is() -> None:
    truth = np.zeros((50, 60, 3), np.uint8)
    image = truth.copy()
    image[31:35, 40:44] = 200
    top, left = crops.worst_place(truth, image, 8)
    assert 27 <= top <= 31 and 36 <= left <= 40
    assert crops.worst_place(truth, image, 100) == (0, 0)


def test_crops_are_of_sets_and_images() -> None:
    names = ("Two/d", "Two/e", "One/f")
    assert crops.choose(names, ["One/f", "Two"]) == [2, 0, 1]
    with pytest.raises(UserError, match="'Set5' is no set or image of the test part; it has Two/d, Two/e, One/f"):
        crops.choose(names, ["Set5"])
    with pytest.raises(UserError, match="--images names 0 images; a picture has 1 to 40"):
        crops.choose(names, [])


def test_a_picture_that_cannot_be_written_is_refused(run: Workdir, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "paradis_tf.super_resolution_crops", f"--workdir={run.path}"]
    for name, sentence in (("a.gif", "ends in '.gif'; it is .png or .svg"), ("none/a.png", "none' is no folder")):
        done = subprocess.run([*command, f"--output={tmp_path / name}"], capture_output=True, text=True)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert sentence in done.stderr


def test_architecture_and_data_have_to_be_of_one_task(root: Path, tmp_path: Path) -> None:
    config = small(root)
    with config.unlocked():
        config.model = digits_mobilenet_v1.get_config().model
    with pytest.raises(UserError, match="is for classification, and dataset 'sr' is for super_resolution"):
        training.train(config, str(tmp_path / "run"), str(root))


def test_the_border_of_the_metric_follows_the_scale() -> None:
    config = wdsr_x2.get_config()
    config.dataset.scale = 4
    assert config.loss.border == 4 and json.loads(config.to_json())["loss"] == {"border": 4}


def test_another_border_leaves_the_scale_alone() -> None:
    config = wdsr_x2.get_config()
    config.loss.border = 6
    kept = json.loads(config.to_json())
    assert (kept["dataset"]["scale"], kept["loss"]["border"]) == (2, 6)
