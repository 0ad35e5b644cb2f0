"""Sets that are arrays in memory: the digits, the named sets, files of arrays; and their checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.data.parts import some

_KEYS = ("x_train", "y_train", "x_test", "y_test")
# A file may bring its own validation part.
_VALIDATION_KEYS = ("x_validation", "y_validation")
MOST_CLASSES = 100_000
_DIGITS_TEST_FRACTION = 0.2
_DIGITS_SPLIT_SEED = 20
_DIGITS_SIDE = 16


def digits() -> dict[str, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits, enlarged to 16x16; a fixed fifth is the test part."""
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    size = (_DIGITS_SIDE, _DIGITS_SIDE)
    large = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in grey]
    images = _checked_images("digits", "images", np.stack(large))
    labels = bunch.target.astype(np.int64)
    order = np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(labels))
    test, train = np.split(order, [round(len(labels) * _DIGITS_TEST_FRACTION)])
    return {
        "x_train": images[train],
        "y_train": labels[train],
        "x_test": images[test],
        "y_test": labels[test],
    }


def named(name: str, data_dir: str | None) -> dict[str, np.ndarray]:
    """`<name>.npz` in `data_dir`, or else what `keras.datasets` gives for the name, which may download.

    Raises:
      UserError: `data_dir` is no folder, neither is there, or the file is malformed.
    """
    remedy = f"give a folder with {name}.npz ({', '.join(_KEYS)})."
    if data_dir:
        if not Path(data_dir).is_dir():
            raise UserError(f"--data_dir={data_dir} is no folder; {remedy}")
        path = Path(data_dir) / f"{name}.npz"
        if path.exists():
            return npz(path)
    import keras

    where = f"there is no {name}.npz in --data_dir={data_dir}" if data_dir else "--data_dir is not given"
    source = getattr(keras.datasets, name, None)
    if source is None:
        raise UserError(f"dataset {name!r}: {where}, and it cannot be downloaded; {remedy}")
    try:
        (x_train, y_train), (x_test, y_test) = source.load_data()
    except Exception as error:  # keras raises bare Exception when a download fails
        raise UserError(
            f"dataset {name!r}: {where}, and keras.datasets could not provide it ({error}); {remedy}"
        ) from None
    return checked(name, dict(zip(_KEYS, (x_train, y_train, x_test, y_test), strict=True)))


def npz(path: Path) -> dict[str, np.ndarray]:
    """A file of x_train, y_train, x_test, y_test, optionally x_validation, y_validation and class_names.

    Raises:
      UserError: it is missing or malformed.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in (*_KEYS, *_VALIDATION_KEYS, "class_names")}
    except FileNotFoundError:
        raise UserError(f"data file {path} does not exist.") from None
    except Exception as error:  # zipfile, zlib and NumPy each have their own ways of failing
        raise UserError(f"data file {path} is not a readable .npz of plain arrays ({error}).") from None
    keys = (*_KEYS, *_VALIDATION_KEYS) if any(key in arrays for key in _VALIDATION_KEYS) else _KEYS
    missing = [key for key in keys if key not in arrays]
    if missing:
        raise UserError(f"data file {path} lacks {', '.join(missing)}; it needs {', '.join(keys)}.")
    return checked(str(path), arrays)


def checked(source: str, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a source, images as uint8 RGB (n, height, width, 3) and labels as int64 (n,).

    Raises:
      UserError: they are of other types or shapes, do not belong together, or hold a label out of range.
    """
    kept = {key: np.asarray(value) for key, value in arrays.items()}
    parts = [part for part in ("train", "validation", "test") if f"x_{part}" in kept]
    for part in parts:
        x, y = f"x_{part}", f"y_{part}"
        kept[x] = _checked_images(source, x, kept[x])
        kept[y] = _checked_labels(source, y, kept[y])
        if len(kept[y]) != len(kept[x]):
            raise UserError(f"{source}: {x} has {len(kept[x])} images and {y} {len(kept[y])} labels.")
        if kept["x_train"].shape[1:] != kept[x].shape[1:]:
            raise UserError(
                f"{source}: images are {kept['x_train'].shape[1:]} in x_train and {kept[x].shape[1:]} in {x}; "
                "they must be alike."
            )
    if "class_names" in kept:
        _check_class_names(source, kept["class_names"])
    return kept


def class_names(
    source: str, labels: Mapping[str, np.ndarray], names: Sequence[str] | None, classes: int
) -> tuple[str, ...]:
    """The names of the classes; of classes without names their numbers.

    With names, or where the user gives their number, classes may be without training images, which is printed or as he
    says. Otherwise that is refused, as labels that do not count from 0 would be outputs that nothing teaches.

    Args:
      source: what to call it in an error.
      labels: of each part, `y_train` and so on, of `checked`.
      names: those that the set brings; None if it brings none.
      classes: how many the user says there are; 0 leaves it to the names or to the labels of training images.

    Raises:
      UserError: a label beyond the classes, a number that is not that of the names, or classes without training images.
    """
    largest = max(labels, key=lambda key: int(labels[key].max()))
    most = int(labels[largest].max())
    if names is not None and classes not in (0, len(names)):
        raise UserError(f"config.dataset.classes is {classes}, and {source} names {len(names)} classes; give 0.")
    if names is not None and most >= len(names):
        raise UserError(f"{source}: label {most} is out of range; it names {len(names)} classes.")
    if classes and most >= classes:
        raise UserError(
            f"config.dataset.classes is {classes}, and {source} holds label {most} in {largest}; it is at least "
            f"{most + 1}."
        )
    known = classes or (int(labels["y_train"].max()) + 1 if names is None else len(names))
    meant = f"if that is meant, give --config.dataset.classes={most + 1}."
    if most >= known:
        raise UserError(f"{source}: {largest} holds label {most}, and y_train knows 0 to {known - 1}; {meant}")
    texts = tuple(map(str, range(known) if names is None else names))
    empty = np.flatnonzero(np.bincount(labels["y_train"], minlength=known) == 0)
    if len(empty) and not classes:
        sentence = f"{source}: y_train has no image of class {some([texts[place] for place in empty])}"
        if names is None:
            raise UserError(
                f"{sentence}, and its largest label is {most}; labels count from 0 without gaps, or, {meant}"
            )
        say(f"{sentence}; the network cannot learn it")
    return texts


def _checked_labels(source: str, key: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{source}: {key} is {labels.dtype} {labels.shape}; it takes one integer for each image.")
    illegal = labels[(labels < 0) | (labels >= MOST_CLASSES)]
    if len(illegal):
        raise UserError(f"{source}: {key} holds label {illegal[0]}; labels count from 0 and stay below {MOST_CLASSES}.")
    return labels.astype(np.int64)


def _check_class_names(source: str, names: np.ndarray) -> None:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise UserError(f"{source}: class_names is {names.dtype} {names.shape}; it takes one text for each class.")
    if any(not str(name).strip() or not str(name).isprintable() for name in names):
        raise UserError(f"{source}: class_names holds a name that is empty or no single line of text.")


def _checked_images(source: str, key: str, images: np.ndarray) -> np.ndarray:
    grey = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 1)
    if images.dtype != np.uint8 or not (grey or (images.ndim == 4 and images.shape[3] == 3)):
        raise UserError(
            f"{source}: {key} is {images.dtype} {images.shape}; it takes uint8 images (n, height, width, 3), "
            "(n, height, width, 1) or (n, height, width)."
        )
    if not images.size:
        raise UserError(f"{source}: {key} is empty, {images.shape}; it takes at least one image.")
    return np.repeat(images.reshape(*images.shape[:3], 1), 3, axis=3) if grey else images
