"""Reads a bundle's manifest and slice files, and refuses what is damaged, foreign or too new."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from .program import UserError
from .table import Table

SCHEMA_VERSION = 1
OUTPUT_DTYPES = ("int8", "uint8", "float32")
# A part of the full width: a decimal, a ratio or a whole number.
_WIDTH = re.compile(r"[0-9]{0,3}\.[0-9]{1,18}|[0-9]{1,9}/[0-9]{1,9}|[0-9]{1,3}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a slice file: its name, its dtype ("uint8", "int8" or "float32") and, if it is
    quantized, real = `scale` * (stored - `zero_point`); both are None in a float file. Source:
    ours."""

    name: str
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class SliceFile:
    """One .tflite file: `path` relative to the bundle, its SHA-256 in hex and its size in
    `bytes`."""

    path: str
    sha256: str
    bytes: int
    precision: str
    input: TensorInfo
    output: TensorInfo


@dataclass(frozen=True)
class SliceModel:
    """What one device of a switch runs: the channels [start, stop) as fractions, one file per
    precision."""

    device: int
    start: str
    stop: str
    model: str
    madds: int
    parameters: int
    files: Mapping[str, SliceFile]


@dataclass(frozen=True)
class SwitchEntry:
    """One switch of the bundle: `slices[i]` is for device i. `accuracy` is the manifest's object or
    None."""

    switch: str
    slug: str
    madds: int
    accuracy: Mapping[str, Any] | None
    slices: tuple[SliceModel, ...]


@dataclass(frozen=True)
class Sample:
    """A real input (`file`, relative to the bundle), its label as a class index, and the fused
    logits expected of it: `expected[switch][precision]`, a tuple of one float per class."""

    file: str
    label: int
    expected: Mapping[str, Mapping[str, tuple[float, ...]]]


@dataclass(frozen=True)
class Bundle:
    """A bundle's manifest, checked. `shape` is the input's (height, width, channels), dtype uint8,
    0..255."""

    folder: Path
    name: str
    model_id: str
    shape: tuple[int, int, int]
    labels: tuple[str, ...]
    precisions: tuple[str, ...]
    switches: tuple[SwitchEntry, ...]
    samples: tuple[Sample, ...]

    def find_switch(self, text: str) -> SwitchEntry:
        """The switch written as `text`, folded or not (`4x0.25`, `0.25+0.25+0.25+0.25`) and in any order.

        Raises `UserError`, with the legal ones, when the bundle has no such switch. Source: ours.
        """
        wanted = _widths(text)
        for entry in self.switches:
            if entry.switch == text or (wanted and sorted(_widths(entry.switch)) == sorted(wanted)):
                return entry
        legal = ", ".join(entry.switch for entry in self.switches)
        raise UserError(f"switch {text!r} is not in bundle {str(self.folder)!r}; legal: {legal}.")

    def check_precision(self, precision: str) -> str:
        """Returns `precision` if the bundle has it; else raises `UserError` with the legal ones."""
        if precision not in self.precisions:
            legal = ", ".join(self.precisions)
            raise UserError(f"precision {precision!r} is not in bundle {str(self.folder)!r}; legal: {legal}.")
        return precision

    def read_slice_file(self, file: SliceFile) -> bytes:
        """The bytes of a slice file, after checking that they are the ones the manifest describes.

        Raises `UserError` when the file is missing, lies outside the bundle, or differs in size or
        SHA-256.
        """
        path = self.path(file.path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"slice file {str(path)!r} cannot be read: {error.strerror}.") from error
        if len(data) != file.bytes:
            raise UserError(
                f"slice file {str(path)!r} has {len(data)} bytes, its manifest says {file.bytes}; "
                "copy the bundle again."
            )
        digest = hashlib.sha256(data).hexdigest()
        if digest != file.sha256:
            raise UserError(
                f"slice file {str(path)!r} has SHA-256 {digest}, its manifest says {file.sha256}; "
                "copy the bundle again."
            )
        return data

    def path(self, relative: str) -> Path:
        """The full path of a file of the bundle; raises `UserError` if `relative` leads outside the
        bundle."""
        folder = self.folder.resolve()
        path = (folder / relative).resolve()
        if not path.is_relative_to(folder):
            raise UserError(
                f"path {relative!r} in the manifest of bundle {str(self.folder)!r} leads outside "
                "the bundle; legal: a relative path below it."
            )
        return path


