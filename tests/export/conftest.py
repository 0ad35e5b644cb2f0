"""What the tests of the exporter share: a run and its bundle, and programs in this process or as a user runs them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from absl import flags

from fusion.base import program
from fusion.base.program import UserError
from paradis_tf.configs import digits_mobilenet_v1
from paradis_tf.records.workdir import Workdir
from paradis_tf.supernet import Supernet
from paradis_tf.training import run as training

SWITCHES = ("1.0", "0.5+0.25+0.25")


class Ended(NamedTuple):
    """How a program ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Exported:
    """A run folder, and its bundle of both precisions; neither is to be changed, as all test processes use them."""

    workdir: Path
    bundle: Path

    @functools.cached_property
    def model(self) -> Supernet:
        return Workdir.open(str(self.workdir)).load_model()

    def copy(self, target: Path) -> Path:
        """The bundle, to be changed."""
        return Path(shutil.copytree(self.bundle, target))


@pytest.fixture(scope="session")
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program of the project as its user does."""

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=600)

    return run


@pytest.fixture(scope="session")
def run_main() -> Callable[..., Ended]:
    """Runs a program's `main` in this process, which has loaded TensorFlow; what its own processes print counts too."""

    def run(module: str, *arguments: str) -> Ended:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with _redirected(1, out.fileno()), _redirected(2, err.fileno()), _forgotten_flags():
                status = _status(module, arguments)
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode())
        return Ended(status, *texts)

    return run


def _status(module: str, arguments: tuple[str, ...]) -> int:
    main = runpy.run_module(module)["main"]
    with (
        os.fdopen(os.dup(1), "w", buffering=1) as out,
        os.fdopen(os.dup(2), "w", buffering=1) as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            return main(program.parse_command_line([module, *arguments])[1:]) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


@contextlib.contextmanager
def _redirected(descriptor: int, target: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextlib.contextmanager
def _forgotten_flags() -> Iterator[None]:
    """Takes a program's flags away when it has ended, as those of others have the same names; while it runs also those
    of the runner's modules that other tests have loaded in this process."""
    modules = flags.FLAGS.flags_by_module_dict()
    of_runner = [(module, flag) for module in modules if module.startswith("fusion.") for flag in modules[module]]
    for _, flag in of_runner:
        delattr(flags.FLAGS, flag.name)
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        for module, flag in of_runner:
            flags.FLAGS[flag.name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`make_once(name, fill)`: a folder that `fill` has filled, once for all test processes, which only read it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, fill: Callable[[Path], None]) -> Path:
        folder, filled = root / name, root / f"{name}.filled"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def exported(make_once: Callable[[str, Callable[[Path], None]], Path], run_main: Callable[..., Ended]) -> Exported:
    """A narrow network of digits that has trained for a moment."""

    def export(folder: Path) -> None:
        config = digits_mobilenet_v1.get_config()
        config.update_from_flattened_dict(
            {"seed": 0, "switches": SWITCHES, "model.width_multiplier": 0.25, "epochs": 4, "batch_size": 64}
        )
        training.train(config, str(folder / "run"))
        places = (f"--workdir={folder / 'run'}", f"--bundle={folder / 'bundle'}")
        options = ("--precision=int8,float32", "--name=digits", "--quantization=ptq", "--processes=1")
        ended = run_main("export.convert", *places, *options)
        assert ended.returncode == 0, ended.stderr

    folder = make_once("exported", export)
    return Exported(folder / "run", folder / "bundle")
