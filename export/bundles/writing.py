"""Writes a bundle: slice files, manifest, samples, labels and the runner, whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from export.bundles import accuracies, board_readme, choice, pictures, samples
from export.bundles.choice import Verdict
from export.bundles.folder import temporary_files_in, written_aside
from export.compression.settings import Compression
from export.conversion import slices as conversion
from export.conversion.job import Job
from export.conversion.making import Maker, Plan
from export.proof import engines, judges
from export.proof.judges import Judge
from fusion.base.files import write_json
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from paradis_tf.builders.operations import Tailed
from paradis_tf.records.workdir import package_versions
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_RUNNER = Path(__file__).parents[2] / "fusion"


@dataclass(frozen=True)
class Settings:
    """How a bundle is made.

    Attributes:
      name: the bundle's name, in characters that are safe in URLs.
      precisions: of `fusion.bundle.contents.PRECISIONS`, the one first that the runner takes unless told otherwise.
      size: (height, width) of the image that the files take.
      calibration_images: how many training images set the ranges of int8 activations.
      float_output: whether int8 files give float32.
      quantization: how int8 files are made: `ptq` (post-training), `qat` (quantization-aware training) or `auto`.
      max_drop: of `auto`: what a switch may lose by `ptq`, in the metric (a part of 1, or dB).
      compression: the training of `qat` and `auto`; its clusters and sparsity are of all files.
      training_images: how many training images compression learns from at most.
      processes: how many trainings or conversions run at once, at least 1.
    """

    name: str
    precisions: tuple[str, ...]
    size: tuple[int, int]
    calibration_images: int
    float_output: bool
    quantization: str
    max_drop: float
    compression: Compression
    training_images: int
    processes: int


def write(
    target: Path,
    settings: Settings,
    model: Supernet,
    model_file: Path,
    dataset: Any,
    report: Callable[[str], None],
) -> list[str]:
    """Converts every slice of every switch and writes the bundle, replacing an older one at the end.

    Files of the older bundle that would come out the same are taken from it, and with them the accuracies of switches
    that have no others. Where a switch loses more than
    `Judge.most_lost` at int8 whatever was done, float16 files are added and put first.

    Args:
      target: the bundle's folder.
      settings: how it is made.
      model: the trained supernet.
      model_file: the file it was loaded from, which the converting processes load.
      dataset: gives representative and training images (training part), what `auto` judges by and samples (validation
        part), and labels.
      report: is told what is being done.

    Returns:
      the switches whose accuracies are not known.

    Raises:
      UserError: too few images, a conversion that failed, or a target that is not a bundle or cannot be written.
    """
    images = pictures.representative(dataset, settings.size, settings.calibration_images)
    training_images = pictures.for_training(dataset, settings.size, settings.training_images)
    with written_aside(target) as folder, temporary_files_in(folder):
        maker = Maker(target, model, model_file, images, training_images, settings.processes, report)
        plan: Plan = _plan(model, settings, settings.precisions)
        verdicts: dict[Switch, Verdict] = {}
        if settings.quantization == "auto" and "int8" in settings.precisions:
            # Files that are only judged lie in the new folder, so that none outlives a killed process.
            with tempfile.TemporaryDirectory(dir=folder) as judged:
                older = choice.older_verdicts(target)
                settings, plan, verdicts = _choose(Path(judged), older, settings, maker, plan, model, dataset, report)
        written = _write_slices(folder, settings, model, dataset, maker, plan)
        known = accuracies.still_true(target, written)
        for entry in written["switches"]:
            entry["accuracy"] = known.get(entry["switch"])
            verdict = next((one for switch, one in verdicts.items() if str(switch) == entry["switch"]), None)
            entry["quantization"] = None if verdict is None else dataclasses.asdict(verdict)
        _write_extras(folder, written)
        report("computing what the slices give for the samples")
        written |= _write_samples(folder, dataset, settings.size)
        write_json(folder / "manifest.json", written)
    return [entry["switch"] for entry in written["switches"] if entry["accuracy"] is None]


def _plan(model: Supernet, settings: Settings, precisions: Sequence[str]) -> dict[Job, Compression | None]:
    """How each file is made, before anything is judged."""
    shrunk = settings.compression.clusters or settings.compression.sparsity
    plain = dataclasses.replace(settings.compression, quantization_aware=False) if shrunk else None
    trained = dataclasses.replace(settings.compression, quantization_aware=True)
    plan: dict[Job, Compression | None] = {}
    for switch in model.switches:
        for device in range(switch.devices):
            for precision in precisions:
                whole = precision == "int8"
                job = Job(switch, device, precision, settings.float_output and whole)
                plan[job] = trained if whole and settings.quantization == "qat" else plain
    return plan


def _choose(
    aside: Path,
    older: Mapping[str, Verdict],
    settings: Settings,
    maker: Maker,
    plan: Plan,
    model: Supernet,
    dataset: Any,
    report: Callable[[str], None],
) -> tuple[Settings, Plan, dict[Switch, Verdict]]:
    """The settings, the plan and the verdicts after int8 files have been judged, in the folder `aside`."""
    count = itertools.count()

    def write(part: Plan) -> Bundle:
        folder = aside / str(next(count))
        folder.mkdir()
        only = dataclasses.replace(settings, precisions=("int8",))
        write_json(folder / "manifest.json", _write_slices(folder, only, model, dataset, maker, part))
        return manifest.load(folder)

    trained = dataclasses.replace(settings.compression, quantization_aware=True)
    part = pictures.validation(dataset)
    judge: Judge
    if isinstance(model.architecture, Tailed):
        # It runs the tail of a bundle, for which any switch will do, and files that are there already.
        jobs = [job for job in plan if job.switch == model.switches[0] and job.precision == "int8"]
        there = all(maker.has(job, trained) for job in jobs)
        judge = judges.UpscalerJudge(part, write({job: trained if there else plan[job] for job in jobs}))
    else:
        judge = judges.ClassifierJudge(part)
    chosen, verdicts = choice.choose(maker, plan, trained, settings.max_drop, model, judge, write, older, report)
    poor = [switch for switch, one in verdicts.items() if one.lost > judge.most_lost]
    if poor and settings.precisions[0] == "int8":
        named = ", ".join(f"'{switch}'" for switch in poor)
        lost = judge.per_unit * max(verdicts[switch].lost for switch in poor)
        report(f"int8 loses up to {lost:.2f} {judge.unit} on {named}: float16 files come first in this bundle")
        others = [precision for precision in settings.precisions if precision != "float16"]
        settings = dataclasses.replace(settings, precisions=("float16", *others))
        chosen = {**_plan(model, settings, ("float16",)), **chosen}
    return settings, chosen, verdicts


def _write_slices(
    folder: Path, settings: Settings, model: Supernet, dataset: Any, maker: Maker, plan: Plan
) -> dict[str, Any]:
    """Makes and writes the slice files of a plan and the tail's, and returns the manifest, without samples."""
    files = {job: {**one.entry, **_write(folder, _path(job), one.data)} for job, one in maker.make(plan).items()}
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
        data, found = maker.tail
        tail = {**_write(folder, "slices/tail.float32.tflite", data), "arena_bytes": found.arena_bytes}
        written["fusion"] |= {"scale": dataset.test.scale, "tail": tail}
        maps = next(tensor.shape for tensor in found.inputs if tensor.name == "summed")
        written["output"] = {"name": output, "shape": list(maps[1:])}
    else:
        written["output"] = {"name": output, "shape": [len(dataset.class_names)]}
        written["labels"] = list(dataset.class_names)
    return written | {
        "precisions": list(settings.precisions),
        "switches": [
            _switch_entry(settings, model, switch, files) for switch in dict.fromkeys(job.switch for job in files)
        ],
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
        "quantization": None,
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
    images, labels = samples.choose(dataset, size)
    bundle = manifest.load(folder)
    (folder / "samples").mkdir()
    entries: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        file = f"samples/{number}.png"
        Image.fromarray(image).save(folder / file)
        entries.append({"file": file, "label": None if labels is None else labels[number]})
    answers, like_arm = engines.ask_all(bundle, [engines.REFERENCE, engines.LIKE_ARM], images)
    on_arm = {f"{key}/arm": stored for key, stored in like_arm.stored.items()}
    packed = samples.pack(images, {**answers.stored, **on_arm})
    return {"samples": entries, "sample_outputs": _write(folder, "samples/outputs.npz", packed)}
