"""Datasets: the digits, files of arrays, the parts drawn from them, and every bad input."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from fusion.base.program import UserError
from paradis_tf.data.datasets import Dataset, load
from paradis_tf.data.parts import Part

KEYS = ("x_train", "y_train", "x_test", "y_test")
SHAPE = (8, 6, 3)


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    """20 training and 8 test images of 4 classes; a change of None leaves a key out."""
    rng = np.random.default_rng(0)
    kept = {
        "x_train": rng.integers(0, 256, (20, *SHAPE), dtype=np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": rng.integers(0, 256, (8, *SHAPE), dtype=np.uint8),
        "y_test": np.arange(8) % 4,
        **changes,
    }
    return {key: value for key, value in kept.items() if value is not None}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes `arrays`, with changes, to a file."""

    def write(name: str = "set.npz", **changes: Any) -> Path:
        np.savez(tmp_path / name, **arrays(**changes))
        return tmp_path / name

    return write


def parts(dataset: Dataset) -> list[Part]:
    return [dataset.train, dataset.validation, dataset.test]


def same(one: Part, other: Part) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def test_digits_have_three_parts(digits: Dataset) -> None:
    # A fifth of 1,797 is the test part, a tenth of the other 1,438 the validation part.
    assert [len(part) for part in parts(digits)] == [1294, 144, 359]
    for part in parts(digits):
        assert part.images.shape == (len(part), 16, 16, 3)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
        assert set(part.labels) == set(range(10))
        assert (part.images == part.images[..., :1]).all()
    assert digits.class_names == tuple("0123456789")
    assert digits.image_shape == (16, 16, 3)


def test_digits_are_each_source_image_once(digits: Dataset) -> None:
    bunch = load_digits()
    # Twice the size, bilinear: each new pixel lies a quarter of an old one from its neighbour; edges repeat.
    enlarge = np.zeros((16, 8))
    for new in range(16):
        near, far = new // 2, np.clip(new // 2 + (1 if new % 2 else -1), 0, 7)
        enlarge[new, near] += 0.75
        enlarge[new, far] += 0.25
    source = enlarge @ (bunch.images * 255 / 16) @ enlarge.T
    found = np.concatenate([part.images[..., 0] for part in parts(digits)]).astype(float)
    labels = np.concatenate([part.labels for part in parts(digits)])
    assert len(found) == len(source) == 1797
    a, b = found.reshape(1797, -1), source.reshape(1797, -1)
    nearest = ((a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)).argmin(axis=1)
    assert sorted(nearest) == list(range(1797))
    np.testing.assert_array_equal(labels, bunch.target[nearest])
    # Two roundings to whole numbers.
    assert np.abs(found - source[nearest]).max() <= 1.5


def test_digits_are_deterministic(digits: Dataset) -> None:
    assert all(same(*pair) for pair in zip(parts(digits), parts(load("digits")), strict=True))


def test_seed_draws_the_validation_part_and_never_the_test_part(digits: Dataset) -> None:
    other = load("digits", seed=1)
    assert same(other.test, digits.test)
    assert not same(other.validation, digits.validation)
    assert len(other.validation) == len(digits.validation)


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9])
def test_validation_fraction(save: Callable[..., Path], fraction: float) -> None:
    given = arrays()
    dataset = load("npz", str(save()), validation_fraction=fraction)
    assert len(dataset.validation) == round(20 * fraction)
    images = np.concatenate([dataset.train.images, dataset.validation.images])
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels])
    wanted = {image.tobytes(): label for image, label in zip(given["x_train"], given["y_train"], strict=True)}
    assert len(images) == 20
    assert {image.tobytes(): label for image, label in zip(images, labels, strict=True)} == wanted
    assert same(dataset.test, Part(given["x_test"], given["y_test"]))


