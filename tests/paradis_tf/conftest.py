"""One trained run of the tiny network, shared by all tests of a session."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paradis_tf import models
from paradis_tf.training import run as training
from tests.conftest import TinyNet
from tests.paradis_tf import tiny_config


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the processes of a session share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def write_images(file: Path) -> Path:
    """Writes 120 random images of 8x8 and five classes for training, and 20 for test."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (140, 8, 8, 3), dtype=np.uint8), rng.integers(0, 5, 140)
    np.savez(file, x_train=images[:120], y_train=labels[:120], x_test=images[120:], y_test=labels[120:])
    return file


@pytest.fixture(scope="session")
def tiny_data(tiny_run: Path) -> Path:
    """The images of `tiny_run`."""
    return tiny_run.parent / "tiny.npz"


@pytest.fixture
def tiny_known() -> Iterator[None]:
    """Makes the tiny network one of the architectures that configs name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.ARCHITECTURES, "tiny", TinyNet)
        yield


@pytest.fixture(scope="session")
def tiny_run(session_folder: Path) -> Path:
    """The folder of a finished run of `tiny_config`; not to be changed. Its images are beside it, in `tiny.npz`."""
    workdir = session_folder / "tiny" / "run"
    workdir.parent.mkdir(exist_ok=True)
    with (workdir.parent / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (workdir / "model.keras").exists():
            patch.setitem(models.ARCHITECTURES, "tiny", TinyNet)
            training.train(tiny_config.config_of(write_images(workdir.parent / "tiny.npz")), str(workdir))
    return workdir
