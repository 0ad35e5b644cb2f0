"""Odd pictures in sets: one table, the one that predict's tests hold as well."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion.base import pictures
from fusion.base.program import UserError
from fusion.images import reading as images
from paradis_tf.data import pipeline, preparation, sources, squares
from paradis_tf.data.datasets import load
from paradis_tf.data.pairs.super_resolution import load as load_pairs
from paradis_tf.data.parts import Part
from tests.image_files import exif, jpeg, lying, png, saved
from tests.odd_pictures import SIDE, Odd, agree, grey, mutated, odd_pictures, scene

ALL = odd_pictures()
GOOD = [odd for odd in ALL if odd.pixels is not None]
ROOT = Path(__file__).resolve().parents[3]
# Of JPEG made anew.
MADE = 12


def write(root: Path, odds: Sequence[Odd] = ALL) -> Path:
    """A set whose training part has a class of odd pictures; the others are plain."""
    for part in ("train", "val", "test"):
        for name in ("odd", "plain"):
            (root / part / name).mkdir(parents=True)
            if (part, name) != ("train", "odd"):
                (root / part / name / "plain.png").write_bytes(png(scene(), 2, 8))
    for odd in odds:
        (root / "train" / "odd" / odd.name).write_bytes(odd.content)
    return root


def read(root: Path) -> Part:
    return load("folder", str(root), image_size=SIDE, skip_broken=True).train


def piped(part: Part) -> np.ndarray:
    return np.concatenate([images.numpy() for images, _ in pipeline.evaluation_batches(part, 16)])


def wrong(found: np.ndarray, odds: Sequence[Odd] = GOOD) -> list[str]:
    """The pictures that are not as they should be; the last image is the plain one."""
    assert len(found) == len(odds) + 1
    return [odd.name for odd, pixels in zip(odds, found, strict=False) if not agree(odd, pixels)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of all odd pictures; not to be changed."""
    return write(tmp_path_factory.mktemp("odd") / "set")


def test_a_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = read(root)
    said = capsys.readouterr().out
    total, broken = len(ALL) + 5, len(ALL) - len(GOOD)
    assert f"{broken} of {total} images cannot be used: " in said and "they are left out" in said
    assert wrong(part.images[:]) == wrong(piped(part)) == []
    # Once more, as it is remembered.
    again = read(root)
    assert "checked images" not in capsys.readouterr().out
    np.testing.assert_array_equal(again.images[:], part.images[:])


def test_what_tensorflow_sees_otherwise_is_read_from_copies(
    root: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = read(root)
    copied = {odd.name for odd, file in zip(GOOD, part.images.files, strict=False) if file.parent.parent == cache}
    assert {"png-rgba.png", "bmp-palette.bmp", "webp-rgb.webp", "tif-rgb.tif", "tiff-turned.tiff"} <= copied
    assert not {"jpg-rgb.jpg", "jpg-orientation-6.jpg", "png-rgb.png", "png-grey.png", "bmp-rgb.bmp"} & copied
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "copies" in line)
    size = sum(file.stat().st_size for file in cache.glob("*/*.png"))
    assert f"{len(copied)} of {len(ALL) + 5} images are read from copies, {size / 2**20:,.1f} MB in '{cache}" in said


def test_copies_follow_their_files(tmp_path: Path, cache: Path) -> None:
    odds = [odd for odd in GOOD if odd.name in ("tif-grey.tif", "tif-rgb.tif", "webp-rgb.webp")]
    root = write(tmp_path / "set", odds)

    def copies() -> set[str]:
        return {file.name for file in read(root).images.files if file.parent.parent == cache}

    before = copies()
    # Two files show the same.
    assert len(before) == 2
    (root / "train" / "odd" / "tif-rgb.tif").unlink()
    (root / "train" / "odd" / "tif-grey.tif").write_bytes(odds[1].content)
    assert wrong(read(root).images[:], [odds[1], odds[2]]) == []
    assert len(copies()) == 1 and copies() < before
    # One that is gone is made anew.
    for copy in cache.glob("*/*.png"):
        copy.unlink()
    assert wrong(read(root).images[:], [odds[1], odds[2]]) == []