@pytest.mark.parametrize("axis", [(), (1,)], ids=["NHW", "NHW1"])
def test_grey_images_are_repeated(save: Callable[..., Path], axis: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    grey = {key: rng.integers(0, 256, (count, 8, 6), dtype=np.uint8) for key, count in (("train", 20), ("test", 8))}
    path = save(**{f"x_{key}": image.reshape(*image.shape, *axis) for key, image in grey.items()})
    dataset = load("npz", str(path))
    assert dataset.image_shape == SHAPE
    np.testing.assert_array_equal(dataset.test.images, np.stack([grey["test"]] * 3, axis=-1))
    channels = np.moveaxis(dataset.train.images, -1, 0)
    assert (channels == channels[0]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_labels_in_a_column_and_of_any_integer_type(save: Callable[..., Path], dtype: type) -> None:
    given = arrays()
    columns: dict[str, Any] = {key: given[key].astype(dtype)[:, None] for key in ("y_train", "y_test")}
    dataset = load("npz", str(save(**columns)))
    assert dataset.test.labels.dtype == np.int64
    assert all(same(*pair) for pair in zip(parts(dataset), parts(load("npz", str(save()))), strict=True))


def test_class_names(save: Callable[..., Path]) -> None:
    assert load("npz", str(save())).class_names == ("0", "1", "2", "3")
    names = ["cat", "dog", "ship", "Größe", "never seen"]
    dataset = load("npz", str(save(class_names=np.array(names))))
    assert dataset.class_names == tuple(names)
    assert all(type(name) is str for name in dataset.class_names)


def test_a_named_set_is_read_from_the_data_folder(save: Callable[..., Path]) -> None:
    path = save("cifar10.npz")
    dataset = load("cifar10", data_dir=str(path.parent))
    assert same(dataset.test, load("npz", str(path)).test)
    assert len(dataset.class_names) == 10
    assert dataset.class_names[:2] == ("airplane", "automobile")


def test_a_named_set_of_keras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = arrays(y_train=np.arange(20)[:, None] % 10)
    loaded = (given["x_train"], given["y_train"]), (given["x_test"], given["y_test"])
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: loaded)
    dataset = load("cifar10", data_dir=str(tmp_path))
    assert same(dataset.test, Part(given["x_test"], given["y_test"]))
    assert dataset.train.labels.shape == (18,)


@pytest.mark.parametrize("data_dir", [None, "folder"])
def test_a_named_set_that_is_nowhere(monkeypatch: pytest.MonkeyPatch, data_dir: str | None, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()

    def fail() -> None:
        raise Exception("URL fetch failure")  # as keras raises it

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fail)
    with pytest.raises(UserError, match="'fashion_mnist'.*URL fetch failure.*fashion_mnist.npz") as error:
        load("fashion_mnist", data_dir=data_dir)
    assert ("--data_dir is not given" if data_dir is None else "--data_dir=folder") in str(error.value)


def test_a_folder_that_is_not_there_is_no_reason_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: pytest.fail("downloads"))
    with pytest.raises(UserError, match=r"--data_dir=.*/typo is no folder; give a folder with cifar10\.npz"):
        load("cifar10", data_dir=str(tmp_path / "typo"))


def test_imagenette64_is_a_file_and_never_downloaded(
    save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    path = save("imagenette64.npz", class_names=np.array(["tench", "horn", "church", "golf ball"]))
    dataset = load("imagenette64", data_dir=str(path.parent))
    assert same(dataset.test, load("npz", str(path)).test)
    assert dataset.class_names == ("tench", "horn", "church", "golf ball")
    for data_dir, where in ((None, "--data_dir is not given"), ("folder", "no imagenette64.npz in --data_dir=folder")):
        with pytest.raises(
            UserError, match=rf"{where}, and it cannot be downloaded; give a folder with imagenette64.npz"
        ):
            load("imagenette64", data_dir=data_dir)


def test_a_file_may_bring_its_validation_part(save: Callable[..., Path]) -> None:
    held = {"x_validation": images(5, *SHAPE), "y_validation": np.arange(5) % 4}
    dataset = load("npz", str(save(**held)), validation_fraction=0.5)
    assert [len(part) for part in parts(dataset)] == [20, 5, 8]
    assert same(dataset.validation, Part(held["x_validation"], held["y_validation"]))
    for changes, sentence in (
        ({**held, "y_validation": None}, "lacks y_validation"),
        ({**held, "x_validation": images(5, 6, 8, 3)}, r"\(6, 8, 3\) in x_validation"),
        ({**held, "y_validation": np.arange(5)}, "y_validation holds label 4, and y_train knows 0 to 3"),
    ):
        with pytest.raises(UserError, match=sentence):
            load("npz", str(save(**changes)))


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "folder without a path": ({"name": "folder", "image_size": 8}, "'folder' needs the path of a folder"),
    "prepared without a path": ({"name": "prepared"}, "'prepared' needs the path of a folder"),
    "folder without a size": ({"name": "folder", "path": "x"}, "needs config.dataset.image_size"),
    "size of arrays": ({"name": "digits", "image_size": 32}, "image_size is 32, but only 'folder' and 'prepared'"),
    "negative size": ({"name": "folder", "path": "x", "image_size": -1}, "image_size is -1; it lies between"),
    "huge size": ({"name": "folder", "path": "x", "image_size": 10**6}, "image_size is 1000000"),
    "classes of a folder": (
        {"name": "folder", "path": "x", "image_size": 8, "classes": 5},
        "'folder' names its classes",
    ),
    "classes of a prepared set": ({"name": "prepared", "path": "x", "classes": 5}, "'prepared' names its classes"),
    "classes of a TFDS set": ({"name": "tfds:mnist", "classes": 5}, "'tfds:mnist' names its classes itself; it is 0"),
    "skipping": ({"name": "npz", "path": "x", "skip_broken": True}, "only dataset 'folder' takes it, not 'npz'"),
}


