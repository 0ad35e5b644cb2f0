"""What the classifier's bias would be worth to answers without the first device, whose slice has it.

    python -m benchmarks.live_bias --workdir=runs/digits --csv=benchmarks/results/live_bias_digits.csv

For every set of live devices without device 0: the accuracy on the test part as it is, without the bias, and as it
would be if the bias were added to the sum. The mean over the sets with as many devices left is what it prints. A bias
that is worth nothing there may stay where it is. See METHODOLOGY.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.conditions import write_csv
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path, define_paths
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program
from paradis_tf.evaluation.live_subsets import live_subsets, means_by_left
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_paths(
    "workdir", None, "Run folder of a finished training; may be given several times.", required=True
)
_DATA_DIR = define_path("data_dir", None, "Folder with <dataset>.npz files, or that folders of images are in.")
_CSV = define_path("csv", "", "File to write the table to.")

_HEADER = ("run", "switch", "devices_left", "sets", "without_bias", "with_bias", "difference")


def main(argv: list[str]) -> None:
    workdirs = [Workdir.open(path) for path in _WORKDIR.value]
    for workdir in workdirs:
        workdir.require_model()
    with program.loading():
        from paradis_tf.training import run as training

    rows = []
    for workdir in workdirs:
        model, dataset = training.load_run(workdir, _DATA_DIR.value)
        if model.task.name != "classification":
            raise UserError(f"{workdir.path} is of {model.task.name}; only a classifier has a bias in one slice alone.")
        for switch in (switch for switch in model.switches if switch.devices > 1):
            say(f"{workdir.path.name}: evaluating switch {switch}")
            measured = accuracies(model, switch, dataset.test)
            rows += means(workdir.path.name, switch, measured)
    with results() as write:
        if _CSV.value:
            write(write_csv, Path(_CSV.value), _HEADER, rows)
        print("\naccuracy in % of sets without device 0, the mean over them")
        print(table(rows))


def accuracies(model: Any, switch: Any, part: Any) -> dict[tuple[int, ...], tuple[float, float]]:
    """By set of live devices without device 0: the accuracy without the bias and with it, 0..1, of sums in double
    precision, as `paradis_tf.evaluate` adds."""
    import numpy as np

    from paradis_tf.data import pipeline
    from paradis_tf.evaluation.classification import label_places, partial_logits

    # The classifier is the only dense layer.
    bias = next(layer.bias for layer in reversed(model.shared_layers) if getattr(layer, "bias", None) is not None)
    hits = {live: np.zeros(2, np.int64) for live in live_subsets(switch.devices) if 0 not in live}
    run = partial_logits(model, switch)
    with pipeline.reading():
        for images, labels in pipeline.evaluation_batches(part, 256):
            partial = [logits.numpy().astype(np.float64) for logits in run(images)]
            for live, count in hits.items():
                logits = np.sum([partial[device] for device in live], axis=0)
                fused = [sum_.astype(np.float32) for sum_ in (logits, logits + bias.numpy())]
                count += [(label_places(sum_, labels.numpy()) < 1).sum() for sum_ in fused]
    return {live: (count[0] / len(part), count[1] / len(part)) for live, count in hits.items()}


def means(run: str, switch: Any, measured: Mapping[tuple[int, ...], tuple[float, float]]) -> list[tuple[Any, ...]]:
    """A row of the table for each number of devices left, as `accuracies` has measured a switch of a run."""
    # Of the devices but the first.
    without, with_bias = (
        means_by_left({live: both[place] for live, both in measured.items()}, switch.devices - 1) for place in (0, 1)
    )
    counts = Counter(map(len, measured))
    return [
        (run, str(switch), left, counts[left], mean, with_bias[left], with_bias[left] - mean)
        for left, mean in without.items()
    ]


def table(rows: Sequence[tuple[Any, ...]]) -> str:
    """The rows for the terminal."""
    shown = [(*row[:4], *(f"{100 * value:.2f}" for value in row[4:6]), f"{100 * row[6]:+.2f}") for row in rows]
    return columns.render(("run", "switch", "left", "sets", "without bias", "with it", "difference"), shown)


if __name__ == "__main__":
    program.run(main)
