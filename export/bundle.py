"""Writes a bundle: slice files, manifest, samples, labels and the runner, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export import board_readme, engines
from export.folder import written_aside
from export.fusion import manifest
from export.fusion.files import write_json
from export.fusion.program import UserError
from export.graph import Graph, Tensor
from export.jobs import Job, convert_all
from paradis_tf.builders.cost import switch_costs
from paradis_tf.data.datasets import Dataset
from paradis_tf.records.workdir import package_versions
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_RUNNER = Path(__file__).parent / "fusion"
_SAMPLES = 5


def write(
    target: Path,
    name: str,
    model: Supernet,
    model_file: Path,
    dataset: Dataset,
    precisions: Sequence[str],
    calibration_images: int,
    processes: int,
    report: Callable[[str], None],
) -> None:
    """Converts every slice of every switch and writes the bundle, replacing an older one at the end.

    Args:
      target: the bundle's folder.
      name: the bundle's name, in characters that are safe in URLs.
      model: the trained supernet.
      model_file: the file it was loaded from, which the converting processes load.
      dataset: gives representative images (training part), samples (validation part) and labels.
      precisions: of `export.jobs.PRECISIONS`.
      calibration_images: how many training images set the ranges of int8 activations.
      processes: how many conversions run at once, at least 1.
      report: is told what is being done.

    Raises:
      UserError: too few images, a conversion that failed, or a target that is not a bundle or cannot be written.
    """
    images = _spread(dataset.train.images, calibration_images)
    if processes < 1:
        raise UserError(f"--processes is {processes}; it is at least 1.")
    jobs = [
        Job(switch, device, precision)
        for switch in model.switches
        for device in range(switch.devices)
        for precision in precisions
    ]
    with written_aside(target) as folder:
        files: dict[Job, dict[str, Any]] = {}

        def keep(job: Job, data: bytes, found: Graph) -> None:
            files[job] = _write_file(folder, job, data, found)
            report(f"{len(files)}/{len(jobs)} {job}: {len(data):,} bytes")

        report(f"converting {len(jobs)} slice files, {min(processes, len(jobs))} at once")
        convert_all(model_file, jobs, images, processes, keep)
        written = {
            "schema_version": manifest.SCHEMA_VERSION,
            "name": name,
            "model_id": model.model_id(),
            "task": "classification",
            "architecture": model.architecture_config(),
            "input": {
                "name": "image",
                "shape": list(model.architecture.image_shape),
                "dtype": "uint8",
                "range": [0, 255],
                "color": "RGB",
            },
            "labels": list(dataset.class_names),
            "fusion": {"rule": "sum", "output": "logits", "classes": len(dataset.class_names)},
            "precisions": list(precisions),
            "switches": [_switch_entry(name, model, switch, precisions, files) for switch in model.switches],
            "samples": [],
            "packages": package_versions(),
        }
        _write_extras(folder, written)
        report("computing the samples' expected answers")
        written["samples"] = _write_samples(folder, dataset)
        write_json(folder / "manifest.json", written)


def _spread(images: np.ndarray, count: int) -> np.ndarray:
    if not 1 <= count <= len(images):
        raise UserError(f"--calibration_images is {count}; it lies between 1 and the {len(images)} training images.")
    return images[np.linspace(0, len(images) - 1, count).round().astype(int)]


def _write_file(folder: Path, job: Job, data: bytes, found: Graph) -> dict[str, Any]:
    def tensor(one: Tensor) -> dict[str, Any]:
        return {"name": one.name, "dtype": one.dtype, "scale": one.scale, "zero_point": one.zero_point}

    path = Path("slices") / job.switch.file_name / f"{job.device}.{job.precision}.tflite"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return {
        "path": path.as_posix(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "input": tensor(found.input),
        "output": tensor(found.output),
    }


def _switch_entry(
    name: str,
    model: Supernet,
    switch: Switch,
    precisions: Sequence[str],
    files: Mapping[Job, dict[str, Any]],
) -> dict[str, Any]:
    slices = []
    for device, (slice, cost) in enumerate(zip(switch.slices, switch_costs(model.architecture, switch), strict=True)):
        start, stop = slice.texts
        slices.append(
            {
                "device": device,
                "start": start,
                "stop": stop,
                "model": f"{name}-{switch.slug}-{device}",
                "madds": cost.madds,
                "parameters": cost.parameters,
                "files": {p: files[Job(switch, device, p)] for p in precisions},
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
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in written["labels"]))
    (folder / "README.md").write_text(board_readme.render(written))
    # The samples are computed from the files through the runner, which wants a manifest.
    write_json(folder / "manifest.json", written)


def _write_samples(folder: Path, dataset: Dataset) -> list[dict[str, Any]]:
    bundle = manifest.load(folder)
    part = dataset.validation
    # One image of each of the first classes, so that the samples differ.
    chosen = [int(np.flatnonzero(part.labels == label)[0]) for label in np.unique(part.labels)[:_SAMPLES]]
    images = part.images[chosen]
    expected: list[dict[str, dict[str, list[float]]]] = [{} for _ in chosen]
    answers = engines.ask(bundle, engines.REFERENCE, images)
    for entry in bundle.switches:
        for precision in bundle.precisions:
            for sample, logits in zip(expected, answers.fused(entry, precision), strict=True):
                sample.setdefault(entry.switch, {})[precision] = [float(value) for value in logits]
    (folder / "samples").mkdir()
    samples = []
    for number, index in enumerate(chosen):
        file = f"samples/{number}.png"
        Image.fromarray(part.images[index]).save(folder / file)
        samples.append({"file": file, "label": int(part.labels[index]), "expected": expected[number]})
    return samples