@pytest.mark.parametrize(("options", "sentence"), OPTIONS.values(), ids=OPTIONS)
def test_options_of_other_sets_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load(**options)
    assert sentence in str(caught.value)


LABELS = np.arange(20) % 5
GAPS: dict[str, tuple[np.ndarray, str]] = {
    "from 1": (LABELS + 1, "no image of class '0', and its largest label is 5; labels count from 0 without gaps"),
    "even": (2 * LABELS, "no image of class '1', '3', '5', '7', and its largest label is 8"),
    "a stray one": (
        np.r_[LABELS[:19], 99_999],
        "no image of class '5', '6', '7', '8', '9' and 99,989 more, and its largest label is 99999",
    ),
    "one gap": (np.where(LABELS == 2, 1, LABELS), "no image of class '2', and its largest label is 4"),
    "one label": (np.full(20, 3), "no image of class '0', '1', '2', and its largest label is 3"),
}


@pytest.mark.parametrize(("labels", "sentence"), GAPS.values(), ids=GAPS)
def test_classes_without_images_are_named_and_taken_if_they_are_meant(
    save: Callable[..., Path], labels: np.ndarray, sentence: str
) -> None:
    path = str(save(y_train=labels, y_test=labels[-8:]))
    count = int(labels.max()) + 1
    with pytest.raises(UserError, match="dataset 'npz': y_train has") as caught:
        load("npz", path)
    assert sentence in str(caught.value)
    assert f"if that is meant, give --config.dataset.classes={count}." in str(caught.value)
    for classes in (count, min(count + 3, 100_000)):
        dataset = load("npz", path, classes=classes)
        assert dataset.class_names == tuple(map(str, range(classes)))
        assert dataset.architecture_options["classes"] == classes
        np.testing.assert_array_equal(dataset.test.labels, labels[-8:])
    if count > 2:
        with pytest.raises(UserError, match=rf"classes is {count - 1}, and .* label {count - 1} in y_train; it is at"):
            load("npz", path, classes=count - 1)


def test_a_test_label_that_training_lacks_is_taken_if_it_is_meant(save: Callable[..., Path]) -> None:
    path = str(save(y_test=np.arange(8)))
    with pytest.raises(UserError, match="label 7, and y_train knows 0 to 3; .* --config.dataset.classes=8"):
        load("npz", path)
    assert len(load("npz", path, classes=8).class_names) == 8


def test_named_classes_without_images_are_told(save: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    names = np.array(["cat", "dog", "ship", "car", "emu", "ant"])
    load("npz", str(save()))
    assert capsys.readouterr().out == ""
    path = str(save(class_names=names))
    assert load("npz", path).class_names == tuple(names)
    sentence = "dataset 'npz': y_train has no image of class 'emu', 'ant'; the network cannot learn it\n"
    assert capsys.readouterr().out == sentence
    assert load("npz", path, classes=6).class_names == tuple(names)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="config.dataset.classes is 7, and dataset 'npz' names 6 classes"):
        load("npz", path, classes=7)


@pytest.mark.parametrize("classes", [-1, 1, 100_001])
def test_a_number_of_classes_out_of_range_is_refused(save: Callable[..., Path], classes: int) -> None:
    with pytest.raises(UserError, match=rf"config.dataset.classes is {classes}; it lies between 2 and 100000"):
        load("npz", str(save()), classes=classes)


