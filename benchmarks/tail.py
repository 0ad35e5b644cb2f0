"""Times the tail of a super-resolution bundle, what is done once with the summed maps, as a .tflite file and in NumPy.

    python -m benchmarks.tail --bundle=build/sr --csv=benchmarks/results/tail_96_4cores.csv

The tail of WDSR is a 5x5 convolution of the image, a bias, a pixel shuffle and the way back to pixels. The NumPy form
takes the kernel and bias out of the file, gathers the windows of the image and multiplies once; both run on one thread
and give the same image. See METHODOLOGY.md.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

# Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from benchmarks.conditions import write_csv  # noqa: E402
from fusion.base import columns
from fusion.base.program import UserError  # noqa: E402
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle  # noqa: E402
from fusion.runtime import choosing as runtime  # noqa: E402
from fusion.runtime import timing
from fusion.runtime.interpreters import TailInterpreter  # noqa: E402
from paradis_tf.base import program  # noqa: E402

_BUNDLE = flags.DEFINE_string("bundle", None, "A super-resolution bundle's folder.", required=True)
_RUNS = flags.DEFINE_integer("runs", 200, "Timed calls of each.", 2)
_CSV = flags.DEFINE_string("csv", "", "File to write the medians to.")


def main(argv: list[str]) -> None:
    bundle = manifest.load(_BUNDLE.value)
    if bundle.tail is None:
        raise UserError(f"bundle {str(bundle.folder)!r} has no tail; legal: one of super-resolution.")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, bundle.shape, dtype=np.uint8)
    summed = rng.normal(0, 0.1, bundle.output_shape).astype(np.float32)
    in_numpy = _NumpyTail(bundle)
    rows = []
    for name in ("tflite_runtime", "ai_edge_litert"):
        chosen = runtime.choose(name)
        with program.quiet():
            tail = TailInterpreter(bundle, chosen, 1)
        apart = int(np.abs(tail(image, summed).astype(int) - in_numpy(image, summed)).max())
        if apart > 1:
            raise UserError(f"the two forms differ by {apart} grey levels on {chosen}; legal: 1.")
        # In turn, so that a busy machine weighs on both.
        seconds: dict[str, list[float]] = {"tflite": [], "numpy": []}
        for _ in range(_RUNS.value):
            for form, call in (("tflite", tail), ("numpy", in_numpy)):
                seconds[form].append(timing.measure(functools.partial(call, image, summed), 1).first / 1e6)
        rows += [(form, str(chosen), round(timing.of(times).p50, 1)) for form, times in seconds.items()]
    print(columns.render(("form", "runtime beside it", "median (us)"), rows))
    if _CSV.value:
        options = {"image": f"{bundle.shape[0]}x{bundle.shape[1]}", "scale": bundle.scale, "threads": 1}
        write_csv(Path(_CSV.value), ("form", "runtime", "median_us"), rows, options)


class _NumpyTail:
    """The same arithmetic in NumPy, for one size of image."""

    def __init__(self, bundle: Bundle) -> None:
        tensors = _weights(bundle)
        kernels = [tensor for tensor in tensors if tensor.ndim == 4]
        if len(kernels) != 1:
            raise UserError(f"the tail of bundle {str(bundle.folder)!r} is not that of WDSR.")
        # Of a file a kernel is (maps, height, width, channels), and the bias may be that of the convolution.
        self._side = kernels[0].shape[1]
        self._matrix = kernels[0].reshape(kernels[0].shape[0], -1).T
        self._bias = sum(tensor for tensor in tensors if tensor.shape == (kernels[0].shape[0],))
        self._scale = bundle.scale

    def __call__(self, image: np.ndarray, summed: np.ndarray) -> np.ndarray:
        height, width, _ = image.shape
        margin = self._side // 2
        padded = np.pad((image.astype(np.float32) - 128) / 128, ((margin, margin), (margin, margin), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self._side, self._side), (0, 1))  # type: ignore[call-overload]
        columns_ = windows.transpose(0, 1, 3, 4, 2).reshape(height * width, -1)
        maps = summed + (columns_ @ self._matrix).reshape(summed.shape) + self._bias
        s = self._scale
        pixels = maps.reshape(height, width, s, s, 3).transpose(0, 2, 1, 3, 4).reshape(height * s, width * s, 3)
        return np.clip(np.rint(128 * pixels + 128), 0, 255).astype(np.uint8)


def _weights(bundle: Bundle) -> list[np.ndarray]:
    """The constant float tensors of the tail's file."""
    with program.quiet():
        from tensorflow.lite.python import schema_py_generated as schema

    if bundle.tail is None:
        return []
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bundle.read(bundle.tail.file), 0))
    found = []
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and tensor.type == schema.TensorType.FLOAT32:
            found.append(np.frombuffer(bytes(data), np.float32).reshape(tensor.shape))
    return found


if __name__ == "__main__":
    program.run(main)
