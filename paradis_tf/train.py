"""Trains a supernet: one weight set for all switches of a config.

    python -m paradis_tf.train --config=paradis_tf/configs/digits_mobilenet_v1.py --workdir=runs/digits

Any value of the config can be changed, as in --config.epochs=5. Started again on a run folder that holds a part of
the run, it resumes after the last finished epoch.
"""

from __future__ import annotations

from absl import flags

from paradis_tf import program

_CONFIG = program.define_config("The experiment; see paradis_tf/configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; made if it is not there.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder with <dataset>.npz files, or that folders of images are in.")


def main(argv: list[str]) -> None:
    config = program.config_of(_CONFIG)
    with program.quiet():
        from paradis_tf import training
    try:
        workdir = training.train(config, _WORKDIR.value, _DATA_DIR.value)
    except KeyboardInterrupt:
        print(f"\nstopped; the same command resumes {_WORKDIR.value} after its last finished epoch", flush=True)
        raise
    print(f"finished: {workdir.model_file}; metrics in {workdir.metrics_file}")


if __name__ == "__main__":
    program.run(main)
