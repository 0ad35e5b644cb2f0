"""Trains a supernet as a config says, in a run folder, from the start or from where an earlier process stopped."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import keras
from ml_collections import ConfigDict

from export.fusion.program import UserError
from paradis_tf import methods, models
from paradis_tf.configs import defaults
from paradis_tf.data import datasets, patches, pipeline, super_resolution
from paradis_tf.supernet import Supernet
from paradis_tf.switches import parse_switches
from paradis_tf.workdir import Workdir

_EVALUATION_BATCH = 256

Dataset = datasets.Dataset | super_resolution.PairDataset

# By task: the module that makes batches of a dataset's parts.
_PIPELINES: dict[str, Any] = {"classification": pipeline, "super_resolution": patches}


def load_dataset(config: Any, data_dir: str | None) -> Dataset:
    """The dataset of a config (a `ConfigDict`, or the dict of a run folder)."""
    options = dict(config["dataset"])
    of_pairs = options.get("name") == "sr"
    known = list((defaults.get_super_resolution_config() if of_pairs else defaults.get_config()).dataset)
    if sorted(options) != sorted(known):
        raise UserError(f"config.dataset has {', '.join(sorted(options))}; it takes {', '.join(sorted(known))}.")
    load = super_resolution.load if of_pairs else datasets.load
    return load(**options, data_dir=data_dir, seed=config["seed"])


def load_run(workdir: Workdir, data_dir: str | None) -> tuple[Supernet, Any]:
    """The finished model of a run and its dataset, checked to belong together.

    Raises:
      UserError: no finished model, bad data, or a model of another config or dataset.
    """
    config = workdir.config()
    for key, value in json.loads(defaults.get_config().to_json()).items():
        if type(config.get(key)) is not type(value):
            raise UserError(f"{workdir.config_file}: {key!r} is {config.get(key)!r}; it is written like {value!r}.")
    dataset = load_dataset(config, data_dir)
    model = workdir.load_model()
    check_belongs(workdir.model_file, model, config, dataset)
    return model, dataset


def check_belongs(place: Path, model: Supernet, config: Any, dataset: Dataset) -> None:
    """Raises UserError, naming the place it came from, unless a model is of this config and dataset and all its
    weights are finite."""
    wanted = make_architecture(config, dataset)
    switches = parse_switches(config["switches"], config["grid"])
    for name, found, legal in (
        ("architecture", model.architecture_config(), {"name": wanted.name, **wanted.get_config()}),
        ("switches", [str(s) for s in model.switches], [str(s) for s in switches]),
    ):
        if found != legal:
            raise UserError(f"the model in {place} has {name} {found}; the run's config and dataset give {legal}.")
    broken = model.first_weight_not_finite()
    if broken:
        raise UserError(f"the model in {place}: weight {broken} is not finite; train again with a lower learning rate.")


def make_architecture(config: Any, dataset: Dataset) -> Any:
    """The architecture of a config, with what it takes from the data: `image_shape`, and `classes` or `scale`.

    Raises:
      UserError: an unknown architecture, a wrong option, or an architecture for another kind of data.
    """
    name = config["model"]["name"]
    family = models.ARCHITECTURES.get(name)
    of_pairs = isinstance(dataset, super_resolution.PairDataset)
    if family is not None and (family.task == "super_resolution") != of_pairs:
        raise UserError(
            f"architecture {name!r} is for {family.task}, and dataset {config['dataset']['name']!r} is not."
        )
    return models.create(**dict(config["model"]), **dataset.architecture_options)


def train(config: ConfigDict, path: str, data_dir: str | None = None) -> Workdir:
    """Trains to the last epoch and writes the finished model; resumes if the folder holds a part of the run.

    Args:
      config: as in `paradis_tf.configs.defaults`.
      path: the run folder.
      data_dir: where `paradis_tf.data.datasets.load` looks for files.

    Raises:
      UserError: a config that cannot be trained, bad data, or a folder of another run.
    """
    _check(config)
    dataset = load_dataset(config, data_dir)
    keras.utils.set_random_seed(config.seed)
    # Both before the folder is made, so that a config that cannot be trained leaves nothing behind.
    architecture = make_architecture(config, dataset)
    fresh = Supernet(architecture, config.switches, config.grid)
    method = methods.create(**dict(config.method))
    steps = len(dataset.train) // config.batch_size
    batches = dict(seed=config.seed, epochs=config.epochs, **dict(config.augmentation))
    source = _PIPELINES[architecture.task]
    source.training_batches(dataset.train, config.batch_size, first_epoch=0, **batches)

    workdir = Workdir.create(path, config)
    with workdir.locked():
        done, _ = workdir.newest_checkpoint()
        if done >= config.epochs and workdir.model_file.exists():
            print(f"{workdir.path} holds the finished run of {done} epochs; nothing to do.", flush=True)
            return workdir
        done, model = workdir.restore()
        if model is None:
            model = fresh
            model.compile(
                _optimizer(config, steps),
                method,
                weight_decay=config.optimizer.weight_decay,
                average_decay=config.optimizer.average_decay,
                loss=dict(config.loss),
            )
        else:
            check_belongs(workdir.checkpoints, model, config, dataset)
        if done:
            print(f"resuming {workdir.path} after epoch {done}", flush=True)
        workdir.truncate_metrics(done)
        print("tracing the training step ...", flush=True)
        model.fit(
            source.training_batches(dataset.train, config.batch_size, first_epoch=done, **batches),
            initial_epoch=done,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,
            validation_data=source.evaluation_batches(dataset.validation, _EVALUATION_BATCH),
            verbose=0,
            callbacks=[RunRecorder(workdir), Progress()],
        )
        workdir.save_model(model)
    return workdir


def _check(config: ConfigDict) -> None:
    optimizer = config.optimizer
    for key, value, legal, good in (
        ("epochs", config.epochs, "at least 1", config.epochs >= 1),
        ("grid", config.grid, "1 to 64", 1 <= config.grid <= 64),
        ("optimizer.name", optimizer.name, "sgd or adam", optimizer.name in ("sgd", "adam")),
        ("optimizer.learning_rate", optimizer.learning_rate, "above 0", optimizer.learning_rate > 0),
        ("optimizer.momentum", optimizer.momentum, "in [0, 1)", 0 <= optimizer.momentum < 1),
        ("optimizer.average_decay", optimizer.average_decay, "in [0, 1)", 0 <= optimizer.average_decay < 1),
        ("optimizer.weight_decay", optimizer.weight_decay, "0 or more", optimizer.weight_decay >= 0),
        (
            "optimizer.warmup_epochs",
            optimizer.warmup_epochs,
            f"0 or more and below config.epochs, {config.epochs}",
            0 <= optimizer.warmup_epochs < max(1, config.epochs),
        ),
    ):
        if not good:
            raise UserError(f"config.{key} is {value!r}; it is {legal}.")


def _optimizer(config: ConfigDict, steps: int) -> keras.optimizers.Optimizer:
    warmup = round(config.optimizer.warmup_epochs * steps)
    rate = config.optimizer.learning_rate
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=rate / max(1, warmup) if warmup else rate,
        decay_steps=config.epochs * steps - warmup,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
    momentum = config.optimizer.momentum
    if config.optimizer.name == "adam":
        return keras.optimizers.Adam(schedule, beta_1=momentum)
    return keras.optimizers.SGD(schedule, momentum=momentum, nesterov=momentum > 0)


class RunRecorder(keras.callbacks.Callback):
    """Appends each epoch's row to the run's metrics, then writes its checkpoint.

    In this order a process that dies between the two repeats the epoch and rewrites its row. Source: ours.
    """

    def __init__(self, workdir: Workdir) -> None:
        super().__init__()
        self.workdir = workdir

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        broken = self.model.first_weight_not_finite()
        if broken:
            raise UserError(
                f"training has diverged: weight {broken} is not finite after epoch {epoch + 1}. The epochs before are "
                "kept; lower optimizer.learning_rate, in a new workdir."
            )
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - self.started, 3), "learning_rate": rate}
        self.workdir.append_metrics({**row, **{name: float(value) for name, value in (logs or {}).items()}})
        self.workdir.save_checkpoint(self.model, epoch + 1)


class Progress(keras.callbacks.Callback):
    """One line per epoch: losses, the metric of the switches on the validation part, time left; on a terminal
    also the step within the epoch. Source: ours."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.first: int | None = None
        self.began = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        if self.first is None:
            self.first = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 0 and self.epoch == self.first:
            # Tracing is over; counting it in would spoil the estimate of the time left.
            print(f"traced in {time.monotonic() - self.began:.0f} s", flush=True)
            self.began = time.monotonic()
        if sys.stdout.isatty():
            loss = float((logs or {})["loss"])
            line = f"epoch {self.epoch + 1}: step {batch + 1}/{self.params['steps']}, loss {loss:.4f}"
            print(f"\r\x1b[K{line}", end="", flush=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        epochs = self.params["epochs"]
        first = self.first or 0
        left = (time.monotonic() - self.began) / (epoch + 1 - first) * (epochs - epoch - 1)
        task = self.model.task
        prefix = f"val_{task.metric}/"
        scores = "  ".join(
            f"{name.removeprefix(prefix)} {task.text(float(value))}"
            for name, value in logs.items()
            if name.startswith(prefix)
        )
        line = f"epoch {epoch + 1}/{epochs}  loss {float(logs['loss']):.4f}  validation: {scores}"
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{clear}{line}  {_duration(left)} left", flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
