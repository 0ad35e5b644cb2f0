"""Chooses the TensorFlow Lite runtime."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..base.program import UserError

_PACKAGES = ("ai_edge_litert", "tflite_runtime")
RUNTIMES = ("auto", *_PACKAGES)
MAX_THREADS = 256


@dataclass(frozen=True)
class Runtime:
    """An importable runtime: its name (`ai_edge_litert` or `tflite_runtime`), version and module."""

    name: str
    version: str
    module: ModuleType

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def choose(name: str) -> Runtime:
    """The runtime called `name`; `auto` takes ai_edge_litert where it is installed, since its XNNPACK runs int8, and
    tflite_runtime elsewhere.

    Raises `UserError` when the runtime is unknown or not installed, and when tflite_runtime would meet NumPy 2, which
    it is not built for (it dies at the first model, with a page of messages).
    """
    if name not in RUNTIMES:
        raise UserError(f"runtime {name!r} is unknown; legal: {', '.join(RUNTIMES)}.")
    for candidate in _PACKAGES if name == "auto" else (name,):
        module = _import(candidate)
        if module is None:
            continue
        if candidate == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            raise UserError(
                f"runtime 'tflite_runtime' cannot run with NumPy {np.__version__}; legal: numpy<2, "
                "or the runtime ai_edge_litert."
            )
        return Runtime(candidate, importlib.metadata.version(candidate.replace("_", "-")), module)
    if name == "auto":
        raise UserError("no runtime is installed; legal: pip install ai-edge-litert or tflite-runtime.")
    installed = ", ".join(candidate for candidate in _PACKAGES if _import(candidate)) or "none"
    raise UserError(f"runtime {name!r} is not installed; installed: {installed}.")


def available_cores() -> int:
    """How many processor cores this process may use, 1 or more; the default number of threads."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"{name}.interpreter")
    except ImportError:
        return None
