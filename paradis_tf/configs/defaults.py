"""Every key of a configuration, with its default. An experiment's file starts from these."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from fusion.base.program import UserError

# What differs from method to method: its options, and the switches or levels it is made for.
_DISTRIBUTED = ("1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25")
_METHODS: dict[str, dict[str, Any]] = {
    "paradis": {
        "switches": _DISTRIBUTED,
        "options": {
            "hard_weight": 1.0,
            "soft_weight": 1.0,
            "feature_weight": 0.0,
            "student_weight": 1.0,
            "final_student_weight": 0.1,
            "temperature": 1.0,
            "live_weight": 1.0,
            "final_live_weight": 1.0,
            "live_sets": 4,
            "most_missing": 0,
            # Or "average", or the run folder of a finished training.
            "teacher": "in_place",
        },
    },
    "individual": {
        "switches": ("1.0",),
        "options": {"teacher": "", "hard_weight": 1.0, "soft_weight": 1.0, "feature_weight": 0.0},
    },
    "slimmable": {"switches": ("1.0", "0.75", "0.5", "0.25"), "options": {}},
    "us_slimmable": {
        "grid": 8,
        "normalization": "shared_affine",
        "switches": ("1.0", "0.875", "0.75", "0.625", "0.5", "0.375", "0.25"),
        "options": {"random_widths": 2},
    },
    "anytime": {"levels": 4, "connectivity": "triangular", "options": {"soft_weight": 0.0}},
    "nested": {"levels": 4, "options": {}},
}


def get_config(method: str = "paradis") -> ConfigDict:
    """The defaults, locked: an experiment or the command line changes values and adds no keys.

    Args:
      method: a method of paradis_tf.methods; it decides the options in the table `method`, the switches and their grid
        or the levels, and the form of batch norm.

    Raises:
      UserError: an unknown method.
    """
    if method not in _METHODS:
        raise UserError(f"method {method!r} is unknown; known are {', '.join(sorted(_METHODS))}.")
    config = ConfigDict(
        {
            # Fixes the validation part, the initial weights, the order and the augmentation.
            "seed": 0,
            "epochs": 30,
            "batch_size": 128,
            # Slice bounds are multiples of 1/grid.
            "grid": _METHODS[method].get("grid", 4),
            "switches": _METHODS[method].get("switches", ()),
            # Of a network of levels, which has no switches, how many; and what its slices read: "dense", "triangular"
            # or "diagonal", see paradis_tf.levels.Level.
            "levels": _METHODS[method].get("levels", 0),
            "connectivity": _METHODS[method].get("connectivity", "dense"),
            # "private" or "shared_affine": whether paths share the scales and shifts of batch norm, or
            # the gains and biases of weight normalization.
            "normalization": _METHODS[method].get("normalization", "private"),
            # See paradis_tf.data.datasets.load.
            "dataset": {
                "name": "digits",
                "path": "",
                "validation_fraction": 0.1,
                "image_size": 0,
                "skip_broken": False,
                "classes": 0,
            },
            # See paradis_tf.data.augmentation.augment.Augmentation; 0 turns a change off.
            "augmentation": {
                "inception_crop": 0.0,
                "flip": False,
                "crop_padding": 0,
                "color_jitter": 0.0,
                "rand_augment_layers": 0,
                "rand_augment_magnitude": 9.0,
            },
            # `name` is an architecture of paradis_tf.models, the rest its options; image_shape and classes come
            # from the dataset.
            "model": {"name": "mobilenet_v1", "width_multiplier": 1.0, "form": "224", "strides": ()},
            # `name` is a method of paradis_tf.methods, the rest its options.
            "method": {"name": method, **_METHODS[method]["options"]},
            # Options of the architecture's task, see paradis_tf.tasks.
            "loss": {"label_smoothing": 0.0},
            # `name` is sgd (with Nesterov's momentum) or adam (`momentum` is its first beta). The rate rises linearly
            # for `warmup_epochs`; then `schedule` is cosine or linear, both down to 0 at the end, or steps (the rate
            # is multiplied by `step_factor` after each of `step_epochs`), or constant. In a step the gradients of all
            # passes are added, scaled down to the global norm `clip_norm` if they are above it (0: never), then
            # `weight_decay` times the weight is added: to those of convolution kernels (not depthwise) and dense
            # kernels, or with `decay_all` to all. With average_decay above 0, validation and the finished model use a
            # moving average of the weights of the steps.
            "optimizer": {
                "name": "sgd",
                "learning_rate": 0.1,
                "momentum": 0.9,
                "schedule": "cosine",
                "warmup_epochs": 1.0,
                "step_epochs": (),
                "step_factor": 0.1,
                "clip_norm": 0.0,
                "weight_decay": 1e-4,
                "decay_all": False,
                "average_decay": 0.0,
            },
            # What the passes compute in: float32, mixed_float16 (with loss scaling; GPUs) or mixed_bfloat16. Weights,
            # losses and batch norm's statistics are float32, and so is the finished model.
            "precision": "float32",
            # The finished model is that of the last epoch, or of the best: the highest mean over the paths of the
            # metric on the validation part, the later of equals.
            "keep": "last",
        }
    )
    config.lock()
    return config


def get_super_resolution_config(method: str = "paradis") -> ConfigDict:
    """The defaults of super-resolution: those of `get_config` with other tables for data, augmentation, model and loss.

    Raises:
      UserError: an unknown method.
    """
    config = get_config(method)
    with config.unlocked():
        # See paradis_tf.data.pairs.super_resolution.load.
        config.dataset = ConfigDict(
            {
                "name": "sr",
                "train": (),
                "train_low": (),
                "validation": (),
                "validation_low": (),
                "validation_fraction": 0.05,
                "test": (),
                "test_low": (),
                "scale": 2,
                "patch_size": 48,
                "patches_per_epoch": 16000,
                "skip_broken": False,
            }
        )
        # See paradis_tf.data.pairs.patches.training_batches.
        config.augmentation = ConfigDict({"flip": True, "transpose": True})
        # image_shape and scale come from the dataset.
        config.model = ConfigDict(
            {"name": "wdsr", "blocks": 16, "filters": 32, "variant": "a", "expansion": 0, "linear_multiple": 4}
        )
        # The metric leaves out a border of `scale` pixels; another number on the command line parts the two.
        config.loss = ConfigDict({"border": config.dataset.get_oneway_ref("scale")})
    config.batch_size = 16
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.0
    return config
