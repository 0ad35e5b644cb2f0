"""Trains a supernet: one weight set for all switches of a config.

    python -m paradis_tf.train --config=paradis_tf/configs/digits_mobilenet_v1.py --workdir=runs/digits

Any value of the config can be changed, as in --config.epochs=5. Started again on a run folder that holds a part of
the run, it resumes after the last finished epoch.
"""

from __future__ import annotations

from absl import flags

from fusion.base.paths import define_path
from fusion.base.program import LONGEST_S, define_float
from fusion.base.streams import say
from paradis_tf.base import program
from paradis_tf.distribution import strategy

_CONFIG = program.define_config("The experiment; see paradis_tf/configs/.")
_WORKDIR = define_path("workdir", None, "Run folder; made if it is not there.", required=True)
_DATA_DIR = define_path("data_dir", None, "Folder with <dataset>.npz files, or that folders of images are in.")
_TENSORBOARD = flags.DEFINE_bool(
    "tensorboard", False, "Also write the metrics for TensorBoard, to WORKDIR/tensorboard."
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    strategy.STRATEGIES,
    "What trains: `single`, one device; `mirrored`, the GPUs of this machine; `multi_worker`, the machines of "
    "TF_CONFIG; `auto`, whichever of them this machine and TF_CONFIG give. No key of the config, as it does not change "
    "the result: a batch is config.batch_size images, split over the devices.",
)
_DEVICES = flags.DEFINE_list("devices", [], "Devices of --strategy=mirrored, such as GPU:0,GPU:1; empty for all GPUs.")
_PEER_TIMEOUT = define_float(
    "peer_timeout", 300.0, "Longest wait for the other machines at the start, in seconds.", 1.0, LONGEST_S
)


def main(argv: list[str]) -> None:
    config = program.config_of(_CONFIG)
    with program.loading():
        from paradis_tf.training import run as training
    try:
        training.train(
            config,
            _WORKDIR.value,
            _DATA_DIR.value,
            _TENSORBOARD.value,
            _STRATEGY.value,
            _DEVICES.value,
            _PEER_TIMEOUT.value or 0.0,
        )
    except KeyboardInterrupt:
        say(f"\nstopped; the same command resumes {_WORKDIR.value} after its last finished epoch")
        raise


if __name__ == "__main__":
    program.run(main)
