"""The answers of a bundle's files on the installed runtimes, each asked in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.fusion import fuse
from export.fusion.bundle import Bundle, SwitchEntry
from export.fusion.program import UserError


@dataclass(frozen=True)
class Engine:
    """A runtime, and whether XNNPACK may take operations from its built-in kernels (the default of both)."""

    runtime: str
    delegates: bool = True


# tflite-runtime gives no int8 operation to XNNPACK whatever it is told; LiteRT gives it nearly all.
REFERENCE = Engine("tflite_runtime")
_ENGINES = (REFERENCE, Engine("ai_edge_litert", delegates=False), Engine("ai_edge_litert"))


@dataclass(frozen=True)
class Answers:
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
        files = [(part.model, part.files[precision].output) for part in entry.slices]
        return [
            fuse.dequantize(self.stored[f"{model}/{precision}"], output.scale, output.zero_point)
            for model, output in files
        ]

    def fused(self, entry: SwitchEntry, precision: str) -> np.ndarray:
        """The fused logits of a switch, float32 (images, classes)."""
        return fuse.fuse(self.real(entry, precision))


def installed() -> list[Engine]:
    """The engines whose runtime is installed, the reference first.

    Raises:
      UserError: the reference's runtime is not installed.
    """
    found = [engine for engine in _ENGINES if importlib.util.find_spec(engine.runtime)]
    if REFERENCE not in found:
        raise UserError(f"runtime {REFERENCE.runtime} is not installed; verification takes it as its reference.")
    return found


def ask(bundle: Bundle, engine: Engine, images: np.ndarray) -> Answers:
    """Runs every file of a bundle on an engine.

    Args:
      bundle: the bundle.
      engine: what to run them on.
      images: uint8 (n, height, width, 3).

    Raises:
      UserError: the engine could not run a file; its last words are quoted.
    """
    with tempfile.TemporaryDirectory() as folder:
        taken, given = Path(folder) / "images.npy", Path(folder) / "outputs.npz"
        np.save(taken, images)
        command = [sys.executable, "-m", "export.slice_outputs", f"--bundle={bundle.folder.resolve()}"]
        command += [f"--runtime={engine.runtime}", f"--{'' if engine.delegates else 'no'}delegates"]
        command += [f"--images={taken}", f"--outputs={given}"]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UserError(f"runtime {engine.runtime} could not run the bundle: {last.removeprefix('error: ')}")
        with np.load(given, allow_pickle=False) as file:
            stored = dict(file)
    kernels = "XNNPACK" if engine.delegates and engine != REFERENCE else "built-in kernels"
    return Answers(engine, f"{stored.pop('version')}, {kernels}", stored)
