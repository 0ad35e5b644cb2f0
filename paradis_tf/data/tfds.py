"""Sets of TensorFlow Datasets, an optional package: read where they are prepared, never downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fusion.base import pictures
from fusion.base.program import UserError
from paradis_tf.data import pipeline
from paradis_tf.data.parts import part_names

PREFIX = "tfds:"
# With the other requirements beside it, or pip replaces protobuf by one that this TensorFlow does not load with; newer
# tensorflow-metadata does not load with this protobuf.
_INSTALL = "pip install -r requirements.txt tensorflow-datasets 'tensorflow-metadata<1.18'"


class TfdsSet:
    """A prepared classification set of TensorFlow Datasets.

    Args:
      name: `tfds:` and the name of the set, as in `tfds:imagenette/160px-v2`.
      data_dir: the folder that TensorFlow Datasets keeps its sets in; None is its own choice.
      wanted: the parts to use; empty takes all.

    Attributes:
      classes: the names of the classes.
      full_name: name, configuration and version.
      parts: what serves as `train`, `validation` and `test`, see `paradis_tf.data.parts.part_names`.

    Raises:
      UserError: the package is not installed, or the set unknown, not prepared, or not of images and labels.
    """

    def __init__(self, name: str, data_dir: str | None, wanted: Sequence[str] = ()) -> None:
        if name == PREFIX:
            raise UserError(f"dataset {name!r} has no name after the colon; give one such as tfds:imagenette/160px-v2.")
        try:
            import tensorflow_datasets
        except Exception as error:  # beside ImportError, what its dependencies raise at wrong versions
            raise UserError(
                f"dataset {name!r} needs the package tensorflow-datasets, which is not installed or cannot be loaded "
                f"({_first_line(error)}); run: {_INSTALL}"
            ) from None
        self.name, self._package = name, tensorflow_datasets
        builder_name = name.removeprefix(PREFIX)
        try:
            self._builder = tensorflow_datasets.builder(builder_name, data_dir=data_dir)
            splits, features = self._builder.info.splits, self._builder.info.features
        except Exception as error:  # the package has many ways of failing
            raise UserError(
                f"dataset {name!r} cannot be opened by tensorflow-datasets ({_first_line(error)})."
            ) from None
        if not splits:
            where = f" --data_dir={data_dir}" if data_dir else ""
            raise UserError(
                f"dataset {name!r} is not prepared{' in ' + data_dir if data_dir else ''}, and nothing is downloaded "
                f"here; run: tfds build {builder_name}{where}"
            )
        kinds = tensorflow_datasets.features
        if not (
            isinstance(features, kinds.FeaturesDict)
            and {"image", "label"} <= set(features.keys())
            and isinstance(features["image"], kinds.Image)
            and isinstance(features["label"], kinds.ClassLabel)
        ):
            raise UserError(f"dataset {name!r} has the features {features}; it takes an image and a label of a class.")
        self.classes = tuple(features["label"].names)
        self.parts = part_names(f"dataset {name!r}", list(splits), wanted)
        self.full_name = str(self._builder.info.full_name)
        self._counts = {split: splits[split].num_examples for split in self.parts.values()}
        self._shape = features["image"].shape

    def count(self, part: str) -> int:
        """How many images a part has."""
        return self._counts[self.parts[part]]

    def encoded(self, part: str, start: int, stop: int) -> Iterator[tuple[str, bytes, int]]:
        """Name, file content and label of the images of a part from `start` to before `stop`."""
        split = self.parts[part]
        items = self._read(f"{split}[{start}:{stop}]")
        for number, item in enumerate(items, start):
            yield f"{self.name} {split} {number}", item["image"], int(item["label"])

    def arrays(self, most_bytes: int) -> dict[str, np.ndarray]:
        """All images as arrays, `x_train`, `y_train` and so on.

        Raises:
          UserError: the images differ in size, are more than so many bytes, or one is no picture.
        """
        height, width = self._shape[:2]
        size = sum(self._counts.values()) * 3 * (height or 0) * (width or 0)
        if not (height and width) or size > most_bytes:
            raise self._to_be_prepared(f"{size / 2**30:.1f} GiB of images" if size else "images of many sizes")
        arrays = {"class_names": np.array(self.classes)}
        for part in self.parts:
            images, labels = [], []
            for name, content, label in self.encoded(part, 0, self.count(part)):
                pixels = pictures.decode(content, repr(name)).pixels
                if pixels.shape[:2] != (height, width):
                    raise self._to_be_prepared("images of many sizes")
                images.append(pixels)
                labels.append(label)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = np.stack(images), np.array(labels, np.int64)
        return arrays

    def _to_be_prepared(self, what: str) -> UserError:
        return UserError(
            f"dataset {self.name!r} has {what}; run: python -m paradis_tf.prepare --source={self.name} "
            "--target=FOLDER --size=224, and take dataset 'prepared' with that folder as its path."
        )

    def _read(self, split: str) -> Any:
        # One file after another, so that the order is the files'.
        order = self._package.ReadConfig(options=pipeline.untuned(), interleave_cycle_length=1)
        undecoded = {"image": self._package.decode.SkipDecoding()}
        images = self._builder.as_dataset(split=split, decoders=undecoded, shuffle_files=False, read_config=order)
        return images.as_numpy_iterator()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
