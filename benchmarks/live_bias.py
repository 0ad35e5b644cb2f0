"""What the classifier's bias would be worth to answers without the first device, whose slice has it.

    python -m benchmarks.live_bias --workdir=runs/digits --csv=benchmarks/results/live_bias_digits.csv

For every set of live devices without device 0: the accuracy on the test part as it is, without the bias, and as it
would be if the bias were added to the sum. The mean over the sets with as many devices left is what it prints. A bias
that is worth nothing there may stay where it is. See METHODOLOGY.md.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import bias
from benchmarks.conditions import write_csv
from fusion.base.files import results
from fusion.base.paths import define_path, define_paths
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program
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
            measured = bias.accuracies(model, switch, dataset.test)
            rows += bias.means(workdir.path.name, switch, measured)
    with results() as write:
        if _CSV.value:
            write(write_csv, Path(_CSV.value), _HEADER, rows)
        print("\naccuracy in % of sets without device 0, the mean over them")
        print(bias.table(rows))


if __name__ == "__main__":
    program.run(main)
