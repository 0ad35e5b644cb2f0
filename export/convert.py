"""Converts a finished run into a bundle: one .tflite file per device of every switch, the manifest and the runner.

    python -m export.convert --workdir=runs/digits --bundle=build/digits --precision=int8,float32

Done again it converts only what has changed: files of the older bundle that would come out the same are kept.

The flags, which are listed by name below, in the order of use:
  from and to         --workdir, --data_dir; --bundle, --name, --archive
  the files           --precision, --output, --image_size
  int8                --calibration_images, --quantization, --max_drop
  smaller files       --sparsity, --clusters
  these trainings     --compression_steps, --compression_learning_rate, --compression_images
  this machine        --processes
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from absl import flags

from export.bundles import archive
from export.bundles.folder import check_target
from export.compression.settings import MOST_CLUSTERS, Compression
from fusion.base.paths import define_path
from fusion.base.program import UserError, define_float
from fusion.base.streams import say
from fusion.bundle.contents import PRECISIONS
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

_WORKDIR = define_path("workdir", None, "Run folder of a finished training.", required=True)
_BUNDLE = define_path("bundle", None, "Folder to write; an older bundle there is replaced.", required=True)
_PRECISION = flags.DEFINE_list(
    "precision",
    ["int8"],
    f"Precisions, of {', '.join(PRECISIONS)}. In `dynamic` files the weights of layers of 1,024 or more are 8-bit; the "
    "converter leaves smaller ones in float.",
)
_OUTPUT = flags.DEFINE_enum(
    "output", "quantized", ("quantized", "float32"), "What int8 files give: int8 with a scale, or float32."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    96,
    "Of super-resolution: side, in pixels, of the square low-resolution image that the files take; larger images are "
    "cut in tiles of it. Classifiers take images of the size they were trained on.",
    16,
    1024,
)
_CALIBRATION = flags.DEFINE_integer(
    "calibration_images",
    None,
    "How many images of the training part set the ranges of int8 activations, at most all of them; by default 256, of "
    "super-resolution 64, or all if there are fewer.",
    1,
)
_QUANTIZATION = flags.DEFINE_enum(
    "quantization",
    "auto",
    ("ptq", "qat", "auto"),
    "How int8 files are made: after training, by quantization-aware training of all slices of a switch together, or by "
    "that training only where a switch loses more than --max_drop otherwise, judged by the validation part.",
)
_MAX_DROP = define_float(
    "max_drop",
    None,
    "With --quantization=auto: what a switch may lose before it is trained, in percentage points of accuracy, 0.5 by "
    "default, or in dB of PSNR-Y, 0.05 by default.",
    0,
    100,
)
_CLUSTERS = flags.DEFINE_integer(
    "clusters",
    0,
    "How many distinct weights each convolution keeps, for files that compress well: 2 or more, with --sparsity 3 or "
    "more, of which one is 0; 0 keeps all. Int8 files of so few are made by --quantization=ptq.",
    0,
    MOST_CLUSTERS,
)
_SPARSITY = define_float("sparsity", 0.0, "Fraction of each convolution's weights that become 0; 0 keeps all.", 0, 0.99)
_STEPS = flags.DEFINE_integer(
    "compression_steps",
    Compression.steps,
    "Optimizer steps of each training of a switch: of pruning, of clustering and of quantization-aware training.",
    1,
    1_000_000,
)
_LEARNING_RATE = define_float(
    "compression_learning_rate",
    Compression.learning_rate,
    "Adam's learning rate at the first step of quantization-aware training; it falls to 0. Pruning and clustering "
    "start from five times as much.",
    1e-9,
    0.1,
)
_TRAINING_IMAGES = flags.DEFINE_integer(
    "compression_images", 10_000, "How many images of the training part these trainings learn from at most.", 1
)
_PROCESSES = flags.DEFINE_integer(
    "processes", os.cpu_count(), "How many conversions or trainings run at once, one process each.", 1
)
_NAME = flags.DEFINE_string(
    "name", "", "The bundle's name, which its models bear in URLs; <dataset>_<architecture> if left out."
)
_ARCHIVE = define_path("archive", "", "Also write the bundle to this .zip file.")
_DATA_DIR = define_path("data_dir", None, "Folder of the dataset, as for training.")


def main(argv: list[str]) -> None:
    precisions, compression = _precisions(), _compression()
    check_target(Path(_BUNDLE.value))
    archive.check_target(_ARCHIVE.value, _BUNDLE.value)
    workdir = Workdir.open(_WORKDIR.value)
    workdir.require_model()
    with program.loading():
        from export.bundles import pictures, writing
        from export.early.record import has_calibration
        from paradis_tf.training import run as training
    _report(f"loading {workdir.path} and its images")
    model, dataset = training.load_run(workdir, _DATA_DIR.value)
    if model.levels:
        raise UserError(f"--workdir={workdir.path} is a run of {model.levels} levels; bundles are made of switches.")
    enlarges = model.task.enlarges
    height, width, _ = model.architecture.image_shape
    if flags.FLAGS["image_size"].present and not enlarges:
        raise UserError(
            f"--image_size={_IMAGE_SIZE.value} is for super-resolution; the files of this run take images of "
            f"{height}x{width}, as it was trained on."
        )
    size = (_IMAGE_SIZE.value, _IMAGE_SIZE.value) if enlarges else (height, width)
    config = workdir.config()
    calibration_images = _CALIBRATION.value
    if calibration_images is None:
        calibration_images = min(64 if enlarges else 256, pictures.most(dataset, size))
    settings = writing.BundleSettings(
        name=_NAME.value or f"{config['dataset']['name']}_{config['model']['name']}",
        precisions=precisions,
        size=size,
        calibration_images=calibration_images,
        float_output=_OUTPUT.value == "float32",
        quantization=_QUANTIZATION.value,
        max_drop=_max_drop(enlarges),
        compression=compression,
        training_images=_TRAINING_IMAGES.value,
        processes=_PROCESSES.value,
    )
    was_calibrated = has_calibration(Path(_BUNDLE.value))
    unknown = writing.write(Path(_BUNDLE.value), settings, model, workdir.model_file, dataset, _report)
    say(f"wrote {_BUNDLE.value}")
    if unknown:
        named = ", ".join(f"'{switch}'" for switch in unknown)
        say(f"clusters plan by accuracies: export.verify measures and writes those of {named}")
    else:
        say("the accuracies that export.verify measured are kept, as all files are the same")
    if was_calibrated:
        say("early answers are to be calibrated anew: export.calibrate")
    if _ARCHIVE.value:
        archive.write(Path(_BUNDLE.value), Path(_ARCHIVE.value))
        print(f"wrote {_ARCHIVE.value}")


def _precisions() -> tuple[str, ...]:
    """Those of the flag. Raises UserError for flags that are wrong without a look at anything else."""
    precisions = tuple(dict.fromkeys(_PRECISION.value))
    if not precisions or not set(precisions) <= set(PRECISIONS):
        raise UserError(f"--precision={','.join(_PRECISION.value)}; it takes {', '.join(PRECISIONS)}.")
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)?", _NAME.value):
        raise UserError(f"--name={_NAME.value}; it takes letters, digits, '.', '_' and '-', a letter or digit first.")
    _refuse_idle_flags(precisions)
    if _CLUSTERS.value and "int8" in precisions and _QUANTIZATION.value != "ptq":
        raise UserError(
            f"--clusters={_CLUSTERS.value} needs --quantization=ptq, as training for 8 bits would part equal weights."
        )
    return precisions


def _compression() -> Compression:
    return Compression(
        clusters=_CLUSTERS.value,
        sparsity=_SPARSITY.value or 0.0,
        steps=_STEPS.value,
        learning_rate=_LEARNING_RATE.value or Compression.learning_rate,
    )


def _refuse_idle_flags(precisions: tuple[str, ...]) -> None:
    """Raises UserError for a flag that is not as it is by default and would change nothing."""
    quantization, chosen = _QUANTIZATION.value, ",".join(precisions)
    trains = bool(_CLUSTERS.value or _SPARSITY.value) or (quantization != "ptq" and "int8" in precisions)
    no_int8, of_int8 = "int8" not in precisions, f"is of int8 files, and --precision={chosen}"
    for name, idle, reason in (
        ("quantization", no_int8, of_int8),
        ("output", no_int8, of_int8),
        ("calibration_images", no_int8, of_int8),
        ("max_drop", no_int8, of_int8),
        ("max_drop", quantization != "auto", f"is of --quantization=auto, and it is {quantization}"),
        *(
            (f"compression_{what}", not trains, "is of --clusters, --sparsity and trained quantization, none here")
            for what in ("steps", "learning_rate", "images")
        ),
    ):
        flag = flags.FLAGS[name]
        if idle and flag.value != flag.default:
            raise UserError(f"--{name}={flag.value} {reason}; leave it out.")


def _report(text: str) -> None:
    say(text)


def _max_drop(enlarges: bool) -> float:
    """The flag in the metric: dB, or accuracy, 0..1."""
    if enlarges:
        return 0.05 if _MAX_DROP.value is None else _MAX_DROP.value
    return 0.005 if _MAX_DROP.value is None else _MAX_DROP.value / 100


if __name__ == "__main__":
    program.run(main)
