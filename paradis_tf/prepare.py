"""Prepares a set of images for training: decodes and checks each, reduces it, and stores all in a few large files.

    python -m paradis_tf.prepare --source=FOLDER --target=sets/mine --size=224
    python -m paradis_tf.prepare --source=FOLDER --target=sets/mine64.npz --size=64
    python -m paradis_tf.prepare --source=tfds:imagenette --target=sets/imagenette --size=224

FOLDER holds `train` and `val`, `validation` or `test`, in each a folder of images for every class. A target that ends
in .npz is one file of square images for sets that fit in memory (dataset `npz`), another one a folder of TFRecord files
for sets of any size (dataset `prepared`). Started again after it was stopped, a folder goes on where it was; a finished
one is checked against its hashes. The same source and size give the same files.
"""

from __future__ import annotations

import os
from pathlib import Path

from absl import flags

from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base import program

_SOURCE = define_path("source", None, "Folder of images, or tfds:NAME, a prepared set of TensorFlow Datasets.")
_TARGET = define_path("target", None, "Folder to make, or a file that ends in .npz.")
_SIZE = flags.DEFINE_integer("size", 224, "Side in pixels of the square input that the set is for.")
_PARTS = flags.DEFINE_list("parts", [], "The source's parts to use, such as train,val; all that are known if left out.")
_SKIP = flags.DEFINE_bool("skip_broken", False, "Leave images out that cannot be used; otherwise they are refused.")
_PROCESSES = flags.DEFINE_integer("processes", 0, "How many work at once; 0 takes the number of cores.")
_DATA_DIR = define_path("data_dir", None, "Where TensorFlow Datasets keeps its sets.")
_MOST_SIDE = 4096


def main(argv: list[str]) -> None:
    _check_flags()
    target = Path(_TARGET.value)
    threads = _PROCESSES.value or len(os.sched_getaffinity(0))
    with program.loading():
        from paradis_tf.data import preparation, sources, squares
    plan = sources.plan(_SOURCE.value, _DATA_DIR.value, _PARTS.value)
    say(f"{plan.name}: {plan.images:,} images of {len(plan.classes)} classes")
    if target.suffix == ".npz":
        name = "npz"
        arrays = squares.prepare(plan, target, _SIZE.value, _SKIP.value, threads)
        counts = {key[2:]: len(labels) for key, labels in arrays.items() if key.startswith("y_")}
    else:
        name = "prepared"
        manifest = preparation.prepare(plan, target, _SIZE.value, _SKIP.value, threads)
        counts = {part: entry["images"] for part, entry in manifest["parts"].items()}
    contents = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    print(f"finished: {target}: {contents}; --config.dataset.name={name} --config.dataset.path={target}")


def _check_flags() -> None:
    for flag, value in (("source", _SOURCE.value), ("target", _TARGET.value)):
        if not value:
            raise UserError(f"--{flag} is missing.")
    if not 1 <= _SIZE.value <= _MOST_SIDE:
        raise UserError(f"--size is {_SIZE.value}; it lies between 1 and {_MOST_SIDE} pixels.")
    if _PROCESSES.value < 0:
        raise UserError(f"--processes is {_PROCESSES.value}; it is at least 1, or 0 for the number of cores.")
    target = Path(_TARGET.value)
    if target.suffix == ".npz" and (os.path.isdir(target) or not os.path.isdir(target.parent)):
        raise UserError(f"--target={target} cannot be written; it takes a file in a folder that is there.")


if __name__ == "__main__":
    program.run(main)
