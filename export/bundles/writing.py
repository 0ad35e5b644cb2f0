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
from export.bundles.choice import QuantizationChoice
from export.bundles.folder import temporary_files_in, written_aside
from export.compression.settings import Compression
from export.conversion import slices as conversion
from export.conversion.job import SliceFile
from export.conversion.making import FileMaker, FilePlan
from export.conversion.older import OlderBundle
from export.proof import engines, judges
from export.proof.judges import Judge
from fusion.base.files import write_json
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from paradis_tf.builders.architecture import has_tail
from paradis_tf.records.workdir import package_versions
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

_RUNNER = Path(__file__).parents[2] / "fusion"


@dataclass(frozen=True)
class BundleSettings:
    """How a bundle is made.

    Attributes:
      name: the bundle's name, in characters that are safe in URLs.
      precisions: of `fusion.bundle.contents.PRECISIONS`, the one first that the runner takes unless told otherwise.
      size: (height, width) of the image that the files take.
      calibration_images: how many training images set the ranges of int8 activations.
      float_output: whether int8 files give float32.
      quantization: how int8 files are made: `ptq` (post-training), `qat` (quantization-aware training) or `auto`.
      max_drop: of `auto`: what a switch may lose by `ptq`, in the metric (a part of 1, or dB).
      compression: clusters and sparsity of all files, in float; of `qat` and `auto` also how int8 files are trained.
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
    settings: BundleSettings,
    model: Supernet,
    model_file: Path,
    dataset: Any,
    report: Callable[[str], None],
) -> list[str]:
    """Converts every slice of every switch and writes the bundle, replacing an older one at the end.

    Files of the older bundle that would come out the same are taken from it, and with them the accuracies of switches
    that have no others. Where a switch loses more than `Judge.most_lost` at int8 whatever was done, float16 files are
    added and put first.

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
    older = OlderBundle(target)
    with written_aside(target) as folder, temporary_files_in(folder):
        maker = FileMaker(older, model, model_file, images, training_images, settings.processes, report)
        plan: FilePlan = _plan(model, settings, settings.precisions)
        choices: dict[str, QuantizationChoice] = {}
        if settings.quantization == "auto" and "int8" in settings.precisions:
            # Files that are only judged lie in the new folder, so that none outlives a killed process.
            with tempfile.TemporaryDirectory(dir=folder) as judged:
                settings, plan, choices = _choose(Path(judged), older, settings, maker, plan, model, dataset, report)
        written = _write_slices(folder, settings, model, dataset, maker, plan)
        known = accuracies.kept_accuracies(older, written)
        for entry in written["switches"]:
            entry["accuracy"] = known.get(entry["switch"])
            choice_of = choices.get(entry["switch"])
            entry["quantization"] = None if choice_of is None else dataclasses.asdict(choice_of)
        _write_extras(folder, written)
        report("computing what the slices give for the samples")
        written |= _write_samples(folder, dataset, settings.size)
        write_json(folder / "manifest.json", written)
    return [entry["switch"] for entry in written["switches"] if entry["accuracy"] is None]


def _plan(model: Supernet, settings: BundleSettings, precisions: Sequence[str]) -> dict[SliceFile, Compression | None]:
    """How each file is made, before anything is judged."""
    plain = settings.compression if settings.compression.stages else None
    trains = settings.quantization == "qat"
    int8 = dataclasses.replace(settings.compression, quantization_aware=True) if trains else plain
    plan: dict[SliceFile, Compression | None] = {}
    for switch in model.switches:
        for device in range(switch.devices):
            for precision in precisions:
                is_int8 = precision == "int8"
                file = SliceFile(switch, device, precision, settings.float_output and is_int8)
                plan[file] = int8 if is_int8 else plain
    return plan


def _choose(
    aside: Path,
    older: OlderBundle,
    settings: BundleSettings,
    maker: FileMaker,
    plan: FilePlan,
    model: Supernet,
    dataset: Any,
    report: Callable[[str], None],
) -> tuple[BundleSettings, FilePlan, dict[str, QuantizationChoice]]:
    """The settings, the plan and by switch the choices after int8 files have been judged, in the folder `aside`."""
    count = itertools.count()

    def write(judged: FilePlan) -> Bundle:
        folder = aside / str(next(count))
        folder.mkdir()
        only = dataclasses.replace(settings, precisions=("int8",))
        write_json(folder / "manifest.json", _write_slices(folder, only, model, dataset, maker, judged))
        return manifest.load(folder)

    trained = dataclasses.replace(settings.compression, quantization_aware=True)
    part = pictures.validation(dataset)
    judge: Judge
    if has_tail(model.architecture):
        # It runs the tail of a bundle, for which any switch will do, and files that are there already.
        files = [file for file in plan if file.switch == model.switches[0] and file.precision == "int8"]
        there = all(maker.has(file, trained) for file in files)
        judge = judges.UpscalerJudge(part, write({file: trained if there else plan[file] for file in files}))
    else:
        judge = judges.ClassifierJudge(part)
    scorer = choice.ReferenceScorer(model, judge, write)
    chosen, choices = choice.choose_quantization(
        maker, plan, trained, settings.max_drop, scorer, choice.older_choices(older), report
    )
    by_name = {str(switch): one for switch, one in choices.items()}
    if settings.precisions[0] == "int8" and _is_poor(by_name, judge, report):
        others = [precision for precision in settings.precisions if precision != "float16"]
        settings = dataclasses.replace(settings, precisions=("float16", *others))
        chosen = {**_plan(model, settings, ("float16",)), **chosen}
    return settings, chosen, by_name


