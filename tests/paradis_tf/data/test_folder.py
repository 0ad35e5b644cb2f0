"""Folders of class folders: their parts, their classes, and images that cannot be decoded."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusion.base.pictures import ENDS
from fusion.base.program import UserError
from paradis_tf.data.datasets import load
from paradis_tf.data.encoded import EncodedImages, central, decode
from paradis_tf.data.folder import listing
from paradis_tf.data.parts import part_names

Make = Callable[..., Path]


def read(root: Path, **options: object):
    return load("folder", str(root), image_size=24, **options)  # type: ignore[arg-type]


def test_images_and_labels(image_folder: Make) -> None:
    root = image_folder()
    dataset = read(root, validation_fraction=0.25)
    assert dataset.class_names == ("ant", "bee", "wasp")
    assert dataset.image_shape == (24, 24, 3)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [9, 3, 4]
    paths = sorted((root / "val").glob("*/*"))
    np.testing.assert_array_equal(
        dataset.test.labels, [("ant", "bee", "wasp").index(path.parent.name) for path in paths]
    )
    assert dataset.test.labels.dtype == np.int64
    expected = [central(decode(path.read_bytes()), 24).numpy() for path in paths]
    assert isinstance(dataset.test.images, EncodedImages)
    np.testing.assert_array_equal(dataset.test.images[:], expected)
    # PNG and BMP are lossless: Pillow sees the same whole image.
    for place, path in enumerate(paths):
        if path.suffix in (".png", ".bmp"):
            np.testing.assert_array_equal(dataset.test.images.decode(place), np.asarray(Image.open(path)))


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_names_of_classes_are_utf_8_in_every_locale(image_folder: Make, locale: str) -> None:
    root = image_folder()
    for part in ("train", "val"):
        (root / part / "wasp").rename(root / part / "猫")
    code = "import sys; from paradis_tf.data import folder; print(ascii(folder.listing(sys.argv[1])[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env=os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith(", '\\u732b')\n"), done.stderr


def test_the_seed_draws_the_validation_part(image_folder: Make) -> None:
    root = image_folder()
    datasets = [read(root, seed=seed) for seed in (0, 0, 1)]
    held = [dataset.validation.images[:].tobytes() for dataset in datasets]
    assert held[0] == held[1] != held[2]
    train = {image.tobytes() for image in datasets[0].train.images[:]}
    assert len(train) == 11 and held[0] not in train


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_validation_folder_is_used_as_it_is_where_there_is_a_test_folder(image_folder: Make, name: str) -> None:
    dataset = read(image_folder(counts={"train": 6, name: 5, "test": 3}), validation_fraction=0.5)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [6, 5, 3]


def test_what_is_no_image_is_left_out_and_counted(image_folder: Make, capsys: pytest.CaptureFixture[str]) -> None:
    root = image_folder()
    ant = root / "train" / "ant"
    for name in ("notes.txt", "._00.jpg", ".DS_Store", *(f"{number}.xyz" for number in range(60))):
        (ant / name).write_text("no image")
    picture = next((root / "val" / "bee").iterdir())
    for folder in (".ipynb_checkpoints", ".thumbnails", "below/.Trash-1000"):
        (ant / folder).mkdir(parents=True)
        shutil.copy(picture, ant / folder / "0.png")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "list.txt").write_text("")
    shutil.copy(picture, root / "val" / "1.png")
    (root / "docs").mkdir()
    os.mkfifo(ant / "x.png")
    assert [len(files.paths) for files in listing(str(root))[0].values()] == [12, 4]
    assert capsys.readouterr().out == (
        f"image folder '{root}': left out 60 .xyz, 2 .txt, 6 hidden, 1 pipe or device and 1 image beside the class "
        "folders\n"
    )


@pytest.mark.parametrize(
    "target",
    [".", "..", "../../..", "../bee", "../../val", "../../val/ant", "../../val/bee/deep", "../../val/bee/.."]
    + ["../../val/wasp", "../../../wasps/deep", "../../../elsewhere"],
)
def test_a_folder_is_walked_once(image_folder: Make, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = image_folder()
    # Of the other part a folder below a class, and a class folder that is a link; and one of neither part.
    deep, elsewhere = root / "val" / "bee" / "deep", root.parent / "elsewhere"
    for folder in (deep, elsewhere, root / "val" / "wasp" / "deep"):
        folder.mkdir()
        shutil.copy(root / "val" / "bee" / "01.png", folder / "1.png")
    (root / "val" / "wasp").rename(root.parent / "wasps")
    (root / "val" / "wasp").symlink_to("../../wasps")
    expected = listing(str(root))[0]
    assert capsys.readouterr().out == ""
    (root / "train" / "ant" / "link").symlink_to(target)
    found = listing(str(root))[0]
    added = [path for path in found["train"].paths if path not in expected["train"].paths]
    assert len(added) == (target in ("../../..", "../../../elsewhere"))
    assert [str(path) for path in found["test"].paths] == [str(path) for path in expected["test"].paths]
    said = capsys.readouterr().out
    assert ("met before\n" in said) == (target != "../../../elsewhere")
    assert ("left out 1 folder met before\n" in said) == (not added)


def test_linked_class_folders_and_parts_are_walked(image_folder: Make) -> None:
    root = image_folder()
    shutil.rmtree(root / "val")
    (root / "val").symlink_to("train")
    (root / "train" / "bee").rename(root / "bees")
    (root / "train" / "bee").symlink_to("../bees")
    (root / "train" / "ant" / "deep").mkdir()
    shutil.move(next((root / "train" / "ant").glob("*.*")), root / "train" / "ant" / "deep")
    parts, classes = listing(str(root))
    assert classes == ("ant", "bee", "wasp")
    np.testing.assert_array_equal(parts["train"].labels, parts["test"].labels)
    assert len(parts["train"].labels) == 12


def test_a_class_folder_within_one_of_another_part(image_folder: Make) -> None:
    root = image_folder()
    held = root / "train" / "ant" / "held"
    (root / "val" / "ant").rename(held)
    (root / "val" / "ant").symlink_to("../train/ant/held")
    (held / "deep").mkdir()
    shutil.copy(next(held.glob("*.*")), held / "deep" / "1.png")
    parts = listing(str(root))[0]
    assert (len(parts["train"].paths), len(parts["test"].paths)) == (12, 5)


def test_images_in_folders_within_a_class_folder(image_folder: Make) -> None:
    root = image_folder()
    (root / "train" / "bee" / "deep" / "deeper").mkdir(parents=True)
    shutil.copy(next((root / "val" / "bee").iterdir()), root / "train" / "bee" / "deep" / "deeper" / "x.png")
    assert (listing(str(root))[0]["train"].labels == 1).sum() == 5


PARTS: dict[str, tuple[list[str], list[str], dict[str, str] | str]] = {
    "ImageNet": (["train", "val"], [], {"train": "train", "test": "val"}),
    "three": (["test", "train", "validation"], [], {"train": "train", "validation": "validation", "test": "test"}),
    "two": (["test", "train", "extra"], [], {"train": "train", "test": "test"}),
    "some": (["test", "train", "val"], ["train", "val"], {"train": "train", "test": "val"}),
    "both": (["train", "val", "validation"], [], "has both 'val' and 'validation'"),
    "train alone": (["train", "other"], [], "has the parts train; it needs 'train', and 'val', 'validation' or 'test'"),
    "no train": (["test", "val"], [], "has the parts test, val"),
    "none": ([], [], "has the parts none"),
    "wanted": (["train", "val"], ["train", "test"], "has no part 'test'; it has train, val"),
    "unusable": (["train", "val", "extra"], ["extra"], "has no part 'extra'"),
}


@pytest.mark.parametrize(("found", "wanted", "expected"), PARTS.values(), ids=PARTS)
def test_parts(found: list[str], wanted: list[str], expected: dict[str, str] | str) -> None:
    if isinstance(expected, dict):
        assert part_names("set", found, wanted) == expected
        return
    with pytest.raises(UserError) as caught:
        part_names("set", found, wanted)
    assert expected in str(caught.value)


def empty_class(root: Path) -> str:
    (root / "train" / "moth").mkdir()
    (root / "val" / "moth").mkdir()
    (root / "val" / "moth" / "a.txt").write_text("x")
    return f"class folder '{root / 'train' / 'moth'}' holds no images"


def class_only_in_train(root: Path) -> str:
    shutil.rmtree(root / "val" / "bee")
    return "train has 'bee' that val lacks"


def classes_only_in_val(root: Path) -> str:
    for name in "abcdefg":
        (root / "val" / name).mkdir()
    return "val has 'a', 'b', 'c', 'd', 'e' and 2 more that train lacks"


def flat_part(root: Path) -> str:
    (root / "test").mkdir()
    shutil.copy(next((root / "val" / "bee").iterdir()), root / "test" / "1.png")
    return f"'{root / 'test'}' holds no class folders"


def no_images(root: Path) -> str:
    for path in root.glob("*/*/*"):
        path.unlink()
    return f"holds no images ({', '.join(ENDS)})"


def nothing(root: Path) -> str:
    shutil.rmtree(root)
    root.mkdir()
    return "has the parts none"


def file_instead(root: Path) -> str:
    shutil.rmtree(root)
    root.write_text("")
    return "does not exist or is no folder"


def folder_of_two_classes(root: Path) -> str:
    for part in ("train", "val"):
        (root / part / "bees").symlink_to("bee")
    return f"class folders '{root / 'train' / 'bee'}' and '{root / 'train' / 'bees'}' are one folder"


def strange_name(root: Path) -> str:
    for part in ("train", "val"):
        shutil.copytree(root / part / "ant", root / part / "two\nlines")
    return "class folder 'two\\nlines' is no single line"


@pytest.mark.parametrize(
    "spoil",
    [
        empty_class,
        class_only_in_train,
        classes_only_in_val,
        flat_part,
        no_images,
        nothing,
        file_instead,
        folder_of_two_classes,
        strange_name,
    ],
)
def test_bad_folders_are_refused(image_folder: Make, spoil: Callable[[Path], str]) -> None:
    root = image_folder()
    sentence = spoil(root)
    with pytest.raises(UserError) as caught:
        read(root)
    assert sentence in str(caught.value)


def spoiled(root: Path) -> list[Path]:
    """Damages four images in four ways."""
    paths = sorted((root / "train").glob("*/*"))[:3] + sorted((root / "val").glob("ant/*"))[:1]
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    paths[1].write_bytes(b"")
    paths[2].write_text("<html>not found</html>")
    paths[3].unlink()
    paths[3].symlink_to("nowhere")
    return paths


def test_broken_images_are_named_and_counted(image_folder: Make) -> None:
    root = image_folder()
    paths = spoiled(root)
    with pytest.raises(UserError, match="4 of 16 images cannot be used") as caught:
        read(root)
    assert [path for path in paths if repr(str(path)) not in str(caught.value)] == []


def test_broken_images_are_left_out_if_that_is_asked_for(
    image_folder: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    root = image_folder()
    broken = sorted((root / "train").glob("*/*"))[0]
    broken.write_bytes(b"nothing")
    dataset = read(root, skip_broken=True)
    assert len(dataset.train) + len(dataset.validation) == 11
    reason = f"file '{broken}' is not an image that can be read"
    assert f"1 of 16 images cannot be used: '{broken}' ({reason}); they are left out" in capsys.readouterr().out
    assert dataset.train.images[:].shape == (10, 24, 24, 3)


def test_a_class_of_broken_images_is_refused(image_folder: Make) -> None:
    root = image_folder()
    for path in (root / "val" / "wasp").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"{root / 'val'}: no image of 'wasp' can be used"):
        read(root, skip_broken=True)


def test_the_check_is_remembered_until_a_file_changes(
    image_folder: Make, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = image_folder()
    said = "checked images 16/16"
    read(root)
    assert said in capsys.readouterr().out
    (memory,) = cache.glob("*/*")
    assert {key for key, value in json.loads(memory.read_text()).items() if value} == {"fingerprint"}
    read(root)
    assert said not in capsys.readouterr().out
    path = next((root / "val").glob("*/*"))
    os.utime(path, ns=(1, 1))
    read(root)
    assert said in capsys.readouterr().out


def test_the_memory_of_an_older_version_is_not_believed(image_folder: Make, cache: Path) -> None:
    root = image_folder()
    read(root)
    (memory,) = cache.glob("*/*")
    fingerprint = json.loads(memory.read_text())["fingerprint"]
    spoiled(root)
    place = hashlib.sha256(str(root.resolve()).encode()).hexdigest()
    (cache / f"checked-{place[:16]}-{fingerprint}.json").write_text("[]")
    memory.unlink()
    with pytest.raises(UserError, match="4 of 16"):
        read(root)


def test_without_a_cache_folder_the_check_is_made_each_time(image_folder: Make, cache: Path) -> None:
    cache.parent.write_text("a file where the folder would be")
    root = image_folder()
    assert len(read(root).test) == len(read(root).test) == 4


@pytest.mark.parametrize("home", ["", "/proc", "file", None])
def test_without_a_home_the_check_is_made_each_time(
    image_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "" if home is None else home)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    if home is None:
        # As for a number without a name, in a container.
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    root = image_folder()
    before = sorted(tmp_path.iterdir())
    assert len(read(root).test) == len(read(root).test) == 4
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_memory_is_not_believed(image_folder: Make, cache: Path) -> None:
    root = image_folder()
    spoiled(root)
    for content in ("", "{", "{}", "null", "[" * 99999):
        with pytest.raises(UserError, match="4 of 16"):
            read(root)
        (memory,) = cache.glob("*/*")
        memory.write_text(content)
