"""What is remembered of a folder's image files, and the copies that are read instead of some of them."""

from __future__ import annotations

import gc
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusion.base import pictures
from fusion.base.program import UserError
from paradis_tf.data import encoded, pipeline
from paradis_tf.data.datasets import load
from paradis_tf.data.encoded import EncodedImages
from paradis_tf.data.parts import Part
from tests.image_files import exif, jpeg, lying, png, saved
from tests.odd_pictures import SIDE, scene

DAY = 24 * 3600
# Of the training part's files, in their order.
NAMES = ["bmp.bmp", "cut-off.png", "plain.png", "tiff.tif", "turned.jpg", "webp.webp"]
COPIED = [2, 4]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of one class, whose training part has each kind of file."""
    image, plain = Image.fromarray(scene()), png(scene(), 2, 8)
    contents = [
        saved(image, "BMP"),
        plain[:80],
        plain,
        saved(image, "TIFF"),
        jpeg(lying(scene(), 6), exif(6)),
        saved(Image.fromarray(scene()[:, ::-1]), "WEBP", lossless=True),
    ]
    for part in ("train", "val", "test"):
        (tmp_path / "set" / part / "ant").mkdir(parents=True)
    for name, content in zip(NAMES, contents, strict=True):
        (tmp_path / "set" / "train" / "ant" / name).write_bytes(content)
    for part in ("val", "test"):
        (tmp_path / "set" / part / "ant" / "plain.png").write_bytes(plain)
    return tmp_path / "set"


def read(root: Path | str) -> Part:
    return load("folder", str(root), image_size=SIDE, skip_broken=True).train


def copies(part: Part) -> list[Path]:
    return [part.images.files[place] for place in COPIED]


def test_copies_of_private_pictures_are_private(root: Path) -> None:
    copy = copies(read(root))[0]
    assert (copy.stat().st_mode & 0o777, copy.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def is_whole(part: Part) -> bool:
    """Whether all but the broken file show the picture, as an array and in a pipeline."""
    ((piped, _),) = pipeline.evaluation_batches(part, 16)
    expected = np.stack([scene()] * 4 + [scene()[:, ::-1]]).astype(int)
    return all(
        images.shape == expected.shape and np.abs(images - expected).max() <= 12
        for images in (part.images[:], piped.numpy())
    )


@pytest.mark.parametrize("spelling", ["set", "link", "beside/../set", "./set/", "set/train/.."])
def test_a_set_is_known_by_all_its_names(
    root: Path, spelling: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root.parent)
    Path("link").symlink_to("set")
    Path("beside").mkdir()
    first = read(root)
    capsys.readouterr()
    second = read(spelling)
    said = capsys.readouterr().out
    assert "checked images" not in said and "2 of 8 images are read from copies" in said
    assert f"1 of 8 images cannot be used: '{Path(spelling) / 'train/ant/cut-off.png'}' (image '{root}" in said
    assert is_whole(first) and is_whole(second) and copies(first) == copies(second)
    # Checked anew by the other name, while both are in use.
    os.utime(root / "train" / "ant" / "bmp.bmp", ns=(1, 1))
    third = read(spelling)
    assert "checked images 8/8" in capsys.readouterr().out
    assert all(map(is_whole, (first, second, third)))


@pytest.mark.parametrize("change", ["permissions", "another picture", "removed"])
def test_a_check_leaves_the_copies_of_a_training(root: Path, change: str) -> None:
    training, file = read(root), root / "train" / "ant" / "tiff.tif"
    if change == "permissions":
        file.chmod(0o600)
    elif change == "another picture":
        file.write_bytes(saved(Image.fromarray(scene()[::-1]), "TIFF"))
    else:
        file.unlink()
    other = read(root)
    assert is_whole(training) and len(other) == (4 if change == "removed" else 5)


def test_copies_go_when_nobody_has_begun_with_them_for_long(root: Path, cache: Path) -> None:
    used = copies(read(root))
    for name, days in (("old.png", 100), ("half.png.part", 100), ("new.png", 1), *((copy.name, 100) for copy in used)):
        file = used[0].with_name(name)
        file.touch()
        os.utime(file, (time.time() - days * DAY,) * 2)
    assert is_whole(read(root))
    left = {file.name for file in used[0].parent.iterdir()}
    assert left == {"new.png", "checked.json", *(copy.name for copy in used)}
    # Their use is noted.
    assert all(copy.stat().st_mtime > time.time() - DAY for copy in used)


def emptied(copy: Path) -> None:
    copy.write_bytes(b"")


def zeroed(copy: Path) -> None:
    copy.write_bytes(bytes(copy.stat().st_size))


def another_picture(copy: Path) -> None:
    copy.write_bytes(png(scene()[::-1], 2, 8))


def gone(copy: Path) -> None:
    copy.unlink()


@pytest.mark.parametrize("damage", [emptied, zeroed, another_picture, gone])
def test_a_damaged_copy_is_made_anew(
    root: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(copies(read(root))[0])
    capsys.readouterr()
    assert is_whole(read(root))
    # No other file is looked at.
    assert "checked images 1/1" in capsys.readouterr().out
    assert is_whole(read(root)) and "checked images" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", [emptied, zeroed, gone])
def test_a_copy_that_is_damaged_in_use_is_named_with_its_image(root: Path, damage: Callable[[Path], None]) -> None:
    part = read(root)
    copy = copies(part)[1]
    damage(copy)
    sentence = rf"the copy '{copy}' of image '{root}/train/ant/webp.webp' cannot be .*; start again: copies .* anew\."
    with pytest.raises(UserError, match=sentence):
        part.images[:]
    with pytest.raises(UserError, match=sentence), pipeline.reading():
        list(pipeline.evaluation_batches(part, 4))
    assert is_whole(read(root))


def test_the_originals_follow_a_selection(tmp_path: Path) -> None:
    files, nothing = [tmp_path / name for name in ("a", "copy")], np.zeros(2, int)
    images = EncodedImages(files, np.arange(2), nothing, nothing, SIDE, originals=[tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UserError, match=rf"^image '{tmp_path}/a' cannot be read"):
        images.select(np.array([1, 0]))[1]
    with pytest.raises(UserError, match=rf"copy '{tmp_path}/copy' of image '{tmp_path}/b' cannot be read"):
        images.select(np.array([1, 0]))[0]


@pytest.mark.parametrize("name", ["tiff.tif", "turned.jpg", "webp.webp"])
@pytest.mark.parametrize("after", ["load", "decode"])
def test_a_file_that_goes_while_it_is_checked_is_its_own_fault(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found: Any = getattr(pictures, after)
    file = root / "train" / "ant" / name

    def unlinking(*arguments: Any) -> Any:
        if name not in str(arguments):
            return found(*arguments)
        try:
            if after == "load":
                file.unlink(missing_ok=True)
            return found(*arguments)
        finally:
            file.unlink(missing_ok=True)

    monkeypatch.setattr(pictures, after, unlinking)
    part = read(root)
    broken = after == "load"
    assert len(part) == (4 if broken else 5)
    assert (f"'{file}' does not exist" in capsys.readouterr().out) <= broken


@dataclass(frozen=True)
class Gif:
    """A file, and whether it holds more than one image."""

    content: bytes
    several: bool


def gif(*images: bytes, between: bytes = b"") -> bytes:
    """A GIF of some images in their blocks, without what else a program writes."""
    head = saved(Image.fromarray(scene()).quantize(16), "GIF")
    start = head.index(b"\x2c\0\0\0\0")
    return head[:start] + between.join([head[start:-1], *images]) + b";"


def frame() -> bytes:
    content = saved(Image.fromarray(scene()[::-1]).quantize(16), "GIF")
    return content[content.index(b"\x2c\0\0\0\0") : -1]


def moving(form: str, **options: object) -> bytes:
    first, second = (Image.fromarray(pixels).quantize(16) for pixels in (scene(), scene()[::-1]))
    return saved(first, form, save_all=True, append_images=[second], **options)


GIFS = {
    "one": Gif(gif(), False),
    "comment": Gif(saved(Image.fromarray(scene()).quantize(16), "GIF", comment=b",!;" * 200), False),
    "behind its end": Gif(gif() + frame(), False),
    "moving": Gif(moving("GIF"), True),
    "looping": Gif(moving("GIF", loop=0, duration=50), True),
    "plain": Gif(gif(frame()), True),
    "many": Gif(gif(*[frame()] * 40), True),
    # Not all decoders go on in the same place.
    "empty extension": Gif(gif(frame(), between=b"\x21\xff\0"), True),
    "empty control": Gif(gif(frame(), between=b"\x21\xf9\0"), True),
    "cut off": Gif(gif(frame())[:-20], True),
}


@pytest.mark.parametrize("made", GIFS.values(), ids=GIFS)
def test_tensorflow_is_given_no_gif_of_several_images(made: Gif, root: Path) -> None:
    picture = pictures.decode(made.content, "x")
    assert encoded.shows(made.content, picture) is not made.several
    file = root / "train" / "ant" / "z.gif"
    file.write_bytes(made.content)
    part = read(root)
    assert (part.images.files[5] == file) is not made.several
    np.testing.assert_array_equal(part.images.decode(5), picture.pixels)


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "turned is null": lambda known: known.update(turned=None),
    "broken is a list": lambda known: known.update(broken=["train/ant/tiff.tif"]),
    "copies is text": lambda known: known.update(copies="x"),
    "a turn is text": lambda known: known["turned"].update({"train/ant/turned.jpg": "6"}),
    "a turn that is none": lambda known: known["turned"].update({"train/ant/turned.jpg": 9}),
    "a copy is a number": lambda known: known["copies"].update({"train/ant/tiff.tif": 1}),
    "a copy with a zero": lambda known: known["copies"].update({"train/ant/tiff.tif": "a\0.png"}),
    "a reason is null": lambda known: known["broken"].update({"train/ant/cut-off.png": None}),
    "another file": lambda known: known["copies"].update({"train/ant/nowhere.tif": "x.png"}),
    "no copies": lambda known: known.pop("copies"),
    "more": lambda known: known.update(more={}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_memory_is_not_believed(root: Path, cache: Path, damage: Callable[[dict[str, Any]], object]) -> None:
    read(root)
    (memory,) = cache.glob("*/checked.json")
    whole = memory.read_text()
    known = json.loads(whole)
    damage(known)
    memory.write_text(json.dumps(known))
    assert is_whole(read(root))
    assert memory.read_text() == whole


def test_the_memory_of_another_definition_is_not_believed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (pictures.VERSION, pictures.VERSION + 1, pictures.VERSION):
        monkeypatch.setattr(pictures, "VERSION", version)
        read(root)
        assert "checked images 8/8" in capsys.readouterr().out
        read(root)
        assert "checked images" not in capsys.readouterr().out


def test_a_full_cache_folder_is_named_with_what_to_do(root: Path, cache: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    (root / "train" / "ant" / "noise.tif").write_bytes(saved(Image.fromarray(noise), "TIFF"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(
            UserError, match=r"noise\.tif'.* cannot be written: File too large.*XDG_CACHE_HOME"
        ) as caught:
            read(root)
        gc.collect()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(cache) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    # With room again it goes on.
    assert len(read(root)) == 6
