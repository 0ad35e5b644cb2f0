"""A run folder: the resolved config, metrics, checkpoints, package versions and the finished model."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from fusion.base.files import write_json
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base.files import locked, read_json, replacing
from paradis_tf.base.metrics import metric_of
from paradis_tf.records.metrics_file import MetricsFile

if TYPE_CHECKING:
    from paradis_tf.supernet import Supernet

PACKAGES = ("tensorflow", "keras", "tf-keras", "tensorflow-model-optimization", "numpy")
_CHECKPOINT = re.compile(r"epoch_(\d{4,})\.keras")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run gives."""
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}}


class Workdir:
    """The files of one run.

    Args:
      path: the folder; `create` makes it, `open` wants it to be there.

    Files: `config.json`, `versions.json`, `metrics.csv` (a row per epoch), `checkpoints/epoch_NNNN.keras` (after
    NNNN epochs; the newest two, and the best if the config keeps it), `model.keras` (finished), `evaluation.json` (of
    the test part) and `evaluation_validation.json`. Each is written aside, then renamed; metrics grow by a row at a
    time.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.metrics_file = self.path / "metrics.csv"
        self.metrics = MetricsFile(self.metrics_file)
        self.checkpoints = self.path / "checkpoints"
        self.model_file = self.path / "model.keras"
        self.evaluation_file = self.evaluation_of("test")

    @classmethod
    def create(cls, path: str | Path, config: ConfigDict) -> Workdir:
        """Makes the folder, or takes an existing one of the same config.

        Raises:
          UserError: the folder belongs to another config (the first difference is named), or cannot be made.
        """
        workdir = cls(path)
        try:
            resolved = json.loads(json.dumps(json.loads(config.to_json()), allow_nan=False))
        except ValueError as error:
            raise UserError(f"the config cannot be kept as JSON: {error}.") from None
        try:
            begun = os.path.exists(workdir.config_file)
            if begun:
                _check_same(workdir.path, flat(workdir.config()), flat(resolved))
            else:
                workdir._check_vacant()
            workdir.checkpoints.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{workdir.checkpoints} is no folder; remove it, or give another --workdir.") from None
        except OSError as error:
            raise UserError(f"--workdir={path} cannot be made: {error.strerror}.") from None
        if not begun:
            # Of two trainings that begin at once, one must not put its config under the other.
            with workdir.locked():
                if os.path.exists(workdir.config_file):
                    _check_same(workdir.path, flat(workdir.config()), flat(resolved))
                else:
                    write_json(workdir.path / "versions.json", package_versions())
                    write_json(workdir.config_file, resolved)
        return workdir

    def _check_vacant(self) -> None:
        """Raises UserError if the folder holds something else than a run whose creation was cut off."""
        left = {self.checkpoints.name, "versions.json", "lock"}
        if self.path.exists() and any(
            entry.name not in left and not entry.name.endswith(".part") for entry in self.path.iterdir()
        ):
            raise UserError(f"--workdir={self.path} is not empty and holds no run; give a new folder or one of a run.")

    @classmethod
    def open(cls, path: str | Path) -> Workdir:
        """An existing run.

        Raises:
          UserError: no run is there.
        """
        workdir = cls(path)
        # Unlike Path.exists this takes a path that is too long, or barred, for one that is not there.
        if not os.path.exists(workdir.config_file):
            raise UserError(f"--workdir={path} holds no run; there is no config.json. Train first.")
        return workdir

    def config(self) -> dict[str, Any]:
        """The resolved config, as plain dicts and lists.

        Raises:
          UserError: the file cannot be read or is no config.
        """
        config = read_json(self.config_file)
        if not isinstance(config, dict) or "epochs" not in config:
            raise UserError(f"{self.config_file} holds no config of a run; give another folder.")
        return config

    def require_model(self) -> None:
        """Raises UserError unless the training has finished."""
        if not self.model_file.exists():
            last, _ = self.newest_checkpoint()
            raise UserError(
                f"--workdir={self.path} holds no finished model ({last} of {self.config()['epochs']} epochs "
                "done); run paradis_tf.train on it again, it resumes."
            )

    def load_model(self) -> Supernet:
        """The finished model.

        Raises:
          UserError: the training has not finished, or the file is damaged.
        """
        self.require_model()
        try:
            return load_model(self.model_file)
        except UserError as error:
            raise UserError(
                f"{error} Delete it and run paradis_tf.train again, which makes it from the newest checkpoint."
            ) from None

    def evaluation(self) -> list[dict[str, Any]]:
        """What `paradis_tf.evaluate` measured on the test part, a dict per switch.

        Raises:
          UserError: it has not run, or its file is damaged.
        """
        if not self.evaluation_file.exists():
            raise UserError(f"--workdir={self.path} is not evaluated; run paradis_tf.evaluate on it.")
        rows = read_json(self.evaluation_file)
        again = "run paradis_tf.evaluate again."
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get(key), str) for row in rows for key in ("model_id", "switch")
        ):
            raise UserError(f"{self.evaluation_file} is no evaluation; {again}")
        for row in rows:
            try:
                metric = metric_of(row, str(self.evaluation_file)).key
            except UserError as error:
                raise UserError(f"{error} Another version of the program may have written it; {again}") from None
            if not math.isfinite(row[metric]):
                raise UserError(f"{self.evaluation_file}: {metric} is {row[metric]}; it is a finite number.")
        return rows

    def evaluation_of(self, part: str) -> Path:
        """The file that keeps what was measured on a part, `test` or `validation`."""
        return self.path / ("evaluation.json" if part == "test" else f"evaluation_{part}.json")

    def newest_checkpoint(self) -> tuple[int, Path | None]:
        """How many epochs the newest checkpoint has behind it, and its file; (0, None) without one."""
        return max(self.checkpoint_files().items(), default=(0, None))

    def restore(self) -> tuple[int, Supernet | None]:
        """The newest whole checkpoint's finished epochs and its model, compiled, with the optimizer's state.

        A damaged one is passed over for the one before it, and said so.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        fault: UserError | None = None
        for epochs, file in sorted(self.checkpoint_files().items(), reverse=True):
            try:
                return epochs, load_model(file)
            except UserError as error:
                fault = fault or error
                say(f"passing over {file}, which is damaged")
        if fault:
            raise UserError(f"{fault} No other checkpoint is whole: delete {self.checkpoints} to start over.")
        return 0, None

    def save_checkpoint(self, model: Supernet, epochs: int, kept: int | None = None) -> None:
        """Writes the checkpoint after so many epochs and drops all but the newest two and that after `kept` epochs."""
        with replacing(self.checkpoints / f"epoch_{epochs:04d}.keras") as aside:
            model.save(aside)
        files = self.checkpoint_files()
        for old in sorted(files)[:-2]:
            if old != kept:
                # One more checkpoint does no harm.
                with contextlib.suppress(OSError):
                    files[old].unlink()

    def save_model(self, model: Supernet) -> None:
        """Writes the finished model."""
        with replacing(self.model_file) as aside:
            model.save(aside)

    def locked(self) -> AbstractContextManager[None]:
        """Keeps a second training out of the folder; the lock ends with the process, however it ends.

        Raises:
          UserError: another process is training here.
        """
        return locked(self.path / "lock", f"--workdir={self.path} is in use by another training; wait or stop it.")

    def checkpoint_files(self) -> dict[int, Path]:
        """The checkpoints' files by the epochs that they have behind them."""
        names = ((_CHECKPOINT.fullmatch(file.name), file) for file in self.checkpoints.glob("*.keras"))
        return {int(match[1]): file for match, file in names if match and int(match[1])}


