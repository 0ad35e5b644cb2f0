"""Where images and labels come from, and the parts they are split into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from fusion.base.paths import expand
from fusion.base.program import UserError
from paradis_tf.data import arrays, pipeline, tfds
from paradis_tf.data.parts import Part

_WITH_PATH = ("npz", "folder", "prepared")
_NAMED = ("cifar10", "cifar100", "fashion_mnist", "imagenette64")
_MOST_SIDE = 4096
# Of a set of TensorFlow Datasets that is read into memory.
_MOST_BYTES = 4 * 2**30
_CLASS_NAMES = {
    "cifar10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "fashion_mnist": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ],
}


@dataclass(frozen=True)
class Dataset:
    """The three parts of a dataset. Training and conversion see `train` and `validation`, evaluation sees `test`."""

    task: ClassVar[str] = "classification"

    # Whether images of any size are cut in tiles of the network's.
    tiled: ClassVar[bool] = False

    train: Part
    validation: Part
    test: Part
    class_names: tuple[str, ...]

    def training_batches(self, batch_size: int, **options: Any) -> tf.data.Dataset:
        """As `pipeline.training_batches` of the training part."""
        return pipeline.training_batches(self.train, batch_size, **options)

    def validation_batches(self, batch_size: int, **options: Any) -> tf.data.Dataset:
        """As `pipeline.evaluation_batches` of the validation part."""
        return pipeline.evaluation_batches(self.validation, batch_size, **options)

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
    image_size: int = 0,
    skip_broken: bool = False,
    classes: int = 0,
) -> Dataset:
    """Reads a dataset and, where it brings no validation part, holds one out of its training part.

    Args:
      name: `digits` (scikit-learn's 1,797 handwritten digits, enlarged to 16x16; a fixed fifth is the test part),
        `cifar10`, `cifar100`, `fashion_mnist`, `imagenette64`, `npz`, `folder`, `prepared`, or `tfds:NAME`, a set
        of TensorFlow Datasets whose images are of one size and fit in memory.
      path: of `npz`: a file with x_train, y_train, x_test, y_test (uint8 NHWC or NHW images, integer labels) and
        optionally x_validation, y_validation and class_names; grey images are repeated to RGB. Of `folder`: a folder
        with `train`, and `val`, `validation` or `test`, in each a folder of images for every class; see
        `paradis_tf.data.parts.part_names`. Of `prepared`: a folder made by `paradis_tf.prepare`.
      data_dir: folder that may hold `<name>.npz` of that form; otherwise `keras.datasets` is asked, which may
        download. Of `tfds:NAME`: where TensorFlow Datasets keeps its sets.
      validation_fraction: of the training part, in (0, 1); the images are drawn with `seed`. Without meaning for a set
        that brings its validation part.
      seed: draws the validation part.
      image_size: of `folder` and `prepared`: side of the square input in pixels; 0 takes the size that the set was
        prepared for.
      skip_broken: of `folder`: images that cannot be used are left out instead of refused.
      classes: of sets that do not name their classes: how many there are, 2 to 100,000, some perhaps without training
        images; 0 takes as many as y_train has labels, which then have no gaps.

    Raises:
      UserError: an unknown name, a missing or malformed file, or a value out of range.
    """
    arrays_of: dict[str, Callable[[], dict[str, np.ndarray]]] = {
        "digits": arrays.digits,
        "npz": lambda: arrays.npz(Path(path)),
        **{known: lambda: arrays.named(name, data_dir) for known in _NAMED},
    }
    if name not in (*arrays_of, *_WITH_PATH) and not name.startswith(tfds.PREFIX):
        known = (*arrays_of, "folder", "prepared", f"{tfds.PREFIX}NAME")
        raise UserError(f"dataset {name!r} is unknown; known are {', '.join(known)}.")
    path = expand(path)
    _check_path(name, path)
    _check_images(name, image_size, skip_broken)
    _check_classes(name, classes)
    if not 0 <= seed < 2**31 - 1:
        raise UserError(f"seed is {seed}; it lies between 0 and {2**31 - 2}.")
    if not 0 < validation_fraction < 1:
        raise UserError(f"validation_fraction is {validation_fraction}; it lies between 0 and 1.")
    if name in arrays_of:
        parts, class_names = _of_arrays(name, arrays_of[name](), classes)
    elif name == "folder":
        # TensorFlow is loaded for this and the next alone.
        from paradis_tf.data import folder

        parts, class_names = folder.load(path, image_size, skip_broken)
    elif name == "prepared":
        from paradis_tf.data import prepared

        parts, class_names = prepared.load(Path(path), image_size)
    else:
        images = tfds.TfdsSet(name, data_dir).arrays(_MOST_BYTES)
        parts, class_names = _of_arrays(name, arrays.checked(name, images), classes)
    return _split(parts, class_names, validation_fraction, seed)


def _check_path(name: str, path: str) -> None:
    if name in _WITH_PATH and not path:
        what = "file" if name == "npz" else "folder"
        raise UserError(f"dataset {name!r} needs the path of a {what} in config.dataset.path; it is empty.")
    if name not in _WITH_PATH and path:
        takers = " and ".join(map(repr, _WITH_PATH))
        raise UserError(f"config.dataset.path is {path!r}, but only the datasets {takers} take one.")


def _check_images(name: str, image_size: int, skip_broken: bool) -> None:
    if image_size and name not in ("folder", "prepared"):
        raise UserError(
            f"config.dataset.image_size is {image_size}, but only 'folder' and 'prepared' images are resized; it is 0."
        )
    if name == "folder" and not image_size:
        raise UserError("dataset 'folder' needs config.dataset.image_size, the side of the input; it is 0.")
    if not 0 <= image_size <= _MOST_SIDE:
        raise UserError(f"config.dataset.image_size is {image_size}; it lies between 0 and {_MOST_SIDE} pixels.")
    if skip_broken and name != "folder":
        raise UserError(f"config.dataset.skip_broken is set, but only dataset 'folder' takes it, not {name!r}.")


def _check_classes(name: str, classes: int) -> None:
    if classes and (name in ("folder", "prepared") or name.startswith(tfds.PREFIX)):
        raise UserError(f"config.dataset.classes is {classes}, but dataset {name!r} names its classes itself; it is 0.")
    if classes and not 2 <= classes <= arrays.MOST_CLASSES:
        raise UserError(
            f"config.dataset.classes is {classes}; it lies between 2 and {arrays.MOST_CLASSES}, or it is 0."
        )


def _of_arrays(name: str, values: dict[str, np.ndarray], classes: int) -> tuple[dict[str, Part], Sequence[str]]:
    parts = {key[2:]: Part(values[key], values[f"y_{key[2:]}"]) for key in values if key.startswith("x_")}
    labels = {key: values[key] for key in values if key.startswith("y_")}
    names = list(values["class_names"]) if "class_names" in values else _CLASS_NAMES.get(name)
    return parts, arrays.class_names(f"dataset {name!r}", labels, names, classes)


def _split(parts: dict[str, Part], class_names: Sequence[str], fraction: float, seed: int) -> Dataset:
    train, validation = parts["train"], parts.get("validation")
    if validation is None:
        held = round(len(train) * fraction)
        if not 0 < held < len(train):
            raise UserError(f"validation_fraction {fraction} of {len(train)} training images leaves an empty part.")
        order = np.random.default_rng(seed).permutation(len(train))
        train, validation = (_select(train, np.sort(places)) for places in (order[held:], order[:held]))
    return Dataset(train, validation, parts["test"], tuple(class_names))


def _select(part: Part, places: np.ndarray) -> Part:
    in_memory = isinstance(part.images, np.ndarray)
    return Part(part.images[places] if in_memory else part.images.select(places), part.labels[places])
