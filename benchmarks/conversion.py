"""Times the conversion of a run's slices, all of them by several processes, against the slowest of them alone.

    python -m benchmarks.conversion --workdir=runs/cifar10 --data_dir=FOLDER --csv=conversion_4cores.csv

Each is `export.convert`'s own work, int8, without the reading of the run: processes start, load the model and convert.
Each slice alone is one process with one job; all slices are --processes processes with all jobs. See METHODOLOGY.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from absl import flags

from benchmarks.conditions import write_csv
from export.conversion.job import ConversionJob, SliceFile
from export.conversion.jobs import convert_all
from fusion.base import columns
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of a finished training.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with <dataset>.npz files.")
_PROCESSES = flags.DEFINE_integer("processes", len(os.sched_getaffinity(0)), "Conversions that run at once.", 1)
_IMAGES = flags.DEFINE_integer("calibration_images", 256, "Images that set the ranges of activations.", 1)
_CSV = flags.DEFINE_string("csv", "", "File to write the times to.")


def main(argv: list[str]) -> None:
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.quiet():
        from export.bundles import pictures
        from paradis_tf.training import run as training
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    if model.task.enlarges:
        raise UserError(f"--workdir={workdir.path} is a run of {model.task.name}; this times classifiers.")
    height, width, _ = model.architecture.image_shape
    images = pictures.representative(dataset, (height, width), _IMAGES.value)
    jobs = [SliceFile(switch, device, "int8") for switch in model.switches for device in range(switch.devices)]

    def seconds(chosen: list[SliceFile], processes: int) -> float:
        started = time.perf_counter()
        convert_all(workdir.model_file, [ConversionJob(job) for job in chosen], images, processes, lambda *done: None)
        return time.perf_counter() - started

    rows: list[tuple[str, int, float]] = []
    for job in jobs:
        rows.append((str(job), 1, round(seconds([job], 1), 2)))
        print(f"{job}: {rows[-1][2]} s", flush=True)
    largest = max(row[2] for row in rows)
    together = round(seconds(jobs, _PROCESSES.value), 2)
    rows.append((f"all {len(jobs)}", _PROCESSES.value, together))
    rows.append(("all / largest", _PROCESSES.value, round(together / largest, 2)))
    print(columns.render(("conversion", "processes", "seconds"), rows))
    if _CSV.value:
        options = {"architecture": model.architecture.name, "images": _IMAGES.value}
        write_csv(Path(_CSV.value), ("conversion", "processes", "seconds"), rows, options)


if __name__ == "__main__":
    program.run(main)
