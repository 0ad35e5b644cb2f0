"""Writes a run folder whose network is untrained, for figures that weights do not change: times, sizes, memory.

    python -m benchmarks.untrained --config=paradis_tf/configs/defaults.py --workdir=build/untrained/mobilenet_224
    python -m benchmarks.untrained --config=paradis_tf/configs/cifar10_resnet.py --config.model.depth=50 \
        --config.model.form=224 --config.model.width_multiplier=1.0 --workdir=build/untrained/resnet50_224
    python -m export.convert --workdir=build/untrained/mobilenet_224 --bundle=build/mobilenet_224 \
        --precision=int8,float32 --quantization=ptq

The weights are the initial ones and the images noise, so there is no accuracy to speak of, and none is stated. The
config's `dataset` table is replaced by the images that are written into the run folder.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from absl import flags

from fusion.base.files import write_bytes
from fusion.base.paths import define_path
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

_CONFIG = program.define_config("The experiment whose network it is; see paradis_tf/configs/.")
_WORKDIR = define_path("workdir", None, "Run folder to write; there must be none.", required=True)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "Side of the square image in pixels.", 8, 1024)
_CLASSES = flags.DEFINE_integer("classes", 1000, "Number of classes.", 2, 100_000)
_IMAGES = flags.DEFINE_integer("images", 64, "Images of the training part, which set the ranges of int8.", 2, 10_000)

_IMAGES_FILE = "images.npz"
_TEST_IMAGES = 2
# Noise of patches is less uniform than noise of pixels, which the first layers average away.
_PATCH = 8


def main(argv: list[str]) -> None:
    config = program.config_of(_CONFIG)
    if Path(_WORKDIR.value).exists():
        raise UserError(f"--workdir={_WORKDIR.value} is there already; give a new folder.")
    with program.loading():
        import keras

        from paradis_tf.supernet import Supernet
        from paradis_tf.training import run as training
    file = Path(_WORKDIR.value) / _IMAGES_FILE
    config.dataset.update({"name": "npz", "path": str(file), "image_size": 0})
    workdir = Workdir.create(_WORKDIR.value, config)
    _write_images(file, config.seed)
    keras.utils.set_random_seed(config.seed)
    architecture = training.make_architecture(config, training.load_dataset(config, None))
    workdir.save_model(Supernet(architecture, config.switches, config.grid, config.normalization))
    print(f"wrote {workdir.model_file}, untrained")


def _write_images(file: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = -(-_IMAGE_SIZE.value // _PATCH)

    def noise(count: int) -> np.ndarray:
        patches = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        large = patches.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)
        return large[:, : _IMAGE_SIZE.value, : _IMAGE_SIZE.value]

    arrays = {
        "x_train": noise(_IMAGES.value),
        "y_train": rng.integers(0, _CLASSES.value, _IMAGES.value),
        "x_test": noise(_TEST_IMAGES),
        "y_test": rng.integers(0, _CLASSES.value, _TEST_IMAGES),
        "class_names": np.array([f"class {i}" for i in range(_CLASSES.value)]),
    }
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_bytes(file, stream.getvalue())


if __name__ == "__main__":
    program.run(main)
