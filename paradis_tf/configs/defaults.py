"""Every key of a configuration, with its default. An experiment's file starts from these."""

from __future__ import annotations

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults, locked: an experiment or the command line changes values and adds no keys."""
    config = ConfigDict(
        {
            # Fixes the validation part, the initial weights, the order and the augmentation.
            "seed": 0,
            "epochs": 30,
            "batch_size": 128,
            # Slice bounds are multiples of 1/grid.
            "grid": 4,
            "switches": ("1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25"),
            # See paradis_tf.data.datasets.load.
            "dataset": {"name": "digits", "path": "", "validation_fraction": 0.1},
            # See paradis_tf.data.pipeline.training_batches.
            "augmentation": {"flip": False, "crop_padding": 0},
            # `name` is an architecture of paradis_tf.models, the rest its options; image_shape and classes come
            # from the dataset.
            "model": {"name": "mobilenet_v1", "width_multiplier": 1.0, "form": "224"},
            # `name` is a method of paradis_tf.methods, the rest its options.
            "method": {"name": "paradis", "feature_weight": 1.0},
            # SGD with Nesterov momentum; the rate rises linearly for `warmup_epochs`, then falls to 0 as a cosine.
            "optimizer": {
                "learning_rate": 0.1,
                "momentum": 0.9,
                "warmup_epochs": 1.0,
                "weight_decay": 1e-4,
            },
        }
    )
    config.lock()
    return config
