"""Sets of image pairs for super-resolution: their folders, their checks, their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from fusion.base import pictures
from fusion.base.paths import expand
from fusion.base.pictures import ENDS
from fusion.base.program import UserError
from fusion.base.streams import say
from fusion.base.walk import left_out_text, walk
from paradis_tf.data.pairs import patches
from paradis_tf.data.pairs.bicubic import crop_to_multiple, shrink
from paradis_tf.data.parts import ImagePairs, Patches

# All pixels are kept in memory; a larger set is a matter of a machine with more of it, and of this line.
_MOST_BYTES = 12 * 2**30
_MOST_PATCHES = 10**9
# SSIM wants 11 pixels inside a border of scale + 6.
_LEAST_EVALUATED_SIDE = 32
_GENERIC_FOLDERS = ("hr", "gt", "high", "original")


@dataclass(frozen=True)
class PairDataset:
    """The parts of a dataset for super-resolution. Training sees `train` and `validation`, evaluation sees `test`."""

    task: ClassVar[str] = "super_resolution"

    tiled: ClassVar[bool] = True

    train: Patches
    validation: ImagePairs
    test: ImagePairs

    def training_batches(self, batch_size: int, **options: Any) -> tf.data.Dataset:
        """As `patches.training_batches` of the training part."""
        return patches.training_batches(self.train, batch_size, **options)

    def validation_batches(self, batch_size: int, **options: Any) -> tf.data.Dataset:
        """As `patches.evaluation_batches` of the validation part."""
        return patches.evaluation_batches(self.validation, batch_size, **options)

    @property
    def architecture_options(self) -> dict[str, Any]:
        """What an architecture takes from the data."""
        return {"image_shape": (self.train.size, self.train.size, 3), "scale": self.train.pairs.scale}


def load(
    name: str,
    train: Sequence[str],
    train_low: Sequence[str],
    validation: Sequence[str],
    validation_low: Sequence[str],
    validation_fraction: float,
    test: Sequence[str],
    test_low: Sequence[str],
    scale: int,
    patch_size: int,
    patches_per_epoch: int,
    skip_broken: bool,
    data_dir: str | None = None,
    seed: int = 0,
) -> PairDataset:
    """Reads folders of high-resolution images, and of low-resolution ones or makes those by bicubic shrinking.

    High-resolution images are cut at the bottom and at the right to multiples of the scale. Everything is kept in
    memory, 12 GiB at most.

    Args:
      name: `sr`.
      train: folders of high-resolution training images; of this and the others, relative ones are in `data_dir`.
      train_low: for each of them its folder of low-resolution images, of the same file names but for the suffix;
        empty for bicubic shrinking.
      validation: as `train`; empty holds images out of the training part.
      validation_low: as `train_low`.
      validation_fraction: of the training images, in (0, 1), drawn with `seed`; without meaning if `validation` is
        given.
      test: as `train`. A set is named after its folder, or after its parent if the folder is called HR.
      test_low: as `train_low`.
      scale: 2, 3 or 4.
      patch_size: side of the low-resolution training patch, 8 to 512 pixels.
      patches_per_epoch: 1 to 10^9.
      skip_broken: images that cannot be used, or are too small for a patch, are named and left out instead of
        refused.
      data_dir: folder that relative folders are in.
      seed: draws the validation part.

    Raises:
      UserError: a value out of range, a folder without images, images that cannot be used, or pairs that do not
        match.
    """
    for key, value, legal, good in (
        ("scale", scale, "2, 3 or 4", scale in (2, 3, 4)),
        ("patch_size", patch_size, "8 to 512", 8 <= patch_size <= 512),
        ("patches_per_epoch", patches_per_epoch, f"1 to {_MOST_PATCHES}", 1 <= patches_per_epoch <= _MOST_PATCHES),
        ("validation_fraction", validation_fraction, "between 0 and 1", 0 < validation_fraction < 1),
        ("train", train, "at least one folder", len(train) > 0),
        ("test", test, "at least one folder", len(test) > 0),
    ):
        if not good:
            raise UserError(f"config.dataset.{key} is {value!r}; it is {legal}.")
    for key, folders in (
        ("train", train),
        ("train_low", train_low),
        ("validation", validation),
        ("validation_low", validation_low),
        ("test", test),
        ("test_low", test_low),
    ):
        if not all(isinstance(folder, str) for folder in folders):
            raise UserError(f"config.dataset.{key} is {folders!r}; it is a list of folders, each a string.")
    train, train_low, validation, validation_low, test, test_low = (
        [expand(folder) for folder in folders]
        for folders in (train, train_low, validation, validation_low, test, test_low)
    )
    if validation_low and not validation:
        raise UserError("config.dataset.validation_low is given without validation; its folders are pairs of those.")
    if not 0 <= seed < 2**31 - 1:
        raise UserError(f"seed is {seed}; it lies between 0 and {2**31 - 2}.")
    reader = _Reader(scale, data_dir, skip_broken)
    whole = reader.read("train", train, train_low, patch_size)
    tested = reader.read("test", test, test_low, -(-_LEAST_EVALUATED_SIDE // scale))
    if validation:
        held = reader.read("validation", validation, validation_low, -(-_LEAST_EVALUATED_SIDE // scale))
    else:
        order = np.random.default_rng(seed).permutation(len(whole))
        count = round(len(whole) * validation_fraction)
        if not 0 < count < len(whole):
            raise UserError(f"validation_fraction {validation_fraction} of {len(whole)} images leaves an empty part.")
        held = whole.select(sorted(order[:count]))
        whole = whole.select(sorted(order[count:]))
    return PairDataset(Patches(whole, patch_size, patches_per_epoch), held, tested)


class _Reader:
    def __init__(self, scale: int, data_dir: str | None, skip_broken: bool) -> None:
        self.scale = scale
        self.root = Path(data_dir) if data_dir else Path()
        where = f"which is {data_dir}" if data_dir else "which is not given, so it was looked for in the current folder"
        self._where = f"Relative folders are in --data_dir, {where}."
        self.skip_broken = skip_broken
        self.bytes = 0

    def read(self, part: str, folders: Sequence[str], low_folders: Sequence[str], least: int) -> ImagePairs:
        """The pairs of some folders; `least` is the smallest side of a low-resolution image."""
        if low_folders and len(low_folders) != len(folders):
            raise UserError(
                f"config.dataset.{part}_low has {len(low_folders)} folders and {part} {len(folders)}; each has its own."
            )
        names, low, high = [], [], []
        for place, folder in enumerate(folders):
            files = self._files(part, folder)
            small = self._files(f"{part}_low", low_folders[place]) if low_folders else None
            if small is not None:
                small = self._renamed(files, small)
                self._match(folder, files, low_folders[place], small)
            for stem, file in files.items():
                try:
                    pair = self._pair(file, small[stem] if small else None, least)
                except UserError as error:
                    if not self.skip_broken:
                        raise
                    say(f"left out: {error}")
                    continue
                names.append(f"{_set_name(self.root / folder)}/{stem}")
                low.append(pair[0])
                high.append(pair[1])
        if not names:
            raise UserError(f"config.dataset.{part}: no image of {', '.join(folders)} can be used.")
        return ImagePairs(tuple(names), tuple(low), tuple(high), self.scale)

    def _files(self, key: str, folder: str) -> dict[str, Path]:
        path = self.root / folder
        try:
            found = walk([path], ENDS, below=False)
        except UserError as error:
            hint = "" if Path(folder).is_absolute() else f" {self._where}"
            raise UserError(f"config.dataset.{key}: {error}{hint}") from None
        if found.left_out:
            say(f"config.dataset.{key}: of folder {str(path)!r} left out {left_out_text(found.left_out)}")
        files: dict[str, Path] = {}
        for file in map(Path, found.files[str(path)]):
            if file.stem in files:
                raise UserError(f"folder {path} has {files[file.stem].name} and {file.name}; names differ in more.")
            files[file.stem] = file
        if not files:
            raise UserError(f"config.dataset.{key}: folder {path} has no images ({', '.join(ENDS)}).")
        return files

    def _renamed(self, files: dict[str, Path], small: dict[str, Path]) -> dict[str, Path]:
        """Low-resolution files by the names of their partners, which published sets write with `x2` behind them."""
        end = f"x{self.scale}"
        names = {stem: stem.removesuffix(end) for stem in small if stem not in files and stem.endswith(end)}
        if any(name in small or name not in files for name in names.values()):
            return small
        return {names.get(stem, stem): file for stem, file in small.items()}

    def _match(self, folder: str, files: dict[str, Path], low_folder: str, small: dict[str, Path]) -> None:
        lonely = sorted(files.keys() ^ small.keys())
        if lonely:
            where, lacks = (folder, low_folder) if lonely[0] in files else (low_folder, folder)
            raise UserError(
                f"image {lonely[0]!r} is in {self.root / where} and not in {self.root / lacks}; each pair has one name "
                f"({len(lonely)} have no partner)."
            )

    def _pair(self, file: Path, low_file: Path | None, least: int) -> tuple[np.ndarray, np.ndarray]:
        high = pictures.read(file)
        if low_file is None:
            high = crop_to_multiple(high, self.scale)
            if min(high.shape[:2]) < least * self.scale:
                raise UserError(_too_small(file, high, least * self.scale))
            low = shrink(high, self.scale)
        else:
            low = pictures.read(low_file)
            height, width = high.shape[0] // self.scale, high.shape[1] // self.scale
            if low.shape[:2] != (height, width):
                raise UserError(
                    f"image {low_file} is {low.shape[1]}x{low.shape[0]}; {file.name} of {high.shape[1]}x{high.shape[0]}"
                    f" at scale {self.scale} takes {width}x{height}."
                )
            high = crop_to_multiple(high, self.scale)
            if min(low.shape[:2]) < least:
                raise UserError(_too_small(low_file, low, least))
        self.bytes += low.nbytes + high.nbytes
        if self.bytes > _MOST_BYTES:
            raise UserError(
                f"the images up to {file} take more than {_MOST_BYTES >> 30} GiB; all are kept in memory, so give "
                "fewer or smaller ones."
            )
        return low, high


def _too_small(file: Path, image: np.ndarray, least: int) -> str:
    return f"image {file} is {image.shape[1]}x{image.shape[0]} pixels; its sides are at least {least} here."


def _set_name(folder: Path) -> str:
    name = folder.resolve().name
    return folder.resolve().parent.name if name.lower() in _GENERIC_FOLDERS else name
