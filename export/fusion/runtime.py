"""Chooses the TensorFlow Lite runtime and runs one slice file on it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from .manifest import SliceFile, TensorInfo
from .program import UserError

_MODULES = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite_runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
}
RUNTIMES = ("auto", *_MODULES)
MAX_THREADS = 256
_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Runtime:
    """An importable runtime: its name (`ai_edge_litert` or `tflite_runtime`), version and
    module."""

    name: str
    version: str
    module: ModuleType

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def choose(name: str) -> Runtime:
    """The runtime called `name`; `auto` takes ai_edge_litert where it is installed, since its
    XNNPACK runs int8, and tflite_runtime elsewhere.

    Raises `UserError` when the runtime is unknown or not installed, and when tflite_runtime would
    meet NumPy 2, which it is not built for (it dies at the first model, with a page of messages).
    Source: ours.
    """
    if name not in RUNTIMES:
        raise UserError(f"runtime {name!r} is unknown; legal: {', '.join(RUNTIMES)}.")
    installed = [candidate for candidate in _MODULES if _import(candidate)]
    if name == "auto" and not installed:
        raise UserError("no runtime is installed; legal: pip install ai-edge-litert or tflite-runtime.")
    if name != "auto" and name not in installed:
        have = ", ".join(installed) or "none"
        raise UserError(f"runtime {name!r} is not installed; installed: {have}.")
    chosen = installed[0] if name == "auto" else name
    if chosen == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
        raise UserError(
            f"runtime 'tflite_runtime' cannot run with NumPy {np.__version__}; legal: numpy<2, "
            "or the runtime ai_edge_litert."
        )
    module = _import(chosen)
    if module is None:
        raise UserError(f"runtime {chosen!r} can no longer be imported.")
    return Runtime(chosen, importlib.metadata.version(_MODULES[chosen][1]), module)


def available_cores() -> int:
    """How many processor cores this process may use, 1 or more; the default number of threads."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


class SliceInterpreter:
    """One slice model, ready to run. Not thread-safe: call it from one thread.

    Args:
      data: the bytes of the .tflite file.
      file: what the manifest says of it; a file that differs is refused.
      shape: the image's (height, width, channels).
      classes: the length of the output.
      runtime: from `choose`.
      threads: how many threads one invocation may use, 1 or more.
      delegates: whether the runtime may hand operations to XNNPACK, as it does by default; its int8
        results differ from the built-in kernels' by rounding.

    Raises `UserError` when the runtime cannot load the file, or when its input or output is not as
    the manifest says. Source: ours.
    """

    def __init__(
        self,
        data: bytes,
        file: SliceFile,
        shape: tuple[int, int, int],
        classes: int,
        runtime: Runtime,
        threads: int,
        delegates: bool = True,
    ) -> None:
        if threads < 1:
            raise UserError(f"threads is {threads}; legal: 1 or more.")
        self.runtime, self.threads = runtime, threads
        try:
            kernels = runtime.module.OpResolverType
            self._interpreter = runtime.module.Interpreter(
                model_content=data,
                num_threads=threads,
                experimental_op_resolver_type=kernels.AUTO if delegates else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
            inputs, outputs = self._tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"slice file {file.path!r} cannot be loaded by {runtime}: {' '.join(str(error).split())}"
            ) from error
        self.input = _check(file.path, "input", inputs, file.input, (1, *shape))
        self.output = _check(file.path, "output", outputs, file.output, (1, classes))
        self.input_shape, self.output_shape = (1, *shape), (1, classes)
        self._in = inputs[file.input.name]["index"]
        self._out = outputs[file.output.name]["index"]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Runs the slice on one raw image, uint8 (height, width, channels), 0..255.

        Returns the output tensor as stored, not dequantized: (classes,), in the file's own dtype, a
        copy.
        """
        self._interpreter.set_tensor(self._in, image[np.newaxis])
        self._interpreter.invoke()
        return np.array(self._interpreter.get_tensor(self._out)[0])

    def _tensors(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if _SIGNATURE in self._interpreter.get_signature_list():
            runner = self._interpreter.get_signature_runner(_SIGNATURE)
            return runner.get_input_details(), runner.get_output_details()
        # Without a signature only a file with a single input and output leaves no doubt.
        inputs, outputs = (
            self._interpreter.get_input_details(),
            self._interpreter.get_output_details(),
        )
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(f"no signature {_SIGNATURE!r}, and more than one input or output.")
        return {"image": inputs[0]}, {"logits": outputs[0]}


def _check(path: str, side: str, tensors: dict[str, Any], said: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    if list(tensors) != [said.name]:
        raise UserError(f"slice file {path!r} has the {side}s {', '.join(tensors)}; its manifest says {said.name}.")
    details = tensors[said.name]
    scale, zero_point = details["quantization"]
    found = TensorInfo(
        said.name,
        np.dtype(details["dtype"]).name,
        float(scale) if scale else None,
        int(zero_point) if scale else None,
    )
    same_scale = (found.scale is None) == (said.scale is None) and (
        np.float32(found.scale or 0) == np.float32(said.scale or 0)
    )
    found_shape = tuple(int(n) for n in details["shape"])
    if (found.dtype, found.zero_point, found_shape) != (said.dtype, said.zero_point, shape) or (not same_scale):
        raise UserError(
            f"slice file {path!r}: {side} {said.name!r} is {found.dtype} {list(found_shape)} with scale "
            f"{found.scale} and zero point {found.zero_point}; its manifest says {said.dtype} {list(shape)}, "
            f"{said.scale} and {said.zero_point}."
        )
    return found


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(_MODULES[name][0])
    except ImportError:
        return None