def test_without_a_cache_folder_copies_go_with_the_process(tmp_path: Path) -> None:
    root = write(tmp_path / "set", GOOD)
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    program = (
        "import sys; from paradis_tf.data.datasets import load; "
        f"images = load('folder', sys.argv[1], image_size={SIDE}).train.images; "
        "print(len(images[:]), *{str(file.parent) for file in images.files})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "file")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    count, *folders = done.stdout.splitlines()[-1].split()
    assert int(count) == len(GOOD) + 1 and any(folder.startswith(str(tmp_path / "tmp")) for folder in folders)
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("odd", [odd for odd in ALL if odd.pixels is None], ids=lambda odd: odd.name)
def test_what_is_refused_is_named(odd: Odd, tmp_path: Path) -> None:
    root = write(tmp_path / "set", [odd])
    with pytest.raises(
        UserError, match=rf"1 of 6 images cannot be used: '{root}.*{odd.name}' \((image|file) .*\); mend"
    ):
        load("folder", str(root), image_size=SIDE)
    plan = sources.plan(str(root), None, [])
    for prepare, target in ((preparation.prepare, tmp_path / "records"), (squares.prepare, tmp_path / "x.npz")):
        with pytest.raises(UserError, match=rf"1 of 6 images cannot be used: '{root}.*{odd.name}' \("):
            prepare(plan, target, SIDE, False, 1)


def test_squares(root: Path, tmp_path: Path) -> None:
    squares.prepare(sources.plan(str(root), None, []), tmp_path / "x.npz", SIDE, True, 1)
    assert wrong(load("npz", str(tmp_path / "x.npz")).train.images) == []


def test_records(root: Path, tmp_path: Path) -> None:
    manifest = preparation.prepare(sources.plan(str(root), None, []), tmp_path / "set", SIDE, True, 1)
    bad = [odd.name for odd in ALL if odd.pixels is None]
    assert sorted(Path(name).name for name in manifest["left_out"]) == sorted(bad)
    part = load("prepared", str(tmp_path / "set")).train
    found = piped(part)
    np.testing.assert_array_equal(found, part.images[:])
    # A JPEG is near its picture; what was made one, near what JPEG makes of that.
    made = [replace(odd, near=MADE, pixels=as_jpeg(odd.pixels)) for odd in GOOD]
    assert set(wrong(found)) & set(wrong(found, made)) == set()


def as_jpeg(pixels: np.ndarray | None) -> np.ndarray:
    content = saved(Image.fromarray(np.asarray(pixels)), "JPEG", quality=95)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_plain_jpegs_stay_as_they_are() -> None:
    for content in (jpeg(scene()), jpeg(grey()), jpeg(scene(), progressive=True), jpeg(scene(), exif(1))):
        assert preparation.reduced(content, "x", SIDE) == content
    for content in (jpeg(lying(scene(), 3), exif(3)), png(scene(), 2, 8)):
        assert preparation.reduced(content, "x", SIDE) != content


def test_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plain.png").write_bytes(png(scene(), 2, 8))
    for odd in ALL:
        (tmp_path / "train" / odd.name).write_bytes(odd.content)
    pairs = load_pairs(
        name="sr",
        train=["train"],
        train_low=[],
        validation=["test"],
        validation_low=[],
        validation_fraction=0.5,
        test=["test"],
        test_low=[],
        scale=2,
        patch_size=8,
        patches_per_epoch=1,
        skip_broken=True,
        data_dir=str(tmp_path),
    ).train.pairs
    found = {name.removeprefix("train/"): pixels for name, pixels in zip(pairs.names, pairs.high, strict=True)}
    assert [odd.name for odd in ALL if not agree(odd, found.get(Path(odd.name).stem))] == []
    said = capsys.readouterr().out.splitlines()
    for odd in ALL:
        assert any(line.startswith("left out: ") and odd.name in line for line in said) == (odd.pixels is None)


def photograph() -> np.ndarray:
    """A larger picture, 90 pixels high and 120 wide."""
    y, x = np.mgrid[:90, :120]
    return np.stack([128 + 100 * np.sin(x / 20), 255 * y / 90, 2 * x], axis=-1).astype(np.uint8)


def large() -> dict[str, bytes]:
    """Files that TensorFlow alone sees otherwise."""
    clear = np.dstack([photograph(), (np.arange(90 * 120).reshape(90, 120) // 12 % 256).astype(np.uint8)])
    flat = Image.fromarray(photograph()).quantize(16)
    files = {f"turned-{n}.jpg": jpeg(lying(photograph(), n), exif(n)) for n in range(1, 9)}
    return files | {
        "rgba.png": saved(Image.fromarray(clear), "PNG"),
        "grey-alpha.png": saved(Image.fromarray(clear).convert("LA"), "PNG"),
        "clear-palette.png": saved(flat, "PNG", transparency=3),
        "palette.bmp": saved(flat, "BMP"),
        "deep.png": saved(Image.fromarray(photograph()[..., 1].astype(np.uint16) * 257), "PNG"),
    }


def test_evaluation_sees_what_predict_sees(tmp_path: Path) -> None:
    files = large()
    root = write(tmp_path / "set", [Odd(name, content, None) for name, content in sorted(files.items())])
    found = read(root).images[:].astype(int)
    for place, name in enumerate(sorted(files)):
        served = images.read(root / "train" / "odd" / name, (SIDE, SIDE, 3), images.CROP)
        assert np.abs(found[place] - served).mean() < 2, name


def check_mutated(root: Path, seeds: range) -> None:
    """Damaged files are taken and refused by a folder as by the definition, and show the same."""
    write(root, [])
    for seed in seeds:
        (root / "train" / "odd" / f"{seed:05}{pictures.ENDS[seed % len(pictures.ENDS)]}").write_bytes(mutated(seed))
    part = read(root)
    expected = []
    for file in sorted((root / "train" / "odd").iterdir()):
        with contextlib.suppress(UserError):
            expected.append(pictures.read(file))
    assert len(part) == len(expected) + 1
    for place, pixels in enumerate(expected):
        found = part.images.decode(place).numpy()
        assert found.shape == pixels.shape and np.abs(found.astype(int) - pixels).max() <= 4
    assert len(piped(part)) == len(part)


def test_mutated_files(tmp_path: Path) -> None:
    check_mutated(tmp_path / "set", range(60))


@pytest.mark.slow
def test_many_mutated_files(tmp_path: Path) -> None:
    check_mutated(tmp_path / "set", range(60, 3000))
