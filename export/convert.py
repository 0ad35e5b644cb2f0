"""Converts a finished run into a bundle: one .tflite file per device of every switch, the manifest and the runner.

python -m export.convert --workdir=runs/digits --bundle=build/digits --precision=int8,float32
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from absl import flags

from export.folder import check_target
from export.fusion.program import UserError
from export.jobs import PRECISIONS
from paradis_tf import program
from paradis_tf.records.workdir import Workdir

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder of a finished training.", required=True)
_BUNDLE = flags.DEFINE_string("bundle", None, "Folder to write; an older bundle there is replaced.", required=True)
_PRECISION = flags.DEFINE_list("precision", ["int8"], f"Precisions, of {', '.join(PRECISIONS)}.")
_CALIBRATION = flags.DEFINE_integer(
    "calibration_images",
    None,
    "Images of the training part that set the ranges of int8 activations; by default 256, or all if there are fewer.",
)
_PROCESSES = flags.DEFINE_integer("processes", os.cpu_count(), "Conversions that run at once, one process each.")
_NAME = flags.DEFINE_string(
    "name", "", "The bundle's name, which its models bear in URLs; <dataset>_<architecture> if left out."
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with <dataset>.npz files.")


def main(argv: list[str]) -> None:
    precisions = list(dict.fromkeys(_PRECISION.value))
    unknown = [precision for precision in precisions if precision not in PRECISIONS]
    if unknown or not precisions:
        raise UserError(f"--precision={','.join(_PRECISION.value)}; it takes {', '.join(PRECISIONS)}.")
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)?", _NAME.value):
        raise UserError(f"--name={_NAME.value}; it takes letters, digits, '.', '_' and '-', a letter or digit first.")
    check_target(Path(_BUNDLE.value))
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.quiet():
        from export import bundle
        from paradis_tf import training
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    if model.task.name != "classification":
        raise UserError(f"--workdir={workdir.path} is a run of {model.task.name}; bundles are of classification.")
    config = workdir.config()
    name = _NAME.value or f"{config['dataset']['name']}_{config['model']['name']}"
    bundle.write(
        Path(_BUNDLE.value),
        name,
        model,
        workdir.model_file,
        dataset,
        precisions,
        min(256, len(dataset.train)) if _CALIBRATION.value is None else _CALIBRATION.value,
        _PROCESSES.value,
        lambda text: print(text, flush=True),
    )
    print(f"wrote {_BUNDLE.value}")


if __name__ == "__main__":
    program.run(main)
