"""Runs one .tflite file of a bundle: a slice, or the tail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.program import UserError
from ..bundle.contents import Bundle, File, SliceFile, TensorInfo
from . import memory
from .choosing import Runtime

_SIGNATURE = "serving_default"
# The tensors of a side of a file, each with its shape for one image.
_Tensors = Mapping[TensorInfo, tuple[int, ...]]
_UNKNOWN_OPERATOR = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")


class SliceInterpreter:
    """One slice model, ready to run. Not thread-safe: call it from one thread.

    Args:
      bundle: the bundle it is of.
      file: which of its slice files; a file that is not as the manifest says is refused.
      runtime: from `runtime.choose`.
      threads: how many threads one invocation may use, 1 or more.
      delegates: whether the runtime may hand operations to XNNPACK, as it does by default; its int8 results differ from
        the built-in kernels' by rounding.
      reference: whether TFLite's reference kernels run all of it: slow ones, whose int8 results are those of ARM's
        built-in kernels on any machine. Those of x86 round halves below zero up, and these away from zero.

    Raises `UserError` as `Bundle.read` does, when there is not memory enough, when the runtime cannot load the file,
    and when its input or output is not as the manifest says.
    """

    def __init__(
        self,
        bundle: Bundle,
        file: SliceFile,
        runtime: Runtime,
        threads: int,
        delegates: bool = True,
        reference: bool = False,
    ) -> None:
        kernels = "AUTO" if delegates else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
        options = runtime, threads, "BUILTIN_REF" if reference else kernels
        inputs, outputs = {file.input: bundle.shape}, {file.output: bundle.output_shape}
        self._interpreter, self._in, self._out = _load(bundle, file, file.arena_bytes, options, inputs, outputs)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Runs the slice on one raw image, uint8 (height, width, channels), 0..255.

        Returns the output as stored, not dequantized, of `Bundle.output_shape`, in the file's own dtype, a copy.
        """
        self._interpreter.set_tensor(self._in, image[np.newaxis])
        self._interpreter.invoke()
        return np.array(self._interpreter.get_tensor(self._out)[0])


class TailInterpreter:
    """The tail of a bundle, ready to run. Not thread-safe: call it from one thread.

    Args:
      bundle: a bundle with a tail.
      runtime, threads: as of `SliceInterpreter`.

    Raises `UserError` as `SliceInterpreter` does, and when the bundle has no tail.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, threads: int) -> None:
        if bundle.tail is None:
            raise UserError(f"bundle {str(bundle.folder)!r} has no tail; the sum of its slices is the answer.")
        height, width, channels = bundle.shape
        image, summed = TensorInfo("image", "uint8", None, None), TensorInfo("summed", "float32", None, None)
        inputs = {image: bundle.shape, summed: bundle.output_shape}
        pixels = TensorInfo("pixels", "float32", None, None)
        outputs = {pixels: (height * bundle.scale, width * bundle.scale, channels)}
        self._interpreter, self._image, self._summed, self._out = _load(
            bundle, bundle.tail.file, bundle.tail.arena_bytes, (runtime, threads, "AUTO"), inputs, outputs
        )

    def __call__(self, image: np.ndarray, summed: np.ndarray) -> np.ndarray:
        """The answer of one image, uint8 of `Bundle.shape`, and its summed outputs, of `Bundle.output_shape`.

        Returns uint8 (height * scale, width * scale, channels): the pixels rounded and clipped to 0..255.
        """
        self._interpreter.set_tensor(self._image, image[np.newaxis])
        self._interpreter.set_tensor(self._summed, summed[np.newaxis].astype(np.float32))
        self._interpreter.invoke()
        pixels = self._interpreter.get_tensor(self._out)[0]
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _load(
    bundle: Bundle,
    file: File,
    arena_bytes: int,
    options: tuple[Runtime, int, str],
    inputs: _Tensors,
    outputs: _Tensors,
) -> tuple[Any, ...]:
    """The interpreter of a file, by (runtime, threads, kernels), and the indices of its inputs and outputs."""
    runtime, threads, kernels = options
    if threads < 1:
        raise UserError(f"threads is {threads}; legal: 1 or more.")
    data = bundle.read(file)
    memory.require(memory.needed(file.bytes, arena_bytes), f"slice file {file.path!r}")
    try:
        interpreter = runtime.module.Interpreter(
            model_content=data,
            num_threads=threads,
            experimental_op_resolver_type=runtime.module.OpResolverType[kernels],
        )
        interpreter.allocate_tensors()
        if _SIGNATURE not in interpreter.get_signature_list():
            raise ValueError(f"it has no signature {_SIGNATURE!r}.")
        runner = interpreter.get_signature_runner(_SIGNATURE)
        sides = ("input", inputs, runner.get_input_details()), ("output", outputs, runner.get_output_details())
    except (ValueError, RuntimeError) as error:
        unknown = _UNKNOWN_OPERATOR.search(str(error))
        if unknown:
            name, version = unknown.groups()
            raise UserError(
                f"slice file {file.path!r} needs operator {name} version {version}, which {runtime} is too old for; "
                "install a newer runtime, or convert again with another precision."
            ) from error
        raise UserError(
            f"slice file {file.path!r} cannot be loaded by {runtime}: {' '.join(str(error).split())}"
        ) from error
    return interpreter, *(index for side in sides for index in _indices(file.path, *side))


def _indices(path: str, side: str, described: _Tensors, tensors: dict[str, Any]) -> list[int]:
    """The indices of the tensors of a side of a file. Raises `UserError` where they are not the described ones."""
    names = [info.name for info in described]
    if set(tensors) != set(names):
        raise UserError(
            f"slice file {path!r} has the {side}s {', '.join(tensors)}; its manifest says {', '.join(names)}."
        )
    for info, shape in described.items():
        details = tensors[info.name]
        scale, zero_point = details["quantization"]
        dtype, actual_shape = np.dtype(details["dtype"]).name, list(map(int, details["shape"]))
        actual = (dtype, actual_shape, *((np.float32(scale), int(zero_point)) if scale else (None, None)))
        legal = (info.dtype, [1, *shape], None if info.scale is None else np.float32(info.scale), info.zero_point)
        if actual != legal:
            raise UserError(
                f"slice file {path!r}: {side} {info.name!r} is {actual[0]} {actual[1]} with scale {actual[2]} and "
                f"zero point {actual[3]}; its manifest says {legal[0]} {legal[1]}, {legal[2]} and {legal[3]}."
            )
    return [tensors[name]["index"] for name in names]
