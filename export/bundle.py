"""Writes a bundle: slice files, manifest, samples, labels and the runner, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export import board_readme, conversion, engines, pictures
from export.folder import written_aside
from export.fusion import manifest
from export.fusion.files import write_json
from export.fusion.program import UserError
from export.graph import Graph, Tensor
from export.jobs import Job, convert_all
from export.recipes import Recipes, older_files
from paradis_tf.builders.operations import Tailed
from paradis_tf.records.workdir import package_versions
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_RUNNER = Path(__file__).parent / "fusion"


@dataclass(frozen=True)
class Settings:
    """How a bundle is made.

    Attributes:
      name: the bundle's name, in characters that are safe in URLs.
      precisions: of `export.jobs.PRECISIONS`.
      size: (height, width) of the image that the files take.
      calibration_images: how many training images set the ranges of int8 activations.
      float_output: whether int8 files give float32.
      processes: how many conversions run at once, at least 1.
    """

    name: str
    precisions: tuple[str, ...]
    size: tuple[int, int]
    calibration_images: int
    float_output: bool
    processes: int


def write(
    target: Path,
    settings: Settings,
    model: Supernet,
    model_file: Path,
    dataset: Any,
    report: Callable[[str], None],
) -> None:
    """Converts every slice of every switch and writes the bundle, replacing an older one at the end.

    Files of the older bundle that would come out the same are taken from it.

    Args:
      target: the bundle's folder.
      settings: how it is made.
      model: the trained supernet.
      model_file: the file it was loaded from, which the converting processes load.
      dataset: gives representative images (training part), samples (validation part) and labels.
      report: is told what is being done.

    Raises:
      UserError: too few images, a conversion that failed, or a target that is not a bundle or cannot be written.
    """
    images = pictures.representative(dataset, settings.size, settings.calibration_images)
    if settings.processes < 1:
        raise UserError(f"--processes is {settings.processes}; it is at least 1.")
    jobs = [
        Job(switch, device, precision, settings.float_output and precision == "int8")
        for switch in model.switches
        for device in range(switch.devices)
        for precision in settings.precisions
    ]
    recipes = Recipes(model, images)
    with written_aside(target) as folder:
        files: dict[Job, dict[str, Any]] = {}

        def keep(job: Job, data: bytes, found: Graph) -> None:
            files[job] = {**_write_file(folder, job, data, found), "recipe": recipes.of(job)}
            report(f"{len(files)}/{len(jobs)} {job}: {len(data):,} bytes")

        older = older_files(target)
        for job in jobs:
            if recipes.of(job) in older:
                entry, data = older[recipes.of(job)]
                files[job] = {**entry, **_write(folder, _path(job), data)}
        if files:
            report(f"{len(files)} of {len(jobs)} slice files are as they were")
        left = [job for job in jobs if job not in files]
        if left:
            report(f"converting {len(left)} slice files, {min(settings.processes, len(left))} at once")
            convert_all(model_file, left, images, settings.processes, keep)
        written = _describe(folder, settings, model, dataset, files)
        _write_extras(folder, written)
        report("computing what the slices give for the samples")
        written |= _write_samples(folder, dataset, settings.size)
        write_json(folder / "manifest.json", written)


def _describe(
    folder: Path, settings: Settings, model: Supernet, dataset: Any, files: Mapping[Job, dict[str, Any]]
) -> dict[str, Any]:
    """The manifest, without samples; writes the tail's file, if there is one."""
    shape = (*settings.size, 3)
    written: dict[str, Any] = {
        "schema_version": manifest.SCHEMA_VERSION,
        "name": settings.name,
        "model_id": model.model_id(),
        "task": model.task.name,
        "architecture": model.architecture_config(),
        "input": {"name": "image", "shape": list(shape), "dtype": "uint8", "range": [0, 255], "color": "RGB"},
        "fusion": {"rule": "sum"},
    }
    output = conversion.output_name(model)
    if isinstance(model.architecture, Tailed):
        data, found = conversion.convert_tail(model, shape)
        tail = {**_write(folder, "slices/tail.float32.tflite", data), "arena_bytes": found.arena_bytes}
        written["fusion"] |= {"scale": dataset.test.scale, "tail": tail}
        maps = next(tensor.shape for tensor in found.inputs if tensor.name == "summed")
        written["output"] = {"name": output, "shape": list(maps[1:])}
    else:
        written["output"] = {"name": output, "shape": [len(dataset.class_names)]}
        written["labels"] = list(dataset.class_names)
    return written | {
        "precisions": list(settings.precisions),
        "switches": [_switch_entry(settings, model, switch, files) for switch in model.switches],
        "samples": [],
        "sample_outputs": None,
        "packages": package_versions(),
    }


def _path(job: Job) -> str:
    return f"slices/{job.switch.file_name}/{job.device}.{job.precision}.tflite"


def _write(folder: Path, path: str, data: bytes) -> dict[str, Any]:
    """Writes a file of the bundle; the manifest's entry for it."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _write_file(folder: Path, job: Job, data: bytes, found: Graph) -> dict[str, Any]:
    def tensor(one: Tensor) -> dict[str, Any]:
        return {"name": one.name, "dtype": one.dtype, "scale": one.scale, "zero_point": one.zero_point}

    return {
        **_write(folder, _path(job), data),
        "compressed_bytes": len(zlib.compress(data, 9)),
        "quantization": "ptq" if job.precision == "int8" else None,
        "arena_bytes": found.arena_bytes,
        "input": tensor(found.inputs[0]),
        "output": tensor(found.outputs[0]),
    }


def _switch_entry(
    settings: Settings, model: Supernet, switch: Switch, files: Mapping[Job, dict[str, Any]]
) -> dict[str, Any]:
    slices = []
    of_switch: dict[int, dict[str, Any]] = {}
    for job, file in files.items():
        if job.switch == switch:
            of_switch.setdefault(job.device, {})[job.precision] = file
    for device, slice in enumerate(switch.slices):
        cost = conversion.cost(model, switch, device, (*settings.size, 3))
        start, stop = slice.texts
        slices.append(
            {
                "device": device,
                "start": start,
                "stop": stop,
                "model": f"{settings.name}-{switch.slug}-{device}",
                "madds": cost.madds,
                "parameters": cost.parameters,
                "files": {precision: of_switch[device][precision] for precision in settings.precisions},
            }
        )
    return {
        "switch": str(switch),
        "slug": switch.slug,
        "madds": sum(slice["madds"] for slice in slices),
        "accuracy": None,
        "slices": slices,
    }


def _write_extras(folder: Path, written: dict[str, Any]) -> None:
    shutil.copytree(_RUNNER, folder / "fusion", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    (folder / "fusion" / "requirements.txt").replace(folder / "requirements.txt")
    if "labels" in written:
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in written["labels"]))
    (folder / "README.md").write_text(board_readme.render(written))
    # What the slices give for the samples is computed through the runner, which wants a manifest.
    write_json(folder / "manifest.json", written)


def _write_samples(folder: Path, dataset: Any, size: tuple[int, int]) -> dict[str, Any]:
    images, labels = pictures.samples(dataset, size)
    bundle = manifest.load(folder)
    (folder / "samples").mkdir()
    entries: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        file = f"samples/{number}.png"
        Image.fromarray(image).save(folder / file)
        entries.append({"file": file, "label": None if labels is None else labels[number]})
    answers = engines.ask(bundle, engines.REFERENCE, images)
    outputs = io.BytesIO()
    np.savez_compressed(outputs, images=images, **answers.stored)
    return {"samples": entries, "sample_outputs": _write(folder, "samples/outputs.npz", outputs.getvalue())}
