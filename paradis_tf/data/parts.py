"""Which parts of a source of images serve as what, and how its images and classes are named in errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion.base.program import UserError

# What a source may call its parts, and what each is here.
_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_NAMED = 5


def part_names(source: str, names: Sequence[str], wanted: Sequence[str] = ()) -> dict[str, str]:
    """Which part of a source serves as `train`, `validation` (if any) and `test`.

    `train` and `test` are what they are called; `val` or `validation` is the validation part. Where there is no `test`,
    it is the test part instead, as is usual with ImageNet, whose test labels are not public; validation images are then
    held out of `train`.

    Args:
      source: what to call it in an error.
      names: the parts that the source has; other names than these four are left alone.
      wanted: the ones to use; empty takes all.

    Raises:
      UserError: a wanted part is not there or unknown, or `train` or the rest is missing, or it is there twice.
    """
    usable = [name for name in names if name in _PARTS]
    chosen = list(wanted or usable)
    for name in chosen:
        if name not in usable:
            raise UserError(
                f"{source} has no part {name!r}; it has {', '.join(names) or 'none'}, and the parts that can be used "
                f"are {', '.join(_PARTS)}."
            )
    parts = {_PARTS[name]: name for name in chosen}
    if len(parts) < len(set(chosen)):
        raise UserError(f"{source} has both 'val' and 'validation'; one of them is the validation part.")
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    if not {"train", "test"} <= parts.keys():
        raise UserError(
            f"{source} has the parts {', '.join(chosen) or 'none'}; it needs 'train', and 'val', 'validation' or "
            "'test'."
        )
    return {part: parts[part] for part in ("train", "validation", "test") if part in parts}


def require_all_classes(labels: np.ndarray, classes: Sequence[str], where: str) -> None:
    """Raises UserError, naming them, if classes have no image left among these labels."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        raise UserError(f"{where}: no image of {some([classes[label] for label in empty])} can be used.")


def some(names: Sequence[str]) -> str:
    """The first few names, and how many there are besides."""
    more = len(names) - _NAMED
    return ", ".join(map(repr, names[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def broken_text(broken: Mapping[str, str], total: int) -> str:
    """Of so many images those that cannot be used, by their names, and why the first cannot."""
    first = min(broken)
    return f"{len(broken):,} of {total:,} images cannot be used: {some(sorted(broken))} ({broken[first].rstrip('.')})"


@dataclass(frozen=True)
class Part:
    """Images and labels of one part of a dataset.

    Attributes:
      images: uint8 (n, height, width, 3), RGB, 0..255: a NumPy array, or `paradis_tf.data.encoded.EncodedImages`, which
        has the same shape, type and indexing and reads files when it is indexed.
      labels: int64 (n,), class indices.
    """

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImagePairs:
    """Low- and high-resolution images of one part, of different sizes.

    Attributes:
      names: `set/file` of each pair, without suffix.
      low: uint8 (height, width, 3), RGB, 0..255.
      high: uint8 (height * scale, width * scale, 3).
      scale: the factor between them.
    """

    names: tuple[str, ...]
    low: tuple[np.ndarray, ...]
    high: tuple[np.ndarray, ...]
    scale: int

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of the sets, in order."""
        return tuple(dict.fromkeys(name.rpartition("/")[0] for name in self.names))

    def select(self, places: Sequence[int]) -> ImagePairs:
        """The pairs at these places."""
        low, high = ([images[place] for place in places] for images in (self.low, self.high))
        return ImagePairs(tuple(self.names[place] for place in places), tuple(low), tuple(high), self.scale)


@dataclass(frozen=True)
class Patches:
    """Random patches of image pairs; its length is the number of patches of an epoch.

    Attributes:
      pairs: what they are cut from.
      size: side of the low-resolution patch in pixels.
      count: patches per epoch.
    """

    pairs: ImagePairs
    size: int
    count: int

    def __len__(self) -> int:
        return self.count
