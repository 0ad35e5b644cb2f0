"""Recomputes the batch-norm statistics of a finished run, for every device of every path, with frozen weights.

    python -m paradis_tf.recalibrate --workdir=runs/digits

The images are training batches as the run saw them in its first epoch, augmentation included, so the same command gives
the same model. model.keras is replaced when all is done and the accuracies are known; the newest checkpoint keeps the
statistics of training. The model is then another one, with another model id: evaluate and convert it again.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from fusion.base import columns
from fusion.base.files import check_json_target, results, write_json
from fusion.base.paths import define_path
from fusion.base.streams import say
from paradis_tf.base import program
from paradis_tf.base.metrics import metric_of
from paradis_tf.paths import heading_of
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "Run folder of a finished training.", required=True)
_IMAGES = flags.DEFINE_integer(
    "images", 5000, "Average over at least so many training images, or one epoch if it has fewer.", lower_bound=1
)
_DATA_DIR = define_path("data_dir", None, "Folder with <dataset>.npz files.")
_JSON = define_path("json", "", "File to write the table to as JSON.")


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.loading():
        from paradis_tf.data import pipeline
        from paradis_tf.evaluation import all_switches, recalibration
        from paradis_tf.training import run as training

    def report(text: str) -> None:
        say(text)

    with workdir.locked(), pipeline.reading():
        model, dataset = training.load_run(workdir, _DATA_DIR.value)
        config = workdir.config()
        # Before the long work: these refuse what cannot be done.
        recalibration.require_batch_norm(model)
        batches = training.calibration_batches(config, dataset, _IMAGES.value)
        report(f"{len(dataset.validation)} validation images, before:")
        before = all_switches.evaluate(model, dataset.validation, report)
        images = recalibration.recalibrate(model, batches, report=report)
        report(f"{len(dataset.validation)} validation images, after:")
        after = all_switches.evaluate(model, dataset.validation, report)
        workdir.save_model(model)
    metric = metric_of(after[0], str(workdir.path))
    rows = [_row(old, new, images, metric.key) for old, new in zip(before, after, strict=True)]
    lines = [
        (
            row["switch"],
            row["devices"],
            metric.text(row["before"]),
            metric.text(row["after"]),
            f"{metric.scale * (row['after'] - row['before']):+.2f}",
        )
        for row in rows
    ]
    header = (
        heading_of(row["switch"] for row in rows),
        "devices",
        f"before ({metric.unit})",
        f"after ({metric.unit})",
        "change",
    )
    with results() as write:
        if _JSON.value:
            write(write_json, _JSON.value, rows)
        print(
            f"\n{metric.title} on {len(dataset.validation)} validation images, statistics of {images} training images"
        )
        print(columns.render(header, lines))
        print(f"{workdir.model_file} is replaced; run paradis_tf.evaluate on it again.")


def _row(before: dict[str, Any], after: dict[str, Any], images: int, metric: str) -> dict[str, Any]:
    return {
        "model_id": after["model_id"],
        "switch": after["switch"],
        "devices": after["devices"],
        "images": images,
        "validation_images": after["images"],
        "metric": metric,
        "before": before[metric],
        "after": after[metric],
    }


if __name__ == "__main__":
    program.run(main)
