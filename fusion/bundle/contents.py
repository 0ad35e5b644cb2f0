"""A bundle as its manifest describes it: switches, slices, files, samples."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..base.files import read_bytes
from ..base.program import UserError
from .tasks import BundleTask

PRECISIONS = ("float32", "float16", "dynamic", "int8")
# A part of the full width: a decimal, a ratio or a whole number.
_WIDTH = re.compile(r"[0-9]{0,3}\.[0-9]{1,18}|[0-9]{1,9}/[1-9][0-9]{0,8}|[0-9]{1,3}")

# What NumPy raises of a damaged .npz file.
BAD_NPZ: tuple[type[Exception], ...] = (ValueError, TypeError, AttributeError, OSError, EOFError)
BAD_NPZ += (NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: its name, its dtype ("uint8", "int8" or "float32") and, if it is quantized,
    real = `scale` * (stored - `zero_point`); both are None in a float file."""

    name: str
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class File:
    """A file of the bundle: `path` relative to it, its SHA-256 in hex and its size in `bytes`."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class SliceFile(File):
    """One .tflite file of a slice; `arena_bytes` is what its activations take while it runs."""

    precision: str
    arena_bytes: int
    input: TensorInfo
    output: TensorInfo


@dataclass(frozen=True)
class SliceModel:
    """What one device of a switch runs: the channels [start, stop) as fractions, one file per precision."""

    device: int
    start: str
    stop: str
    model: str
    madds: int
    parameters: int
    files: Mapping[str, SliceFile]


EarlyMargins = Mapping[frozenset[int], float]
"""When some slices of a switch may answer without the others, as `export.calibrate` found for one precision: by set of
devices that have arrived, what the leading class of their sum has to be ahead of the second by more than; a set that
is not there does not answer."""


@dataclass(frozen=True)
class SwitchEntry:
    """One switch of the bundle: `slices[i]` is for device i. `accuracy` is the manifest's object or None; `early` is by
    precision, of those that are calibrated."""

    switch: str
    slug: str
    madds: int
    accuracy: Mapping[str, Any] | None
    slices: tuple[SliceModel, ...]
    early: Mapping[str, EarlyMargins] = field(default_factory=dict)

    def accuracies(self, precision: str) -> dict[frozenset[int], float]:
        """What the verification measured of the files of one of the bundle's precisions, by the slices that answer.

        A set of slices that it did not measure is not there; none is where the bundle was not verified.
        """
        if self.accuracy is None:
            return {}
        return {
            frozenset(subset["devices"]): float(subset["exported"][precision])
            for subset in self.accuracy["live_subsets"]
        }


@dataclass(frozen=True)
class Tail:
    """The .tflite file that makes the answer of the slices' summed outputs and the image, where they are added: inputs
    `image` uint8 and `summed` float32, output `pixels` float32, 0..255, not clipped."""

    file: File
    arena_bytes: int


@dataclass(frozen=True)
class Sample:
    """A real input (`file`, relative to the bundle) and its label as a class index, None where there are no classes."""

    file: str
    label: int | None


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest, checked.

    Attributes:
      folder: where it lies.
      name: what its models are called after.
      model_id: SHA-256 of the weights it was cut from.
      task: what its answers are.
      shape: the input's (height, width, channels), dtype uint8, 0..255.
      output_shape: of each slice's output, for one image: (classes,), or (height, width, maps).
      scale: how many times larger the answer's sides are, of super-resolution; 1 otherwise.
      tail: what is run on the summed outputs, None where the sum is the answer.
      labels: the classes; empty for super-resolution.
      precisions: that every slice has a file of.
      switches, samples: what they say.
      sample_outputs: the file with the samples and what each slice file gives for them; None before it is written.
    """

    folder: Path
    name: str
    model_id: str
    task: BundleTask
    shape: tuple[int, int, int]
    output_shape: tuple[int, ...]
    scale: int
    tail: Tail | None
    labels: tuple[str, ...]
    precisions: tuple[str, ...]
    switches: tuple[SwitchEntry, ...]
    samples: tuple[Sample, ...]
    sample_outputs: File | None

    def find_switch(self, text: str) -> SwitchEntry:
        """The switch written as `text`, folded or not (`4x0.25`, `0.25+0.25+0.25+0.25`) and in any order.

        Raises `UserError`, with the legal ones, when the bundle has no such switch.
        """
        widths = sorted(widths_of(text))
        for entry in self.switches:
            if entry.switch == text or (widths and sorted(widths_of(entry.switch)) == widths):
                return entry
        legal = ", ".join(entry.switch for entry in self.switches)
        raise UserError(f"switch {text!r} is not in bundle {str(self.folder)!r}; legal: {legal}.")

    def slices(self) -> list[SliceModel]:
        """The slices of all switches."""
        return [slice_ for entry in self.switches for slice_ in entry.slices]

    def check_precision(self, precision: str | None) -> str:
        """Returns `precision` if the bundle has it, its first for None; else raises `UserError` with the legal ones."""
        if precision is None:
            return self.precisions[0]
        if precision not in self.precisions:
            legal = ", ".join(self.precisions)
            raise UserError(f"precision {precision!r} is not in bundle {str(self.folder)!r}; legal: {legal}.")
        return precision

    def files(self) -> list[File]:
        """Every file that the manifest has a hash of."""
        files: list[File] = [file for slice_ in self.slices() for file in slice_.files.values()]
        files += [self.tail.file] if self.tail else []
        return files + ([self.sample_outputs] if self.sample_outputs else [])

    def read(self, file: File) -> bytes:
        """The bytes of a file, after checking that they are the ones the manifest describes.

        Raises `UserError` when the file is missing, lies outside the bundle, or differs in size or SHA-256.
        """
        path = self.check_size(file)
        data = read_bytes(path, "file")
        digest = hashlib.sha256(data).hexdigest()
        if digest != file.sha256:
            raise UserError(
                f"file {str(path)!r} has SHA-256 {digest}, its manifest says {file.sha256}; copy the bundle again."
            )
        return data

    def check_size(self, file: File) -> Path:
        """The full path of a file. Raises `UserError` as `read` does, but for its SHA-256."""
        path = self.path(file.path)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise UserError(f"file {str(path)!r} cannot be read: {error.strerror}.") from error
        if size != file.bytes:
            raise UserError(
                f"file {str(path)!r} has {size} bytes, its manifest says {file.bytes}; copy the bundle again."
            )
        return path

    def path(self, relative: str) -> Path:
        """The full path of a file of the bundle; raises `UserError` if `relative` leads outside the bundle."""
        folder = self.folder.resolve()
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder):
            raise UserError(
                f"path {relative!r} in the manifest of bundle {str(self.folder)!r} leads outside the bundle; legal: a "
                "relative path below it."
            )
        return path

    def read_samples(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The samples' images, uint8 (samples, *`shape`), and what the slice files give for them on the built-in
        kernels of tflite_runtime: by `model/precision`, the outputs as stored, (samples, *`output_shape`), on x86; of
        int8 files also by `model/int8/arm`, those of ARM, which round halves below zero down and not up.

        Raises `UserError` as `read` does, when there are none, and when they are not of every file and sample.
        """
        if self.sample_outputs is None or not self.samples:
            raise UserError(f"bundle {str(self.folder)!r} has no samples.")
        file = f"file {self.sample_outputs.path!r} of bundle {str(self.folder)!r}"
        try:
            with np.load(io.BytesIO(self.read(self.sample_outputs)), allow_pickle=False) as archive:
                outputs = dict(archive)
        except BAD_NPZ as error:
            raise UserError(f"{file} is not an .npz file.") from error
        images = outputs.pop("images", np.empty(0))
        if images.dtype != np.uint8 or images.shape != (len(self.samples), *self.shape):
            raise UserError(f"{file} lacks the images of its samples.")
        shape = (len(self.samples), *self.output_shape)
        for key, dtype in self._sample_outputs():
            if key not in outputs or outputs[key].shape != shape or outputs[key].dtype.name != dtype:
                raise UserError(f"{file} lacks the outputs {key!r}, {dtype} {list(shape)}.")
        return images, outputs

    def _sample_outputs(self) -> Iterator[tuple[str, str]]:
        """The keys of the samples' outputs, with their dtypes."""
        for slice_ in self.slices():
            for precision, file in slice_.files.items():
                yield f"{slice_.model}/{precision}", file.output.dtype
                if precision == "int8":
                    yield f"{slice_.model}/int8/arm", file.output.dtype


def widths_of(text: str) -> list[Fraction]:
    """The widths that the text of a switch names, none if it is no switch."""
    widths: list[Fraction] = []
    for term in text.split("+"):
        count, _, width = term.rpartition("x")
        try:
            widths += [fraction_of(width)] * min(int(count or 1), 1024)
        except ValueError:
            return []
    return widths


def fraction_of(text: str) -> Fraction:
    """A part of the full width; raises ValueError if the text is none."""
    if not _WIDTH.fullmatch(text):
        raise ValueError(text)
    return Fraction(text)
