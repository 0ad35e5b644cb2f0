"""What `local` sends: the images of a file, or a bundle's samples with their expected answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.program import UserError
from ..bundle.contents import BAD_NPZ, Bundle, SwitchEntry
from ..rules import answers
from ..rules.sum import Sum

# A runtime may round one value of a quantized network to the neighbouring step.
_STEPS = 2
_FLOAT_TOLERANCE = 1e-4
# XNNPACK, which ai_edge_litert runs by default, rounds an int8 network otherwise in every layer.
_XNNPACK_TOLERANCE = 0.1
# The same, and a step of a slice's output, in the grey levels of an answer that is an image.
_LEVELS, _XNNPACK_LEVELS = 2.0, 16.0


@dataclass(frozen=True)
class Inputs:
    """What to send: uint8 images (N, height, width, channels) and their class indices (N,), None of
    super-resolution; for samples also the expected answers, fused logits (N, K) or pixels, and how far an answer may be
    from them."""

    images: np.ndarray
    labels: np.ndarray | None
    expected: np.ndarray | None = None
    tolerance: float = 0.0


def read_data(path: str, bundle: Bundle, limit: int | None) -> Inputs:
    """The first `limit` test images of an .npz file: x_test uint8 (N, height, width, channels), N of 1 or more, and
    y_test (N,) or (N, 1), integers.

    Grey images, (N, height, width) or (N, height, width, 1), are repeated to the bundle's channels, as training does.
    Raises `UserError` when the file is missing or no such one, when images or labels do not fit the bundle, and when
    the bundle has no classes.
    """
    if not bundle.task.has_classes:
        raise UserError(f"--data is for classifiers, and bundle {str(bundle.folder)!r} is of {bundle.task.name}.")
    pixels, labels = _read_arrays(path)
    what = f"{pixels.dtype} {list(pixels.shape)}"
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    shapes = (bundle.shape, (*bundle.shape[:2], 1))
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] not in shapes:
        raise UserError(
            f"x_test of data file {path!r} is {what}; legal: uint8 {['N', *bundle.shape]}, or grey images of that size."
        )
    if len(pixels) == 0:
        raise UserError(f"x_test of data file {path!r} is {what}; legal: one or more images.")
    classes = len(bundle.labels)
    fits = labels.dtype.kind in "iu" and labels.shape in ((len(pixels),), (len(pixels), 1))
    if not fits or not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"y_test of data file {path!r} is {labels.dtype} {list(labels.shape)}; legal: {len(pixels)} "
            f"class indices from 0 to {classes - 1}."
        )
    pixels = pixels[:limit]
    return Inputs(np.broadcast_to(pixels, (len(pixels), *bundle.shape)), labels.reshape(-1)[:limit])


def _read_arrays(path: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return data["x_test"], data["y_test"]
    except FileNotFoundError as error:
        raise UserError(f"data file {path!r} does not exist.") from error
    except KeyError as error:
        raise UserError(f"data file {path!r} has no array {error}; legal: x_test, y_test.") from error
    except BAD_NPZ as error:
        raise UserError(f"data file {path!r} is not an .npz file without pickles.") from error


def read_samples(bundle: Bundle, entry: SwitchEntry, precision: str, runtime: str, limit: int | None) -> Inputs:
    """The first `limit` of the bundle's samples, and the answers expected of a switch at a precision.

    Logits may be off by two quantization steps of each slice's output and 1e-4 of the largest logit. For int8 on
    `runtime` ai_edge_litert it is 10 % of the spread (largest minus smallest) of the expected logits more, since they
    come from the built-in kernels of tflite_runtime (18 steps of a slice's were seen). Pixels may be off by 2 levels,
    in that case by 16. Raises `UserError` when there is no sample, and when the file of samples cannot be read.
    """
    samples = bundle.samples[:limit]
    if not samples:
        raise UserError(f"bundle {str(bundle.folder)!r} has no samples; legal: give images with --data.")
    pixels, stored = bundle.read_samples()
    pixels = pixels[:limit]
    files = [(slice_.model, slice_.files[precision].output) for slice_ in entry.slices]
    contributions = [Sum().contribution(out, stored[f"{model}/{precision}"][:limit]) for model, out in files]
    expected = answers.of(bundle, runtime, 1)(pixels, contributions)[0]
    strays = precision in ("int8", "dynamic") and runtime == "ai_edge_litert"
    if not bundle.task.has_classes:
        return Inputs(pixels, None, expected, _XNNPACK_LEVELS if strays else _LEVELS)
    tolerance = sum(_STEPS * output.scale for _, output in files if output.scale is not None)
    tolerance += _FLOAT_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    tolerance += _XNNPACK_TOLERANCE * float(expected.max() - expected.min()) if strays else 0.0
    return Inputs(pixels, np.array([sample.label for sample in samples]), expected, tolerance)
