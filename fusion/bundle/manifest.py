"""Reads a bundle's manifest, and refuses what is damaged, foreign or too new."""

from __future__ import annotations

import json
import os
import re
from fractions import Fraction
from pathlib import Path

from ..base.files import read_text
from ..base.program import UserError
from .contents import (
    PRECISIONS,
    Bundle,
    EarlyMargins,
    File,
    Sample,
    SliceFile,
    SliceModel,
    SwitchEntry,
    Tail,
    TensorInfo,
    fraction_of,
    widths_of,
)
from .tasks import TASKS, BundleTask
from .typed_json import JsonTable

SCHEMA_VERSION = 2
OUTPUT_DTYPES = ("int8", "uint8", "float32")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HASH = re.compile(r"[0-9a-f]{64}")


def load(folder: str | Path | None) -> Bundle:
    """Reads `folder`/manifest.json.

    Raises `UserError` when there is no such folder or manifest, when it is not JSON, when a key is missing or has
    another type, when its schema is newer than this runner's, when there is no switch or one's slices are not its own,
    and when a path leads outside the bundle; for None, that --bundle is missing. Slice files are read and checked
    later, by `Bundle.read`.
    """
    if folder is None:
        raise UserError("--bundle is missing; legal: the folder of a bundle.")
    if not os.path.isdir(folder):
        raise UserError(f"bundle {str(folder)!r} is not a folder; legal: a folder with a manifest.json.")
    path = Path(folder) / "manifest.json"
    text = read_text(path, "manifest")
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"manifest {str(path)!r} is not JSON: {error}.") from error
    return _bundle(Path(folder), JsonTable(manifest, str(path)))


def default_folder() -> str | None:
    """The bundle that this copy of the runner lies in, or None where it lies in no bundle."""
    folder = Path(__file__).resolve().parents[2]
    return str(folder) if (folder / "manifest.json").is_file() else None


def _bundle(folder: Path, table: JsonTable) -> Bundle:
    version = table.get("schema_version", int)
    if version > SCHEMA_VERSION:
        raise UserError(
            f"bundle schema {version} is newer than this runner's {SCHEMA_VERSION}: use the runner inside bundle "
            f"{str(folder)!r}, or a newer one."
        )
    table.choice("schema_version", (SCHEMA_VERSION,))
    task = TASKS[table.choice("task", tuple(TASKS))]
    table.table("architecture").get("name", str)
    image, output, fusion = (table.table(key) for key in ("input", "output", "fusion"))
    image.choice("name", ("image",))
    image.choice("dtype", ("uint8",))
    shape = _sizes(image, 3)
    output.choice("name", (task.output,))
    output_shape = _sizes(output, task.dimensions)
    fusion.choice("rule", ("sum",))
    scale, tail, labels = 1, None, ()
    if task.has_classes:
        labels = table.array("labels", str)
        if output_shape != (len(labels),):
            raise output.refuse("shape", list(output_shape), f"[{len(labels)}], the number of labels")
    else:
        scale = fusion.choice("scale", tuple(range(1, 17)))
        tail_table = fusion.table("tail")
        tail = Tail(_file(tail_table), tail_table.count("arena_bytes"))
        if output_shape[:2] != shape[:2]:
            raise output.refuse("shape", list(output_shape), f"the image's {list(shape[:2])} and the number of maps")
    precisions = table.array("precisions", str)
    if len(set(precisions)) < len(precisions) or not set(precisions) <= set(PRECISIONS):
        raise table.refuse("precisions", list(precisions), f"different ones of {', '.join(PRECISIONS)}")
    sample_outputs = table.optional_table("sample_outputs")
    bundle = Bundle(
        folder=folder,
        name=table.matching("name", _NAME),
        model_id=table.matching("model_id", _HASH),
        task=task,
        shape=(shape[0], shape[1], shape[2]),
        output_shape=output_shape,
        scale=scale,
        tail=tail,
        labels=labels,
        precisions=precisions,
        switches=tuple(_switch(entry, precisions, task) for entry in table.tables("switches")),
        samples=tuple(_sample(entry, len(labels)) for entry in table.tables("samples")),
        sample_outputs=_file(sample_outputs) if sample_outputs else None,
    )
    _check_whole(bundle, table)
    return bundle


def _check_whole(bundle: Bundle, table: JsonTable) -> None:
    """Refuses a bundle without switches, with two slices of one name, or with a path that leads out of it."""
    if not bundle.switches:
        raise table.refuse("switches", [], "one or more switches")
    models = [slice_.model for slice_ in bundle.slices()]
    for model in models:
        if models.count(model) > 1:
            raise UserError(f"{table.where}: model {model!r} stands twice; legal: one name per slice.")
    for path in [file.path for file in bundle.files()] + [sample.file for sample in bundle.samples]:
        bundle.path(path)


def _sizes(table: JsonTable, dimensions: int) -> tuple[int, ...]:
    sizes = table.array("shape", int, dimensions)
    if min(sizes) < 1:
        raise table.refuse("shape", list(sizes), f"{dimensions} integers of 1 or more")
    return sizes


def _switch(table: JsonTable, precisions: tuple[str, ...], task: BundleTask) -> SwitchEntry:
    slices = table.tables("slices")
    if not slices:
        raise table.refuse("slices", [], "one slice per device")
    switch = table.get("switch", str)
    _check_slices(table, slices, switch)
    models = tuple(_slice(entry, i, precisions, task.output) for i, entry in enumerate(slices))
    _check_accuracy(table, precisions, len(slices))
    return SwitchEntry(
        switch=switch,
        slug=table.matching("slug", _NAME),
        madds=table.count("madds"),
        accuracy=table.get("accuracy", dict, optional=True),
        slices=models,
        early=_early(table, models, precisions, task),
    )