def flat(config: Mapping[str, Any], prefix: str = "config.") -> dict[str, Any]:
    """A config's values by dotted key, as in `config.model.name`."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return values


def _check_same(path: Path, kept: dict[str, Any], requested: dict[str, Any]) -> None:
    """Raises UserError, naming the first difference, unless the config of a folder is the one that is asked for."""
    for key in sorted(kept.keys() | requested.keys()):
        old, new = kept.get(key), requested.get(key)
        in_both = key in kept and key in requested
        if in_both and old == new:
            continue
        value = f"with {key}={old!r}" if key in kept else f"without {key}"
        remedy = "the same config" if in_both else "the config and the version of the program that began it,"
        raise UserError(
            f"--workdir={path} holds a run {value}, and {new!r} was asked for; resume it with {remedy} or give another "
            "folder."
        )


def load_model(file: Path) -> Supernet:
    """A supernet saved by Keras.

    Raises:
      UserError: the file is missing, damaged or no supernet.
    """
    import keras

    from paradis_tf.supernet import Supernet

    try:
        model = keras.models.load_model(file)
    except Exception as error:  # Keras, HDF5 and zipfile each have their own ways of failing
        reason = " ".join(str(error).split())[:200]
        # Of these Keras says that there is no such file.
        if file.exists() and not zipfile.is_zipfile(file):
            reason = "it is no zip archive, which a .keras file is."
        raise UserError(
            f"model file {file} cannot be loaded, it may be damaged or of another version of the program: {reason}"
        ) from None
    if not isinstance(model, Supernet):
        raise UserError(f"model file {file} holds a {type(model).__name__}; it takes a Supernet.")
    return model
