"""Makes the slice files of a bundle: taken from an older one, or compressed and converted by several processes."""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.compression import measurement
from export.compression.settings import Compression
from export.conversion import slices as conversion
from export.conversion.job import CompressionJob, ConversionJob, SliceFile
from export.conversion.jobs import compress_all, convert_all
from export.conversion.older import OlderBundle, seal
from export.conversion.recipes import Recipes
from export.tflite import graph
from export.tflite.graph import FileTensor, Graph
from paradis_tf.supernet import Supernet

# For each file how its switch is compressed, None for not at all.
FilePlan = Mapping[SliceFile, Compression | None]


@dataclass(frozen=True)
class MadeFile:
    """A slice file: its bytes, and what the manifest says of it beside path, hash and size."""

    data: bytes
    entry: dict[str, Any]


class FileMaker:
    """Makes files, each once.

    Args:
      older: the older bundle; files of it that would come out the same are taken.
      model: the trained supernet.
      model_file: the file it was loaded from, which the processes load.
      images: representative images, uint8 (n, height, width, 3).
      training_images: what compression trains on, of the same size.
      processes: how many compressions or conversions run at once, at least 1.
      report: is told what is being done.
    """

    def __init__(
        self,
        older: OlderBundle,
        model: Supernet,
        model_file: Path,
        images: np.ndarray,
        training_images: np.ndarray,
        processes: int,
        report: Callable[[str], None],
    ) -> None:
        self._older, self._model, self._recipes = older, model, Recipes(model, images, training_images)
        self._model_file, self._images, self._training_images = model_file, images, training_images
        self._processes, self._report = processes, report
        self._made: dict[str, MadeFile] = {}

    def recipe(self, file: SliceFile, compression: Compression | None) -> str:
        """See `Recipes.digest`."""
        return self._recipes.digest(file, compression)

    def has(self, file: SliceFile, compression: Compression | None) -> bool:
        """Whether a file is made already, or in the older bundle."""
        recipe = self.recipe(file, compression)
        return recipe in self._made or self._older.find_file(recipe) is not None

    @functools.cached_property
    def tail(self) -> tuple[bytes, Graph]:
        """The tail's file, for images of the size of `images`, and what was read back from it.

        Raises:
          UserError: as `conversion.convert_tail`.
        """
        _, height, width, channels = self._images.shape
        return conversion.convert_tail(self._model, (height, width, channels))

    def make(self, plan: FilePlan) -> dict[SliceFile, MadeFile]:
        """The files of a plan.

        Raises:
          UserError: a compression or a conversion failed; the others are given up.
        """
        recipes = {file: self.recipe(file, compression) for file, compression in plan.items()}
        self._take_older(plan, recipes)
        missing = [file for file in plan if recipes[file] not in self._made]
        if missing:
            self._convert(plan, missing, recipes, self._compress(plan, missing))
        return {file: self._made[recipe] for file, recipe in recipes.items()}

    def _take_older(self, plan: FilePlan, recipes: Mapping[SliceFile, str]) -> None:
        before = len(self._made)
        for file, recipe in recipes.items():
            data = None if recipe in self._made else self._older.find_file(recipe)
            if data is not None:
                self._keep(recipe, file, plan[file], data, graph.read(data))
        taken = len(self._made) - before
        if taken:
            self._report(f"{taken} of {len(plan)} slice files are as they were")

    def _keep(
        self, recipe: str, file: SliceFile, compression: Compression | None, data: bytes, contents: Graph
    ) -> None:
        # What an older manifest says is not taken over: it may have been edited.
        self._made[recipe] = MadeFile(data, _entry(file, compression, data, contents) | {"recipe": seal(recipe, data)})

    def _compress(self, plan: FilePlan, files: Sequence[SliceFile]) -> dict[CompressionJob, Any]:
        """The weights that the switches of files are compressed to, those that the plan compresses."""
        compressions = ((file.switch, plan[file]) for file in files)
        jobs = list(dict.fromkeys(CompressionJob(switch, one) for switch, one in compressions if one is not None))
        weights: dict[CompressionJob, Any] = {}
        if jobs:
            count = min(self._processes, len(jobs))
            self._report(f"compressing {', '.join(str(job.switch) for job in jobs)}, {count} at once")
            compress_all(self._model_file, jobs, self._training_images, self._processes, weights.__setitem__)
        return weights

    def _convert(
        self,
        plan: FilePlan,
        files: Sequence[SliceFile],
        recipes: Mapping[SliceFile, str],
        weights: Mapping[CompressionJob, Any],
    ) -> None:
        count = itertools.count(1)

        def keep(job: ConversionJob, data: bytes, contents: Graph) -> None:
            self._keep(recipes[job.file], job.file, plan[job.file], data, contents)
            self._report(f"{next(count)}/{len(files)} done: {job}, {len(data):,} bytes")

        jobs = []
        for file in files:
            compression = plan[file]
            if compression is None:
                jobs.append(ConversionJob(file))
            else:
                compressed = weights[CompressionJob(file.switch, compression)]
                jobs.append(ConversionJob(file, compression, compressed[file.device]))
        self._report(f"converting {len(files)} slice files, {min(self._processes, len(files))} at once")
        convert_all(self._model_file, jobs, self._images, self._processes, keep)


def _entry(file: SliceFile, compression: Compression | None, data: bytes, contents: Graph) -> dict[str, Any]:
    def describe(tensor: FileTensor) -> dict[str, Any]:
        return {"name": tensor.name, "dtype": tensor.dtype, "scale": tensor.scale, "zero_point": tensor.zero_point}

    trained = compression is not None and compression.quantization_aware
    entry: dict[str, Any] = {
        "compressed_bytes": len(zlib.compress(data, 9)),
        "arena_bytes": contents.arena_bytes,
        "input": describe(contents.inputs[0]),
        "output": describe(contents.outputs[0]),
        "quantization": ("qat" if trained else "ptq") if file.precision == "int8" else None,
        "compression": None,
    }
    if compression is not None:
        entry["compression"] = compression.as_json()
        if file.precision in ("int8", "float32"):
            measured = measurement.measure(data)
            entry["compression"] |= {"found_sparsity": measured.sparsity, "found_clusters": measured.clusters}
    return entry