def images(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


BAD_ARRAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    **{f"no {key}": ({key: None}, [f"lacks {key};", *KEYS]) for key in KEYS},
    "nothing": (dict.fromkeys(KEYS), ["lacks x_train, y_train, x_test, y_test"]),
    "pickled images": ({"x_train": np.array([{}] * 20)}, ["plain arrays"]),
    "pickled labels": ({"y_test": np.array([{}] * 8)}, ["plain arrays"]),
    "pickled names": ({"class_names": np.array(["a", {}], object)}, ["plain arrays"]),
    "float images": ({"x_train": images(20, 8, 6, 3, dtype=np.float32)}, ["x_train", "float32", "uint8"]),
    "signed images": ({"x_test": images(8, 8, 6, 3, dtype=np.int64)}, ["x_test", "int64", "uint8"]),
    "flat images": ({"x_train": images(20, 48)}, ["x_train", "(20, 48)", "(n, height, width)"]),
    "one number": ({"x_train": np.uint8(3)}, ["x_train", "()", "(n, height, width)"]),
    "video": ({"x_test": images(8, 2, 8, 6, 3)}, ["x_test", "(8, 2, 8, 6, 3)"]),
    "channels first": ({"x_train": images(20, 3, 8, 6)}, ["x_train", "(20, 3, 8, 6)", "(n, height, width, 3)"]),
    "four channels": ({"x_train": images(20, 8, 6, 4)}, ["x_train", "(20, 8, 6, 4)"]),
    "no images": ({"x_train": images(0, 8, 6, 3), "y_train": np.arange(0)}, ["x_train is empty", "at least one"]),
    "no test images": ({"x_test": images(0, 8, 6, 3), "y_test": np.arange(0)}, ["x_test is empty"]),
    "no pixels": ({"x_train": images(20, 0, 6, 3)}, ["x_train is empty", "(20, 0, 6, 3)"]),
    "other size": ({"x_test": images(8, 6, 8, 3)}, ["(8, 6, 3)", "(6, 8, 3)", "alike"]),
    "too few labels": ({"y_train": np.arange(19) % 4}, ["x_train has 20", "y_train 19"]),
    "too many labels": ({"y_test": np.arange(9) % 4}, ["x_test has 8", "y_test 9"]),
    "no labels": ({"y_test": np.arange(0)}, ["x_test has 8", "y_test 0"]),
    "negative label": ({"y_train": np.arange(20) - 2}, ["y_train", "label -2", "from 0"]),
    "negative test label": ({"y_test": np.arange(8) - 1}, ["y_test", "label -1", "from 0"]),
    "unknown test label": ({"y_test": np.arange(8)}, ["y_test", "label 7", "0 to 3"]),
    "unnamed label": ({"class_names": np.array(["a", "b", "c"])}, ["label 3", "3 classes"]),
    "unnamed test label": ({"y_test": np.arange(8), "class_names": np.array(list("abcd"))}, ["label 7", "4 classes"]),
    "too large label": ({"y_train": np.r_[np.arange(19), 100_000]}, ["y_train", "label 100000", "below 100000"]),
    "too large test label": ({"y_test": np.r_[np.arange(7), 2**40]}, ["y_test", f"label {2**40}", "below 100000"]),
    "label of 64 bits": (
        {"y_train": np.array([*range(19), 2**63 + 3], np.uint64)},
        ["y_train", f"label {2**63 + 3}", "below 100000"],
    ),
    "float labels": ({"y_train": np.arange(20) / 4}, ["y_train", "float64", "one integer"]),
    "bool labels": ({"y_test": np.arange(8) > 3}, ["y_test", "bool", "one integer"]),
    "text labels": ({"y_train": np.array(["cat"] * 20)}, ["y_train", "<U3", "one integer"]),
    "one-hot labels": ({"y_train": np.eye(20, dtype=int)}, ["y_train", "(20, 20)", "one integer"]),
    "one label": ({"y_train": np.int64(3)}, ["y_train", "()", "one integer"]),
    "one name": ({"class_names": np.array("abcd")}, ["class_names", "<U4 ()", "one text"]),
    "pairs of names": ({"class_names": np.array([["a", "b"]] * 4)}, ["class_names", "(4, 2)", "one text"]),
    "float names": ({"class_names": np.arange(4) / 2}, ["class_names", "float64", "one text"]),
    "bytes names": ({"class_names": np.array([b"a", b"b", b"c", b"d"])}, ["class_names", "|S1", "one text"]),
}