def _check_accuracy(switch: JsonTable, precisions: tuple[str, ...], devices: int) -> None:
    """Refuses an `accuracy` that is not as a verification writes it; null where there was none."""
    accuracy = switch.optional_table("accuracy")
    if accuracy is None:
        return
    accuracy.get("part", str)
    accuracy.count("images")
    accuracy.get("metric", str)
    subsets = accuracy.tables("live_subsets")
    for subset in subsets:
        _devices(subset, devices, all_too=True)
    for scores in (accuracy, *subsets):
        exported = scores.table("exported")
        for table, key in ((scores, "float"), *((exported, precision) for precision in precisions)):
            _number(table, key, -(2.0**128), 2.0**128)


def _early(
    switch: JsonTable, slices: tuple[SliceModel, ...], precisions: tuple[str, ...], task: BundleTask
) -> dict[str, EarlyMargins]:
    """The calibrations of a switch by precision; none where the key is missing, as in a bundle just converted."""
    early = switch.optional_table("early") if "early" in switch.names() else None
    if early is None:
        return {}
    if not task.has_classes:
        raise switch.refuse("early", early.names(), "null, since only classifiers answer early")
    calibrations = {}
    for precision in early.names():
        if precision not in precisions:
            raise switch.refuse("early", precision, f"of the bundle's precisions, {', '.join(precisions)}")
        hashes = [slice_.files[precision].sha256 for slice_ in slices]
        calibrations[precision] = _early_margins(early.table(precision), precision, hashes)
    return calibrations


def _early_margins(table: JsonTable, precision: str, hashes: list[str]) -> EarlyMargins:
    """A calibration of the slice files with these hashes."""
    if list(table.array("files", str)) != hashes:
        legal = f"the SHA-256 of the switch's {precision} files; calibrate the bundle again"
        raise table.refuse("files", table.get("files", list), legal)
    margins: dict[frozenset[int], float] = {}
    for entry in table.tables("margins"):
        arrived = _devices(entry, len(hashes), all_too=False)
        if arrived in margins:
            raise entry.refuse("devices", sorted(arrived), "every set of devices once")
        margins[arrived] = _number(entry, "margin", 0, 2.0**128)
    table.count("images")
    _number(table, "max_drop", 0, 1)
    return margins


def _devices(table: JsonTable, devices: int, all_too: bool) -> frozenset[int]:
    values = table.array("devices", int)
    most = devices if all_too else devices - 1
    if list(values) != sorted(set(values)) or not set(values) <= set(range(devices)) or len(values) > most:
        which = "some" if all_too else "some, not all,"
        raise table.refuse("devices", list(values), f"{which} of 0 to {devices - 1} in ascending order")
    return frozenset(values)


def _number(table: JsonTable, key: str, low: float, high: float) -> float:
    value: float = table.get(key, float)
    if not low <= value <= high:  # NaN is not, either
        raise table.refuse(key, value, f"a number from {low:g} to {high:g}")
    return value


def _check_slices(table: JsonTable, slices: list[JsonTable], switch: str) -> None:
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
    if widths_of(switch) != widths:
        legal = "+".join(f"{float(width):g}" for width in widths)
        raise table.refuse("switch", switch, f"{legal}, the widths of its slices")


def _bound(table: JsonTable, key: str) -> Fraction:
    text = table.get(key, str)
    try:
        return fraction_of(text)
    except ValueError:
        raise table.refuse(key, text, "a part of the full width, such as 0.25") from None


def _slice(table: JsonTable, device: int, precisions: tuple[str, ...], output: str) -> SliceModel:
    files = table.table("files")
    return SliceModel(
        device=table.choice("device", (device,)),
        start=table.get("start", str),
        stop=table.get("stop", str),
        model=table.matching("model", _NAME),
        madds=table.count("madds"),
        parameters=table.count("parameters"),
        files={precision: _slice_file(files.table(precision), precision, output) for precision in precisions},
    )


def _file(table: JsonTable) -> File:
    return File(path=table.get("path", str), sha256=table.matching("sha256", _HASH), bytes=table.count("bytes"))


def _slice_file(table: JsonTable, precision: str, output: str) -> SliceFile:
    table.count("compressed_bytes")
    return SliceFile(
        **vars(_file(table)),
        precision=precision,
        arena_bytes=table.count("arena_bytes"),
        input=_tensor(table.table("input"), "image", ("uint8",)),
        output=_tensor(table.table("output"), output, OUTPUT_DTYPES),
    )


def _tensor(table: JsonTable, name: str, dtypes: tuple[str, ...]) -> TensorInfo:
    scale = table.get("scale", float, optional=True)
    zero_point = table.get("zero_point", int, optional=True)
    dtype = table.choice("dtype", dtypes)
    if (scale is None) != (zero_point is None):
        raise table.refuse("zero_point", zero_point, "an integer where there is a scale, else null")
    if scale is not None and not 0 < scale < 2.0**128:  # as float32 knows it
        raise table.refuse("scale", scale, "a positive number")
    if dtype == "int8" and scale is None:
        raise table.refuse("scale", None, "a positive number, since the tensor is int8")
    return TensorInfo(table.choice("name", (name,)), dtype, scale, zero_point)


def _sample(table: JsonTable, classes: int) -> Sample:
    label = table.choice("label", tuple(range(classes))) if classes else None
    return Sample(file=table.get("file", str), label=label)
