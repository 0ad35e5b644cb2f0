"""Measures every path of a finished run, in floating point, with all devices and with every set that may be left.

    python -m paradis_tf.evaluate --workdir=runs/digits

Writes evaluation.json into the run folder (evaluation_validation.json with --part=validation) and prints three tables:
the switches, or levels; what remains of each when devices are missing, as the plain sum of the slices that arrived; and
the mean of that over the sets with so many devices left. Of a classifier the bias is in the first slice, so it is
missing along with device 0. A set of devices of a diagonal network has the heads of several levels to answer with: the
validation part decides which.
"""

from __future__ import annotations

from absl import flags

from fusion.base.files import check_json_target, results, write_json
from fusion.base.paths import define_path
from fusion.base.streams import say
from paradis_tf.base import program
from paradis_tf.base.files import file_sha256
from paradis_tf.base.metrics import METRICS
from paradis_tf.evaluation.live_subsets import ALL_SUBSETS_UP_TO
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "Run folder of a finished training.", required=True)
_DATA_DIR = define_path("data_dir", None, "Folder with <dataset>.npz files, or that folders of images are in.")
_PART = flags.DEFINE_enum("part", "test", ["test", "validation"], "Which part of the dataset to judge it by.")
_JSON = define_path("json", "", "Another file to write the table to as JSON.")


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.loading():
        from paradis_tf.evaluation import all_switches
        from paradis_tf.training import run as training
    digest = file_sha256(workdir.model_file)
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    part = getattr(dataset, _PART.value)
    rows = all_switches.evaluate(model, part, say, dataset.validation)
    rows = [{**row, "part": _PART.value, "model_file_sha256": digest} for row in rows]
    with results() as write:
        write(write_json, workdir.evaluation_of(_PART.value), rows)
        if _JSON.value:
            write(write_json, _JSON.value, rows)
        print(f"\n{len(part)} {_PART.value} images\n{all_switches.switch_table(rows)}")
        if any(row["devices"] > 1 for row in rows):
            print(f"\nwith devices missing (-), all {len(part)} images\n{all_switches.live_table(rows)}")
        if any(row["devices"] > ALL_SUBSETS_UP_TO for row in rows):
            print(f"(of switches with more than {ALL_SUBSETS_UP_TO} devices, only sets that miss at most 2)")
        if any(row["devices"] > 1 for row in rows):
            metric = METRICS[rows[0]["metric"]]
            print(f"\n{metric.heading}, the mean over the sets with so many devices left")
            print(all_switches.left_table(rows))


if __name__ == "__main__":
    program.run(main)
