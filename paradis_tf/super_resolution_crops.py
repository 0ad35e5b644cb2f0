"""Draws crops of test images side by side: bicubic enlargement, every switch, and the truth.

    python -m paradis_tf.super_resolution_crops --workdir=runs/wdsr_x2 --images=Set5 --output=crops.png

Each crop is where bicubic enlargement errs most; captions give the PSNR of the whole image's Y channel.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from fusion.base.files import check_json_target
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "Run folder of a finished training.", required=True)
_DATA_DIR = define_path("data_dir", None, "Folder that the dataset's folders are in.")
_IMAGES = flags.DEFINE_list("images", ["Set5"], "Sets, or images such as Set5/baby, of the test part.")
_SIZE = flags.DEFINE_integer("size", 64, "Side of a crop in high-resolution pixels.", lower_bound=16, upper_bound=1024)
_OUTPUT = define_path("output", None, "Picture to write, .png or .svg.", required=True)


def main(argv: list[str]) -> None:
    output = Path(_OUTPUT.value)
    if output.suffix not in (".png", ".svg"):
        raise UserError(f"--output={output} ends in {output.suffix!r}; it is .png or .svg.")
    check_json_target(output)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.loading():
        from paradis_tf.pictures import crops
        from paradis_tf.training import run as training
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    if not model.task.enlarges:
        raise UserError(f"--workdir={workdir.path} is a run of {model.task.name}; crops are of super-resolution.")
    pairs = dataset.test.select(crops.choose(dataset.test.names, _IMAGES.value))
    crops.draw(model, pairs, _SIZE.value, output, say)
    print(output)


if __name__ == "__main__":
    program.run(main)