def load(folder: str | Path) -> Bundle:
    """Reads `folder`/manifest.json.

    Raises `UserError` when there is no such folder or manifest, when it is not JSON, when a key is
    missing or has another type, when its schema is newer than this runner's, when there is no switch or
    one's slices are not its own, and when a path leads outside the bundle. Slice files are read and
    checked later, by `Bundle.read_slice_file`. Source: ours.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"bundle {str(folder)!r} is not a folder; legal: a folder with a manifest.json.")
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"manifest {str(path)!r} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"manifest {str(path)!r} is not JSON: {error}.") from error
    return _bundle(folder, Table(manifest, str(path)))


def default_folder() -> str | None:
    """The bundle that this copy of the runner lies in, or None where it lies in no bundle."""
    folder = Path(__file__).resolve().parent.parent
    return str(folder) if (folder / "manifest.json").is_file() else None


def _bundle(folder: Path, table: Table) -> Bundle:
    version = table.get("schema_version", int)
    if version > SCHEMA_VERSION:
        raise UserError(
            f"bundle schema {version} is newer than this runner's {SCHEMA_VERSION}: "
            f"use the runner inside bundle {str(folder)!r}, or a newer one."
        )
    table.chosen("schema_version", (SCHEMA_VERSION,))
    table.chosen("task", ("classification",))
    image, fusion = table.table("input"), table.table("fusion")
    image.chosen("name", ("image",))
    image.chosen("dtype", ("uint8",))
    shape = image.array("shape", int, 3)
    if min(shape) < 1:
        raise image.refuse("shape", list(shape), "three integers of 1 or more")
    fusion.chosen("rule", ("sum",))
    fusion.chosen("output", ("logits",))
    labels = table.array("labels", str)
    fusion.chosen("classes", (len(labels),))
    precisions = table.array("precisions", str)
    switches = tuple(_switch(entry, precisions) for entry in table.tables("switches"))
    if not switches:
        raise table.refuse("switches", [], "one or more switches")
    bundle = Bundle(
        folder=folder,
        name=table.matching("name", _NAME),
        model_id=table.matching("model_id", _HASH),
        shape=(shape[0], shape[1], shape[2]),
        labels=labels,
        precisions=precisions,
        switches=switches,
        samples=tuple(_sample(entry, len(labels)) for entry in table.tables("samples")),
    )
    models = [slice_.model for entry in bundle.switches for slice_ in entry.slices]
    for model in models:
        if models.count(model) > 1:
            raise UserError(f"{table.where}: model {model!r} stands twice; legal: one name per slice.")
    for path in [f.path for e in bundle.switches for s in e.slices for f in s.files.values()]:
        bundle.path(path)
    for sample in bundle.samples:
        bundle.path(sample.file)
    return bundle


def _switch(table: Table, precisions: tuple[str, ...]) -> SwitchEntry:
    slices = table.tables("slices")
    if not slices:
        raise table.refuse("slices", [], "one slice per device")
    switch = table.get("switch", str)
    _check_slices(table, slices, switch)
    return SwitchEntry(
        switch=switch,
        slug=table.matching("slug", _NAME),
        madds=table.count("madds"),
        accuracy=table.get("accuracy", dict, optional=True),
        slices=tuple(_slice(entry, i, precisions) for i, entry in enumerate(slices)),
    )


def _check_slices(table: Table, slices: list[Table], switch: str) -> None:
    """Refuses slices that do not adjoin from 0, or whose widths are not those that `switch` writes."""
    widths: list[Fraction] = []
    reached = Fraction(0)
    for slice_ in slices:
        start, stop = _bound(slice_, "start"), _bound(slice_, "stop")
        if start != reached:
            legal = f"{float(reached):g}, where the slice before it ends" if widths else "0, since it is the first"
            raise slice_.refuse("start", slice_.get("start", str), legal)
        if not start < stop <= 1:
            raise slice_.refuse("stop", slice_.get("stop", str), f"more than {float(start):g}, and 1 at most")
        widths.append(stop - start)
        reached = stop
    if _widths(switch) != widths:
        legal = "+".join(f"{float(width):g}" for width in widths)
        raise table.refuse("switch", switch, f"{legal}, the widths of its slices")


def _bound(table: Table, key: str) -> Fraction:
    text = table.get(key, str)
    try:
        return _fraction(text)
    except ValueError:
        raise table.refuse(key, text, "a part of the full width, such as 0.25") from None


def _slice(table: Table, device: int, precisions: tuple[str, ...]) -> SliceModel:
    files = table.table("files")
    return SliceModel(
        device=table.chosen("device", (device,)),
        start=table.get("start", str),
        stop=table.get("stop", str),
        model=table.matching("model", _NAME),
        madds=table.count("madds"),
        parameters=table.count("parameters"),
        files={precision: _file(files.table(precision), precision) for precision in precisions},
    )


def _file(table: Table, precision: str) -> SliceFile:
    return SliceFile(
        path=table.get("path", str),
        sha256=table.matching("sha256", _HASH),
        bytes=table.count("bytes"),
        precision=precision,
        input=_tensor(table.table("input"), "image", ("uint8",)),
        output=_tensor(table.table("output"), "logits", OUTPUT_DTYPES),
    )


def _tensor(table: Table, name: str, dtypes: tuple[str, ...]) -> TensorInfo:
    scale = table.get("scale", float, optional=True)
    zero_point = table.get("zero_point", int, optional=True)
    dtype = table.chosen("dtype", dtypes)
    if (scale is None) != (zero_point is None):
        raise table.refuse("zero_point", zero_point, "an integer where there is a scale, else null")
    if scale is not None and not 0 < scale < float("inf"):
        raise table.refuse("scale", scale, "a positive number")
    if dtype == "int8" and scale is None:
        raise table.refuse("scale", None, "a positive number, since the tensor is int8")
    return TensorInfo(table.chosen("name", (name,)), dtype, scale, zero_point)


def _sample(table: Table, classes: int) -> Sample:
    switches = table.table("expected")
    expected = {}
    for switch in switches.names():
        answers = switches.table(switch)
        expected[switch] = {p: answers.array(p, float, classes) for p in answers.names()}
    label = table.chosen("label", tuple(range(classes)))
    return Sample(file=table.get("file", str), label=label, expected=expected)


def _widths(text: str) -> list[Fraction]:
    widths: list[Fraction] = []
    for term in text.split("+"):
        count, _, width = term.rpartition("x")
        try:
            widths += [_fraction(width)] * min(int(count or 1), 1024)
        except ValueError:
            return []
    return widths


def _fraction(text: str) -> Fraction:
    if not _WIDTH.fullmatch(text):
        raise ValueError(text)
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(text) from error
