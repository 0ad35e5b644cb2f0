"""What a bundle's files give on the installed runtimes, each run in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.emulation.boards import Board
from fusion.base.program import UserError
from fusion.bundle.contents import Bundle, SwitchEntry
from fusion.rules.sum import Sum
from paradis_tf.base.progress import duration

_REPORT_S = 10.0


@dataclass(frozen=True)
class Engine:
    """A runtime, and whether XNNPACK may take operations from its built-in kernels (the default of both).

    Attributes:
      board: the emulated board that it runs on, or None for this machine.
      reference_kernels: whether TFLite's reference kernels run the int8 files, and no others: slow, and what the
        built-in kernels of ARM give, on any machine.
    """

    runtime: str
    delegates: bool = True
    board: Board | None = None
    reference_kernels: bool = False

    @property
    def kernels(self) -> str:
        """What runs int8 operations, for people."""
        if self.reference_kernels:
            return "reference kernels"
        return "XNNPACK" if self.delegates and self.runtime != REFERENCE.runtime else "built-in kernels"

    def __str__(self) -> str:
        return f"{self.runtime} ({self.kernels}){f' on {self.board.name}' if self.board else ''}"


# tflite-runtime gives no int8 operation to XNNPACK whatever it is told; LiteRT gives it nearly all.
REFERENCE = Engine("tflite_runtime")
LIKE_ARM = Engine("tflite_runtime", reference_kernels=True)
_ENGINES = (REFERENCE, Engine("ai_edge_litert", delegates=False), Engine("ai_edge_litert"))


@dataclass(frozen=True)
class EngineOutputs:
    """What the files of a bundle gave.

    Attributes:
      engine: what ran them.
      name: the runtime's name, version and kernels, for people.
      stored: by `model/precision`, the outputs as stored, (images, classes).
    """

    engine: Engine
    name: str
    stored: Mapping[str, np.ndarray]

    def real(self, entry: SwitchEntry, precision: str) -> list[np.ndarray]:
        """The dequantized partial logits of a switch, float64 (images, classes) per slice."""
        files = [(slice_.model, slice_.files[precision].output) for slice_ in entry.slices]
        return [Sum().contribution(output, self.stored[f"{model}/{precision}"]) for model, output in files]

    def fused(self, entry: SwitchEntry, precision: str) -> np.ndarray:
        """The fused logits of a switch, float32 (images, classes)."""
        return Sum().fuse(self.real(entry, precision))


def installed() -> list[Engine]:
    """The engines whose runtime is installed, the reference first.

    Raises:
      UserError: the reference's runtime is not installed.
    """
    engines = [engine for engine in _ENGINES if importlib.util.find_spec(engine.runtime)]
    if REFERENCE not in engines:
        raise UserError(f"runtime {REFERENCE.runtime} is not installed; verification takes it as its reference.")
    return engines


def run(bundle: Bundle, engine: Engine, images: np.ndarray) -> EngineOutputs:
    """Runs every file of a bundle on an engine; arguments and errors as of `EngineProcess`."""
    with EngineProcess(bundle, engine, images) as process:
        return process.outputs()


def run_all(
    bundle: Bundle, engines: Sequence[Engine], images: np.ndarray, report: Callable[[str], None] = lambda text: None
) -> list[EngineOutputs]:
    """Runs a bundle on several engines at once.

    Args:
      bundle: the bundle.
      engines: the engines.
      images: uint8 (n, height, width, 3).
      report: is told now and then how far they are.

    Raises:
      UserError: an engine could not run a file; the others are ended.
    """
    files = sum(len(slice_.files) for entry in bundle.switches for slice_ in entry.slices)
    with ExitStack() as stack:
        processes = [stack.enter_context(EngineProcess(bundle, engine, images)) for engine in engines]
        began = reported = time.monotonic()
        while running := [process for process in processes if process.running]:
            time.sleep(0.1)
            # One that failed says so at once, whatever the others are still doing.
            for process in processes:
                process.raise_failure()
            if time.monotonic() - reported >= _REPORT_S:
                reported = time.monotonic()
                states = "; ".join(f"{process.engine} {process.done}" for process in running)
                report(f"{duration(reported - began)}, of {files} files: {states}")
        return [process.outputs() for process in processes]


def machine(engine: Engine) -> str:
    """The processor that an engine runs on, for people."""
    return f"{engine.board.name} (emulated)" if engine.board else platform.machine()


class EngineProcess:
    """A process that runs every file of a bundle on an engine, while the `with` block does something else.

    Args:
      bundle: the bundle.
      engine: what to run them on.
      images: uint8 (n, height, width, 3).

    Leaving the block ends the process, and so does the death of this one, of which nothing stays behind.

    Raises:
      UserError: there is no room for the images.
    """

    def __init__(self, bundle: Bundle, engine: Engine, images: np.ndarray) -> None:
        self.engine = engine
        board = engine.board
        with ExitStack() as stack:
            # These files have no names; they end with the last process that has them open.
            self._images, self._outputs, self._done, self._errors = (
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(4)
            )
            try:
                np.save(self._images, images)
                self._images.flush()
            except OSError as error:
                raise UserError(
                    f"the images for runtime {engine.runtime}, {images.nbytes:,} bytes, cannot be written to "
                    f"{tempfile.gettempdir()}: {error.strerror or error}; give another folder in TMPDIR."
                ) from error
            passed = [self._images.fileno(), self._outputs.fileno()]
            arguments = ["-m", "export.proof.slice_outputs", f"--bundle={bundle.folder.resolve()}"]
            arguments += [f"--runtime={engine.runtime}", f"--{'' if engine.delegates else 'no'}delegates"]
            arguments += ["--reference_kernels"] if engine.reference_kernels else []
            arguments += [f"--images=/dev/fd/{passed[0]}", f"--outputs=/dev/fd/{passed[1]}", "--ends_with_input"]
            self._process = subprocess.Popen(
                board.command(arguments) if board else [sys.executable, *arguments],
                cwd=Path(__file__).parents[2],
                env=board.environment() if board else os.environ | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=self._done,
                stderr=self._errors,
                pass_fds=passed,
            )
            stack.enter_context(self._process)
            stack.callback(self._process.kill)
            self._stack = stack.pop_all()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def done(self) -> int:
        """How many files have been run so far."""
        # Reads without moving the place that the process writes at.
        return os.pread(self._done.fileno(), 1 << 20, 0).count(b"\n")

    def raise_failure(self) -> None:
        """Raises UserError, with the engine's last words, if the process has failed."""
        status = self._process.poll()
        if status:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            last = (lines or [f"exit status {status}"])[-1].removeprefix("error: ")
            where = f" on {self.engine.board.name}" if self.engine.board else ""
            raise UserError(f"runtime {self.engine.runtime}{where} could not run the bundle: {last}")

    def outputs(self) -> EngineOutputs:
        """Waits for the process and returns what the files gave.

        Raises:
          UserError: the engine could not run a file; its last words are quoted.
        """
        self._process.wait()
        self.raise_failure()
        self._outputs.seek(0)
        with np.load(self._outputs, allow_pickle=False) as file:
            stored = dict(file)
        return EngineOutputs(self.engine, f"{stored.pop('version')}, {self.engine.kernels}", stored)
