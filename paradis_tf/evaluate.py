"""Measures every switch of a finished run on the test part, in floating point.

    python -m paradis_tf.evaluate --workdir=runs/digits

Writes evaluation.json into the run folder and prints the table.
"""

from __future__ import annotations

from absl import flags

from export.fusion.files import check_json_target, write_json
from paradis_tf import program, table
from paradis_tf.workdir import Workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of a finished training.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with <dataset>.npz files, or that folders of images are in.")
_JSON = flags.DEFINE_string("json", "", "Another file to write the table to as JSON.")


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.quiet():
        from paradis_tf import evaluation, super_resolution_evaluation, training
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    rows = evaluation.evaluate(model, dataset.test, lambda text: print(text, flush=True))
    write_json(workdir.evaluation_file, rows)
    if _JSON.value:
        write_json(_JSON.value, rows)
    if model.task.name == "super_resolution":
        print(f"\n{super_resolution_evaluation.quality_table(rows)}")
        return
    lines = [
        (
            row["switch"],
            row["devices"],
            f"{row['madds_total'] / 1e6:.2f}",
            f"{row['madds_largest'] / 1e6:.2f}",
            f"{100 * row['accuracy']:.2f}",
        )
        for row in rows
    ]
    header = ("switch", "devices", "MAdds total (M)", "largest device (M)", "accuracy (%)")
    print(f"\n{len(dataset.test)} test images\n{table.render(header, lines)}")


if __name__ == "__main__":
    program.run(main)
