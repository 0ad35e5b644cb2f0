"""Makes the slice files of a bundle: taken from an older one, or trained for, and converted, by several processes."""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.compression import measurement
from export.compression.settings import Compression
from export.conversion import slices as conversion
from export.conversion.job import Conversion, Job, Training
from export.conversion.jobs import convert_all, train_all
from export.conversion.recipes import OlderFiles, Recipes, seal
from export.tflite import graph
from export.tflite.graph import Graph, Tensor
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch

Plan = Mapping[Job, Compression | None]


@dataclass(frozen=True)
class Made:
    """A slice file: its bytes, and what the manifest says of it beside path, hash and size."""

    data: bytes
    entry: dict[str, Any]


class Maker:
    """Makes files as they are asked for, each once.

    Args:
      target: the older bundle's folder, if there is one; files of it that would come out the same are taken.
      model: the trained supernet.
      model_file: the file it was loaded from, which the processes load.
      images: representative images, uint8 (n, height, width, 3).
      training_images: what compression trains on, of the same size.
      processes: how many trainings or conversions run at once, at least 1.
      report: is told what is being done.
    """

    def __init__(
        self,
        target: Path,
        model: Supernet,
        model_file: Path,
        images: np.ndarray,
        training_images: np.ndarray,
        processes: int,
        report: Callable[[str], None],
    ) -> None:
        self._model, self._recipes = model, Recipes(model, images, training_images)
        self._older = OlderFiles(target)
        self._model_file, self._images, self._training_images = model_file, images, training_images
        self._processes, self._report = processes, report
        self._made: dict[str, Made] = {}

    def recipe(self, job: Job, compression: Compression | None) -> str:
        """See `Recipes.of`."""
        return self._recipes.of(job, compression)

    def has(self, job: Job, compression: Compression | None) -> bool:
        """Whether a file is made already, or in the older bundle."""
        recipe = self.recipe(job, compression)
        return recipe in self._made or self._older.find(recipe) is not None

    @functools.cached_property
    def tail(self) -> tuple[bytes, Graph]:
        """The tail's file, for images of the size of `images`, and what was read back from it.

        Raises:
          UserError: as `conversion.convert_tail`.
        """
        _, height, width, channels = self._images.shape
        return conversion.convert_tail(self._model, (height, width, channels))

    def make(self, plan: Plan) -> dict[Job, Made]:
        """The files of a plan: for each job how its switch is compressed, None for not at all.

        Raises:
          UserError: a training or a conversion failed; the others are given up.
        """
        recipes = {job: self.recipe(job, compression) for job, compression in plan.items()}
        before = len(self._made)
        for job, recipe in recipes.items():
            data = None if recipe in self._made else self._older.find(recipe)
            if data is not None:
                self._keep(recipe, job, plan[job], data, graph.read(data))
        taken = len(self._made) - before
        left = [job for job in plan if recipes[job] not in self._made]
        if taken:
            self._report(f"{taken} of {len(plan)} slice files are as they were")
        if left:
            weights = self._train((job.switch, plan[job]) for job in left)
            self._convert(plan, left, recipes, weights)
        return {job: self._made[recipe] for job, recipe in recipes.items()}

    def _keep(self, recipe: str, job: Job, compression: Compression | None, data: bytes, found: Graph) -> None:
        # What an older manifest says is not taken over: it may have been edited.
        self._made[recipe] = Made(data, _entry(job, compression, data, found) | {"recipe": seal(recipe, data)})

    def _train(self, wanted: Iterable[tuple[Switch, Compression | None]]) -> dict[Training, Any]:
        trainings = list(dict.fromkeys(Training(switch, one) for switch, one in wanted if one is not None))
        found: dict[Training, Any] = {}
        if trainings:
            count = min(self._processes, len(trainings))
            self._report(f"compressing {', '.join(str(one.switch) for one in trainings)}, {count} at once")
            train_all(self._model_file, trainings, self._training_images, self._processes, found.__setitem__)
        return found

    def _convert(
        self, plan: Plan, left: list[Job], recipes: Mapping[Job, str], weights: Mapping[Training, Any]
    ) -> None:
        count = itertools.count(1)

        def keep(conversion: Conversion, data: bytes, found: Graph) -> None:
            job = conversion.job
            self._keep(recipes[job], job, plan[job], data, found)
            self._report(f"{next(count)}/{len(left)} done: {job}, {len(data):,} bytes")

        conversions = []
        for job in left:
            compression = plan[job]
            of_switch = None if compression is None else weights[Training(job.switch, compression)]
            conversions.append(Conversion(job, compression, None if of_switch is None else of_switch[job.device]))
        self._report(f"converting {len(left)} slice files, {min(self._processes, len(left))} at once")
        convert_all(self._model_file, conversions, self._images, self._processes, keep)


def _entry(job: Job, compression: Compression | None, data: bytes, found: Graph) -> dict[str, Any]:
    def tensor(one: Tensor) -> dict[str, Any]:
        return {"name": one.name, "dtype": one.dtype, "scale": one.scale, "zero_point": one.zero_point}

    trained = compression is not None and compression.quantization_aware
    entry: dict[str, Any] = {
        "compressed_bytes": len(zlib.compress(data, 9)),
        "arena_bytes": found.arena_bytes,
        "input": tensor(found.inputs[0]),
        "output": tensor(found.outputs[0]),
        "quantization": ("qat" if trained else "ptq") if job.precision == "int8" else None,
        "compression": None,
    }
    if compression is not None:
        entry["compression"] = compression.as_json()
        if job.precision in ("int8", "float32"):
            measured = measurement.measure(data)
            entry["compression"] |= {"found_sparsity": measured.sparsity, "found_clusters": measured.clusters}
    return entry
