"""Trains a supernet as a config says, in a run folder, from the start or from where an earlier process stopped."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf import methods, models, tasks
from paradis_tf.configs import checks, defaults
from paradis_tf.data import datasets, pipeline
from paradis_tf.data.pairs import super_resolution
from paradis_tf.distribution import groups
from paradis_tf.distribution.groups import Group
from paradis_tf.evaluation import recalibration
from paradis_tf.paths import paths_of
from paradis_tf.records import selection
from paradis_tf.records.recording import RunRecorder
from paradis_tf.records.tensorboard import EventWriter
from paradis_tf.records.training_progress import Speed, TrainingProgress, WorkerProgress
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet
from paradis_tf.training import loop, optimizers
from paradis_tf.training.divergence import DivergenceCheck
from paradis_tf.training.step import TrainableSupernet
from paradis_tf.training.teachers import load_teacher

_EVALUATION_BATCH = 256
_FINISHED = -1
# Images that batch norm's statistics are recomputed from after training, of methods that ask for it.
CALIBRATION_IMAGES = 5000

Dataset = datasets.Dataset | super_resolution.PairDataset


def load_dataset(config: Any, data_dir: str | None) -> Dataset:
    """The dataset of a config (a `ConfigDict`, or the dict of a run folder)."""
    of_pairs = config["dataset"].get("name") == "sr"
    known = dict((defaults.get_super_resolution_config() if of_pairs else defaults.get_config()).dataset)
    # A run that is older than a key has its default.
    options = {**known, **dict(config["dataset"])}
    if len(options) > len(known):
        kind = f"dataset {options.get('name')!r}"
        wrong = ", ".join(sorted(options.keys() - known.keys()))
        raise UserError(
            f"config.dataset: {kind} does not take {wrong}; it takes {', '.join(sorted(known))}. "
            "An experiment's file is for classification or for super-resolution; give one of the other task."
        )
    load = super_resolution.load if of_pairs else datasets.load
    return load(**options, data_dir=data_dir, seed=config["seed"])


def load_run(workdir: Workdir, data_dir: str | None) -> tuple[Supernet, Any]:
    """The finished model of a run and its dataset, checked to belong together.

    Raises:
      UserError: no finished model, bad data, or a model of another config or dataset.
    """
    config = workdir.config()
    checks.check_types(config, workdir.config_file)
    dataset = load_dataset(config, data_dir)
    try:
        make_architecture(config, dataset)
    except UserError as error:
        raise UserError(f"{workdir.config_file}: {error} {checks.OTHER_VERSION}") from None
    model = workdir.load_model()
    check_belongs(workdir.model_file, model, config, dataset)
    return model, dataset


def check_belongs(place: Path, model: Supernet, config: Any, dataset: Dataset) -> None:
    """Raises UserError, naming the place it came from, unless a model is of this config and dataset and all its
    weights are finite."""
    wanted = make_architecture(config, dataset)
    paths = paths_of(config)
    for name, found, legal in (
        ("architecture", model.architecture_config(), {"name": wanted.name, **wanted.get_config()}),
        ("paths", [str(path) for path in model.paths], [str(path) for path in paths]),
        ("connectivity", model.connectivity, config.get("connectivity", "dense")),
        ("normalization", model.normalization, config["normalization"]),
    ):
        if found != legal:
            name, found, legal = _first_difference(name, found, legal)
            raise UserError(
                f"the model in {place} has {name} {found}; the run's config and dataset give {legal}. Another version "
                "of the program made it, or it was trained on other data."
            )
    broken = model.first_weight_not_finite()
    if broken:
        raise UserError(f"the model in {place}: weight {broken} is not finite; train again with a lower learning rate.")


def _first_difference(name: str, found: Any, legal: Any) -> tuple[str, Any, Any]:
    """Of tables the first option that they do not share, as its dotted name and its two values."""
    if isinstance(found, dict) and isinstance(legal, dict):
        for key in {**legal, **found}:
            if key not in found or key not in legal or found[key] != legal[key]:
                return f"{name}.{key}", found.get(key, "(missing)"), legal.get(key, "(missing)")
    return name, found, legal


def make_architecture(config: Any, dataset: Dataset) -> Any:
    """The architecture of a config, with what it takes from the data: `image_shape`, and `classes` or `scale`.

    Raises:
      UserError: an unknown architecture, a wrong option, or an architecture for another kind of data.
    """
    name = config["model"]["name"]
    family = models.ARCHITECTURES.get(name)
    if family is not None and family.task != dataset.task:
        given = config["dataset"]["name"]
        raise UserError(f"architecture {name!r} is for {family.task}, and dataset {given!r} is for {dataset.task}.")
    return models.create(**dict(config["model"]), **dataset.architecture_options)


def train(
    config: ConfigDict,
    path: str,
    data_dir: str | None = None,
    tensorboard: bool = False,
    strategy: str = "single",
    devices: Sequence[str] = (),
    peer_timeout_s: float = 300.0,
) -> Workdir:
    """Trains to the last epoch and writes the finished model; resumes if the folder holds a part of the run.

    Args:
      config: as in `paradis_tf.configs.defaults`.
      path: the run folder; of several workers the chief alone reads and writes it.
      data_dir: where `paradis_tf.data.datasets.load` looks for files, on each worker.
      tensorboard: whether the metrics are also written as event files.
      strategy: one of `paradis_tf.distribution.strategy.STRATEGIES`. It does not change a step beyond rounding and so
        is no part of the config.
      devices: the devices of the strategy `mirrored`; empty for all GPUs.
      peer_timeout_s: how long to wait for other workers at the start, in seconds.

    Raises:
      UserError: a config that cannot be trained, bad data, a folder of another run, no such strategy here, or a
        training that diverges.
    """
    _check(config)
    # Before any other use of TensorFlow, which cannot join other machines later.
    with groups.joined(strategy, devices, peer_timeout_s) as group, pipeline.reading():
        return _train(config, path, data_dir, tensorboard, group)


def _train(config: ConfigDict, path: str, data_dir: str | None, tensorboard: bool, group: Group) -> Workdir:
    dataset = load_dataset(config, data_dir)
    keras.utils.set_random_seed(config.seed)
    # All before the folder is made, so that a config that cannot be trained leaves nothing behind.
    architecture = make_architecture(config, dataset)
    steps = len(dataset.train) // config.batch_size
    batches = dict(seed=config.seed, epochs=config.epochs, **dict(config.augmentation))
    shard = dict(shard_index=group.worker, shard_count=group.workers)
    dataset.training_batches(config.batch_size, first_epoch=0, **batches, **shard)
    groups.check_batch(config.batch_size, group.replicas)
    method = methods.create(**dict(config.method))
    load_teacher(method, config.method.name, architecture)
    tasks.create(architecture.task, **dict(config.loss)).check(architecture)
    mine = len(range(group.worker, len(dataset.validation), group.workers))
    evaluation_size = groups.evaluation_size(mine, _EVALUATION_BATCH * group.local_replicas, group.local_replicas)
    with group.strategy.scope():
        model = TrainableSupernet(
            architecture,
            config.switches,
            config.grid,
            config.normalization,
            config.levels,
            config.connectivity,
            dtype=config.precision,
        )
        model.compile(
            optimizers.create(config.optimizer, config.epochs, steps),
            method,
            weight_decay=config.optimizer.weight_decay,
            decay_all=config.optimizer.decay_all,
            clip_norm=config.optimizer.clip_norm,
            average_decay=config.optimizer.average_decay,
            total_steps=config.epochs * steps,
            seed=config.seed,
            loss=dict(config.loss),
        )

    workdir = Workdir(path)
    with contextlib.ExitStack() as stack:
        done = 0
        if group.chief:
            workdir = Workdir.create(path, config)
            stack.enter_context(workdir.locked())
            done = _resume(workdir, model, config, dataset)
        done = int(group.from_chief([np.array(done)])[0])
        # Only the chief's path is the run's.
        place = str(workdir.path) if group.chief else "worker 0's run folder"
        if done == _FINISHED:
            say(f"{place} holds the finished run of {config.epochs} epochs; nothing to do.")
            return workdir
        if done:
            say(f"resuming {place} after epoch {done}")
        group.share(model)
        say("tracing the training step, which takes about a minute ...")
        loop.fit(
            model,
            group,
            dataset.training_batches(config.batch_size, first_epoch=done, **batches, **shard),
            dataset.validation_batches(evaluation_size, **shard),
            steps=steps,
            validation_steps=-(-mine // evaluation_size),
            first_epoch=done,
            epochs=config.epochs,
            callbacks=_callbacks(workdir, config, tensorboard)
            if group.chief
            else [DivergenceCheck(), WorkerProgress()],
        )
        if group.chief:
            say("making the finished model ...")
            network = selection.finished_network(
                workdir, model, config.keep, lambda file, kept: check_belongs(file, kept, config, dataset)
            )
            if model.method.recalibrates and recalibration.has_batch_norm(network):
                batches = calibration_batches(config, dataset, CALIBRATION_IMAGES)
                say(f"{config.method.name}: batch norm's statistics are recomputed")
                recalibration.recalibrate(network, batches, report=say)
            workdir.save_model(network)
            say(f"finished: {workdir.model_file}; metrics in {workdir.metrics_file}")
        else:
            say(f"worker {group.worker} of {group.workers} is done; worker 0 writes the model")
    return workdir


def calibration_batches(config: Any, dataset: Dataset, images: int) -> tf.data.Dataset:
    """The first epoch's training batches, augmented, up to at least so many images or to the end of the epoch."""
    size = config["batch_size"]
    options = dict(seed=config["seed"], first_epoch=0, epochs=1, **dict(config["augmentation"]))
    batches = dataset.training_batches(size, **options)
    return batches.take(-(-images // size))


def _resume(workdir: Workdir, model: TrainableSupernet, config: ConfigDict, dataset: Dataset) -> int:
    """Gives the model the newest checkpoint's state; the epochs that it has behind it, or `_FINISHED`."""
    done, _ = workdir.newest_checkpoint()
    # Without any checkpoint, too: a finished run may have been sent or kept without them.
    if (done >= config.epochs or not workdir.checkpoint_files()) and workdir.model_file.exists():
        if zipfile.is_zipfile(workdir.model_file):
            return _FINISHED
        say(f"passing over {workdir.model_file}, which is damaged; it is made again")
    done, kept = workdir.restore()
    if kept is not None:
        check_belongs(workdir.checkpoints, kept, config, dataset)
        if done > config.epochs:
            raise UserError(
                f"the newest checkpoint in {workdir.checkpoints} is of epoch {done}, and the run has {config.epochs}; "
                "it is another run's, remove it."
            )
        if not isinstance(kept, TrainableSupernet) or not groups.fits(model, kept):
            raise UserError(
                f"the model in {workdir.checkpoints} was trained with another optimizer, or without one, than "
                f"config.optimizer gives ({config.optimizer.name}), or by an older version of the program; put its own "
                "checkpoint back, or train in a new workdir."
            )
        groups.assign(model, groups.state(kept))
    workdir.metrics.truncate(done)
    return done


def _callbacks(workdir: Workdir, config: ConfigDict, tensorboard: bool) -> list[keras.callbacks.Callback]:
    """In their order: each finds what those before it have left."""
    speed = Speed(config.batch_size)
    events = [EventWriter(workdir)] if tensorboard else []
    return [DivergenceCheck(), speed, RunRecorder(workdir, speed, config.keep), *events, TrainingProgress(speed)]


def _check(config: ConfigDict) -> None:
    for key, value, legal, good in (
        ("epochs", config.epochs, "at least 1", config.epochs >= 1),
        ("batch_size", config.batch_size, "at least 1", config.batch_size >= 1),
        ("grid", config.grid, "1 to 64", 1 <= config.grid <= 64),
        ("keep", config.keep, f"one of {', '.join(selection.KEEP)}", config.keep in selection.KEEP),
    ):
        if not good:
            raise UserError(f"config.{key} is {value!r}; it is {legal}.")
    optimizers.check(config)
