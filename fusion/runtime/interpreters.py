"""Runs one .tflite file of a bundle: a slice, or the tail."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..base.program import UserError
from ..bundle.contents import Bundle, File, SliceFile, TensorInfo
from . import memory
from .choosing import Runtime

_SIGNATURE = "serving_default"
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
        self.runtime, self.threads = runtime, threads
        resolvers = runtime.module.OpResolverType
        resolver = resolvers.AUTO if delegates else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        resolver = resolvers.BUILTIN_REF if reference else resolver
        self._interpreter, inputs, outputs = _load(bundle, file, file.arena_bytes, runtime, threads, resolver)
        self.input_shape, self.output_shape = (1, *bundle.shape), (1, *bundle.output_shape)
        self.input = _check(file.path, "input", inputs, file.input, self.input_shape)
        self.output = _check(file.path, "output", outputs, file.output, self.output_shape)
        self._in = inputs[file.input.name]["index"]
        self._out = outputs[file.output.name]["index"]

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
        file = bundle.tail.file
        resolver = runtime.module.OpResolverType.AUTO
        self._interpreter, inputs, outputs = _load(bundle, file, bundle.tail.arena_bytes, runtime, threads, resolver)
        shapes = {"image": (1, *bundle.shape), "summed": (1, *bundle.output_shape)}
        dtypes = {"image": "uint8", "summed": "float32"}
        if set(inputs) != set(shapes):
            raise UserError(f"tail {file.path!r} has the inputs {', '.join(inputs)}; it takes {', '.join(shapes)}.")
        for name, shape in shapes.items():
            described = TensorInfo(name, dtypes[name], None, None)
            _check(file.path, "input", {name: inputs[name]}, described, shape)
        pixels = TensorInfo("pixels", "float32", None, None)
        _check(file.path, "output", outputs, pixels, (1, height * bundle.scale, width * bundle.scale, channels))
        self._image, self._summed = (inputs[name]["index"] for name in shapes)
        self._out = outputs["pixels"]["index"]

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
    bundle: Bundle, file: File, arena_bytes: int, runtime: Runtime, threads: int, resolver: Any
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The interpreter of a file, and the details of its inputs and outputs by name."""
    if threads < 1:
        raise UserError(f"threads is {threads}; legal: 1 or more.")
    data = bundle.read(file)
    memory.require(memory.needed(file.bytes, arena_bytes), f"slice file {file.path!r}")
    try:
        interpreter = runtime.module.Interpreter(
            model_content=data,
            num_threads=threads,
            experimental_op_resolver_type=resolver,
        )
        interpreter.allocate_tensors()
        if _SIGNATURE not in interpreter.get_signature_list():
            raise ValueError(f"it has no signature {_SIGNATURE!r}.")
        runner = interpreter.get_signature_runner(_SIGNATURE)
        return interpreter, runner.get_input_details(), runner.get_output_details()
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


def _check(path: str, side: str, tensors: dict[str, Any], described: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    """The one tensor of a side of a file. Raises `UserError` where it is not the one that the manifest lists."""
    if list(tensors) != [described.name]:
        raise UserError(
            f"slice file {path!r} has the {side}s {', '.join(tensors)}; its manifest says {described.name}."
        )
    details = tensors[described.name]
    scale, zero_point = details["quantization"]
    actual = TensorInfo(
        described.name,
        np.dtype(details["dtype"]).name,
        float(scale) if scale else None,
        int(zero_point) if scale else None,
    )
    same_scale = (actual.scale is None) == (described.scale is None) and (
        np.float32(actual.scale or 0) == np.float32(described.scale or 0)
    )
    actual_shape = tuple(map(int, details["shape"]))
    same = (actual.dtype, actual.zero_point, actual_shape) == (described.dtype, described.zero_point, shape)
    if not same or not same_scale:
        raise UserError(
            f"slice file {path!r}: {side} {described.name!r} is {actual.dtype} {list(actual_shape)} with scale "
            f"{actual.scale} and zero point {actual.zero_point}; its manifest says {described.dtype} {list(shape)}, "
            f"{described.scale} and {described.zero_point}."
        )
    return actual