@pytest.mark.parametrize(("changes", "words"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused(save: Callable[..., Path], changes: dict[str, Any], words: list[str]) -> None:
    path = save(**changes)
    with pytest.raises(UserError) as error:
        load("npz", str(path))
    message = str(error.value)
    assert "'npz'" in message or str(path) in message
    assert [word for word in words if word not in message] == []


def test_a_label_beyond_the_known_classes_is_refused(save: Callable[..., Path]) -> None:
    path = save("fashion_mnist.npz", y_train=np.arange(20) % 11)
    with pytest.raises(UserError, match="'fashion_mnist': label 10 .* 10 classes"):
        load("fashion_mnist", data_dir=str(path.parent))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.npz does not exist"):
        load("npz", str(tmp_path / "none.npz"))


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not a zip", b"\x93NUMPY", npy(np.zeros(3)), b"\0" * 1000, pickle.dumps({"a": 1})],
    ids=["empty", "start of a zip", "text", "start of an array", "array", "zeros", "pickle"],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="set.npz is not a readable .npz of plain arrays"):
        load("npz", str(path))


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a readable .npz"):
        load("npz", str(tmp_path))


def test_every_truncation_is_refused(save: Callable[..., Path]) -> None:
    path = save()
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="is not a readable .npz"):
            load("npz", str(path))


def test_changed_bytes_are_noticed(save: Callable[..., Path]) -> None:
    path = save()
    whole = path.read_bytes()
    start = whole.index(arrays()["x_train"].tobytes())
    for place in (start, start + 500):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(UserError, match="is not a readable .npz"):
            load("npz", str(path))


def test_no_changed_byte_of_a_compressed_file_changes_the_data(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays())
    whole, wanted = path.read_bytes(), parts(load("npz", str(path)))
    refused = 0
    for place in range(0, len(whole), 17):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            found = parts(load("npz", str(path)))
        except UserError:
            refused += 1
        else:
            # A byte that no reader looks at, such as one of a date.
            assert all(same(*pair) for pair in zip(found, wanted, strict=True))
    assert refused > len(whole) / 17 * 0.8


@pytest.mark.parametrize(("place", "value"), [(0, 1), (2, 99)], ids=["encrypted", "unknown compression"])
def test_an_archive_that_python_cannot_unpack_is_refused(save: Callable[..., Path], place: int, value: int) -> None:
    path = save()
    content = bytearray(path.read_bytes())
    # The flags, and two bytes on the compression, in each header of the archive.
    for signature, flags in ((rb"PK\x01\x02", 8), (rb"PK\x03\x04", 6)):
        for header in list(re.finditer(signature, content)):
            content[header.start() + flags + place] = value
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a readable .npz"):
        load("npz", str(path))


@pytest.mark.parametrize("name", ["", "mnist", "Digits", "digits ", "../digits"])
def test_an_unknown_set_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="digits, npz, cifar10, cifar100, fashion_mnist") as error:
        load(name)
    assert f"dataset {name!r} is unknown" in str(error.value)


def test_path_belongs_to_npz(save: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"config\.dataset\.path.*empty"):
        load("npz")
    for name in ("digits", "cifar10"):
        with pytest.raises(UserError, match=r"config\.dataset\.path is 'set\.npz'.*'npz'"):
            load(name, "set.npz")


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), float("inf"), 1e-9, 0.999])
def test_a_fraction_that_leaves_no_part_is_refused(save: Callable[..., Path], fraction: float) -> None:
    with pytest.raises(UserError, match=rf"validation_fraction (is )?{fraction}\b"):
        load("npz", str(save()), validation_fraction=fraction)


@pytest.mark.parametrize("seed", [-1, 2**31 - 1, 2**40])
def test_a_seed_out_of_range_is_refused(save: Callable[..., Path], seed: int) -> None:
    with pytest.raises(UserError, match=rf"seed is {seed}; it lies between 0 and 2147483646"):
        load("npz", str(save()), seed=seed)


@pytest.mark.parametrize(("name", "shape"), [("cifar10", (32, 32, 3)), ("fashion_mnist", (28, 28, 3))])
def test_real_sets(name: str, shape: tuple[int, int, int]) -> None:
    folder = os.environ.get("PARADIS_DATA_DIR", "")
    if not (Path(folder) / f"{name}.npz").exists():
        pytest.skip(f"PARADIS_DATA_DIR names no folder with {name}.npz")
    dataset = load(name, data_dir=folder)
    assert dataset.image_shape == shape
    assert len(set(dataset.class_names)) == 10
    for part in parts(dataset):
        assert set(part.labels) == set(range(10))
        # Pictures, not blanks.
        assert part.images.std() > 30
    assert len(dataset.validation) == round(0.1 * (len(dataset.train) + len(dataset.validation)))


def test_a_file_may_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"{tmp_path}/none\.npz"):
        load("npz", path="~/none.npz")
    with pytest.raises(UserError, match="this machine has no user 'nobody-here'"):
        load("npz", path="~nobody-here/none.npz")