def _is_poor(choices: Mapping[str, QuantizationChoice], judge: Judge, report: Callable[[str], None]) -> bool:
    """Whether the int8 files of some switch lose too much to be the first of a bundle; reports it."""
    poor = {switch: choice_of.lost for switch, choice_of in choices.items() if choice_of.lost > judge.most_lost}
    if poor:
        named = ", ".join(f"'{switch}'" for switch in poor)
        lost = judge.per_unit * max(poor.values())
        report(f"int8 loses up to {lost:.2f} {judge.unit} on {named}: float16 files come first in this bundle")
    return bool(poor)


def _write_slices(
    folder: Path, settings: BundleSettings, model: Supernet, dataset: Any, maker: FileMaker, plan: FilePlan
) -> dict[str, Any]:
    """Makes and writes the slice files of a plan and the tail's, and returns the manifest, without samples."""
    files = {file: {**made.entry, **_write(folder, _path(file), made.data)} for file, made in maker.make(plan).items()}
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
    output = model.task.output
    if has_tail(model.architecture):
        data, contents = maker.tail
        tail = {**_write(folder, "slices/tail.float32.tflite", data), "arena_bytes": contents.arena_bytes}
        written["fusion"] |= {"scale": dataset.test.scale, "tail": tail}
        maps = next(tensor.shape for tensor in contents.inputs if tensor.name == "summed")
        written["output"] = {"name": output, "shape": list(maps[1:])}
    else:
        written["output"] = {"name": output, "shape": [len(dataset.class_names)]}
        written["labels"] = list(dataset.class_names)
    switches = dict.fromkeys(file.switch for file in files)
    return written | {
        "precisions": list(settings.precisions),
        "switches": [_switch_entry(settings, model, switch, files) for switch in switches],
        "samples": [],
        "sample_outputs": None,
        "packages": package_versions(),
    }


def _path(file: SliceFile) -> str:
    return f"slices/{file.switch.file_name}/{file.device}.{file.precision}.tflite"


def _write(folder: Path, path: str, data: bytes) -> dict[str, Any]:
    """Writes a file of the bundle; the manifest's entry for it."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _switch_entry(
    settings: BundleSettings, model: Supernet, switch: Switch, files: Mapping[SliceFile, dict[str, Any]]
) -> dict[str, Any]:
    slices = []
    for device, slice_ in enumerate(switch.slices):
        cost = conversion.cost(model, switch, device, (*settings.size, 3))
        start, stop = slice_.texts
        entries = {file.precision: files[file] for file in files if (file.switch, file.device) == (switch, device)}
        slices.append(
            {
                "device": device,
                "start": start,
                "stop": stop,
                "model": f"{settings.name}-{switch.slug}-{device}",
                "madds": cost.madds,
                "parameters": cost.parameters,
                "files": {precision: entries[precision] for precision in settings.precisions},
            }
        )
    return {
        "switch": str(switch),
        "slug": switch.slug,
        "madds": sum(entry["madds"] for entry in slices),
        "accuracy": None,
        "quantization": None,
        "slices": slices,
    }


def _write_extras(folder: Path, written: dict[str, Any]) -> None:
    shutil.copytree(_RUNNER, folder / "fusion", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    (folder / "fusion" / "requirements.txt").replace(folder / "requirements.txt")
    if "labels" in written:
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in written["labels"]), encoding="utf-8")
    (folder / "README.md").write_text(board_readme.render(written), encoding="utf-8")
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
    reference, like_arm = engines.run_all(bundle, [engines.REFERENCE, engines.LIKE_ARM], images)
    on_arm = {f"{key}/arm": stored for key, stored in like_arm.stored.items()}
    packed = samples.pack(images, {**reference.stored, **on_arm})
    return {"samples": entries, "sample_outputs": _write(folder, "samples/outputs.npz", packed)}
