"""Where images and labels come from: their files, their checks, their parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.fusion.program import UserError

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MOST_CLASSES = 100_000
_DIGITS_TEST_FRACTION = 0.2
_DIGITS_SPLIT_SEED = 20
_DIGITS_SIDE = 16
_CLASS_NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "fashion_mnist": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
}


@dataclass(frozen=True)
class Part:
    """Images and labels of one part of a dataset.

    Attributes:
      images: uint8 (n, height, width, 3), RGB, 0..255.
      labels: int64 (n,), class indices.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The three parts of a dataset. Training and conversion see `train` and `validation`, evaluation sees `test`."""

    train: Part
    validation: Part
    test: Part
    class_names: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def architecture_options(self) -> dict[str, Any]:
        """What an architecture takes from the data."""
        return {"image_shape": self.image_shape, "classes": len(self.class_names)}


def load(
    name: str,
    path: str = "",
    data_dir: str | None = None,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Reads a dataset and holds a validation part out of its training part.

    Args:
      name: `digits` (scikit-learn's 1,797 handwritten digits, enlarged to 16x16; a fixed fifth is the test part),
        `cifar10`, `cifar100`, `fashion_mnist`, or `npz`.
      path: of `npz` only: a file with x_train, y_train, x_test, y_test (uint8 NHWC or NHW images, integer
        labels) and optionally class_names. Grey images are repeated to RGB.
      data_dir: folder that may hold `<name>.npz` of that form; otherwise `keras.datasets` is asked, which may
        download.
      validation_fraction: of the training part, in (0, 1); the images are drawn with `seed`.
      seed: draws the validation part.

    Raises:
      UserError: an unknown name, a missing or malformed file, or a fraction or seed out of range.
    """
    sources: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "digits": _digits,
        "npz": lambda: _npz(Path(path)),
        **{known: lambda: _named(name, data_dir) for known in ("cifar10", "cifar100", "fashion_mnist")},
    }
    if name not in sources:
        raise UserError(f"dataset {name!r} is unknown; known are {', '.join(sources)}.")
    if name == "npz" and not path:
        raise UserError("dataset 'npz' needs the path of a file in config.dataset.path; it is empty.")
    if name != "npz" and path:
        raise UserError(f"config.dataset.path is {path!r}, but only dataset 'npz' takes one.")
    if not 0 <= seed < 2**31 - 1:
        raise UserError(f"seed is {seed}; it lies between 0 and {2**31 - 2}.")
    if not 0 < validation_fraction < 1:
        raise UserError(f"validation_fraction is {validation_fraction}; it lies between 0 and 1.")
    return _split(name, sources[name](), validation_fraction, seed)


def _split(name: str, arrays: dict[str, np.ndarray], fraction: float, seed: int) -> Dataset:
    held = round(len(arrays["y_train"]) * fraction)
    if not 0 < held < len(arrays["y_train"]):
        raise UserError(
            f"validation_fraction {fraction} of {len(arrays['y_train'])} training images leaves an empty part."
        )
    order = np.random.default_rng(seed).permutation(len(arrays["y_train"]))
    images, labels = arrays["x_train"], arrays["y_train"]
    train, validation = np.sort(order[held:]), np.sort(order[:held])
    count = int(max(labels.max(), arrays["y_test"].max())) + 1
    names = [str(n) for n in arrays.get("class_names", _CLASS_NAMES.get(name, range(count)))]
    if len(names) < count:
        raise UserError(f"dataset {name!r}: label {count - 1} is out of range; it names {len(names)} classes.")
    return Dataset(
        Part(images[train], labels[train]),
        Part(images[validation], labels[validation]),
        Part(arrays["x_test"], arrays["y_test"]),
        tuple(names),
    )


def _digits() -> dict[str, np.ndarray]:
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


def _named(name: str, data_dir: str | None) -> dict[str, np.ndarray]:
    if data_dir:
        path = Path(data_dir) / f"{name}.npz"
        if path.exists():
            return _npz(path)
    import keras

    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # keras raises bare Exception when a download fails
        where = f"there is no {name}.npz in --data_dir={data_dir}" if data_dir else "--data_dir is not given"
        raise UserError(
            f"dataset {name!r}: {where}, and keras.datasets could not provide it ({error}); "
            f"give a folder with {name}.npz ({', '.join(_KEYS)})."
        ) from None
    return _checked(name, dict(zip(_KEYS, (x_train, y_train, x_test, y_test), strict=True)))


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in (*_KEYS, "class_names")}
    except FileNotFoundError:
        raise UserError(f"data file {path} does not exist.") from None
    except Exception as error:  # zipfile, zlib and NumPy each have their own ways of failing
        raise UserError(f"data file {path} is not a readable .npz of plain arrays ({error}).") from None
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise UserError(f"data file {path} lacks {', '.join(missing)}; it needs {', '.join(_KEYS)}.")
    return _checked(str(path), arrays)


def _checked(source: str, arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    checked = {key: np.asarray(value) for key, value in arrays.items()}
    for part in ("train", "test"):
        x, y = f"x_{part}", f"y_{part}"
        checked[x] = _checked_images(source, x, checked[x])
        labels = checked[y]
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise UserError(f"{source}: {y} is {labels.dtype} {labels.shape}; it takes one integer for each image.")
        if len(labels) != len(checked[x]):
            raise UserError(f"{source}: {x} has {len(checked[x])} images and {y} {len(labels)} labels.")
        if labels.min() < 0 or labels.max() >= _MOST_CLASSES:
            worst = labels.min() if labels.min() < 0 else labels.max()
            raise UserError(f"{source}: {y} holds label {worst}; labels count from 0 and stay below {_MOST_CLASSES}.")
        checked[y] = labels.astype(np.int64)
    if checked["x_train"].shape[1:] != checked["x_test"].shape[1:]:
        raise UserError(
            f"{source}: images are {checked['x_train'].shape[1:]} in x_train and "
            f"{checked['x_test'].shape[1:]} in x_test; they must be alike."
        )
    names = checked.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise UserError(f"{source}: class_names is {names.dtype} {names.shape}; it takes one text for each class.")
    if names is not None and any(not str(name).strip() or not str(name).isprintable() for name in names):
        raise UserError(f"{source}: class_names holds a name that is empty or no single line of text.")
    classes = int(checked["y_train"].max()) + 1
    if "class_names" not in checked and checked["y_test"].max() >= classes:
        raise UserError(
            f"{source}: y_test holds label {checked['y_test'].max()}, and y_train knows 0 to {classes - 1}."
        )
    return checked


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
