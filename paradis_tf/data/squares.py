"""A small set as one .npz file of square images, which `paradis_tf.data.datasets.load` reads as `npz`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from fusion.base import pictures
from fusion.base.program import UserError
from paradis_tf.base.files import replacing
from paradis_tf.base.progress import Progress
from paradis_tf.base.threads import in_threads
from paradis_tf.data import encoded
from paradis_tf.data.parts import require_all_classes
from paradis_tf.data.preparation import report_broken
from paradis_tf.data.sources import Chunk, PreparationPlan

_MOST_BYTES = 4 * 2**30
# More than what an .npz holds beside its arrays, in bytes.
_HEADERS = 2**16


def prepare(plan: PreparationPlan, target: Path, size: int, skip_broken: bool, threads: int) -> dict[str, np.ndarray]:
    """Writes the labels and the images' centre squares, see `paradis_tf.data.encoded.central`: aside, then in place.

    Args:
      plan: the images.
      target: the file.
      size: side of the images in pixels.
      skip_broken: images that cannot be used are left out instead of refused.
      threads: how many work at once, at least 1.

    Returns:
      the arrays of the file.

    Raises:
      UserError: images that cannot be used, more of them than fit in memory, or a file that cannot be written.
    """
    needed = plan.images * size * size * 3
    if needed > _MOST_BYTES:
        raise UserError(
            f"{plan.images:,} images of {size}x{size} are {needed / 2**30:.1f} GiB, too many for an .npz, which is "
            f"held in memory ({_MOST_BYTES / 2**30:.0f} GiB at most); give a folder as --target."
        )
    arrays: dict[str, np.ndarray] = {"class_names": np.array(plan.classes)}
    with replacing(target, f"--target={target}") as aside:
        # Before the work, so that it is not in vain.
        aside.touch()
        progress, done = Progress("prepared", plan.images), 0
        broken: dict[str, str] = {}
        for part, chunks in plan.chunks.items():
            images, labels = [], []
            for chunk, (pixels, classes, unusable) in in_threads(partial(_squares, size), chunks, threads):
                images.append(pixels)
                labels.append(classes)
                broken.update(unusable)
                done += chunk.images
                progress.update(done)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = np.concatenate(images), np.concatenate(labels)
        report_broken(plan, broken, skip_broken)
        for part in plan.chunks:
            required = plan.classes if part == "train" else ()
            require_all_classes(arrays[f"y_{part}"], required, f"{plan.name}, part {part}")
        with aside.open("wb") as stream:
            # So that a full disk shows here: an archive that is cut off in its middle also complains when it is freed.
            os.posix_fallocate(stream.fileno(), 0, sum(array.nbytes for array in arrays.values()) + _HEADERS)
            np.savez(stream, **arrays)
            stream.truncate()
    return arrays


def _squares(size: int, chunk: Chunk) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The images uint8 (n, size, size, 3) and labels int64 (n,) of a chunk, and why others cannot be used."""
    images, labels = [], []
    broken: dict[str, str] = {}
    for name, content, label in chunk.read():
        try:
            pixels = pictures.decode(content, repr(name)).pixels
        except UserError as error:
            broken[name] = str(error)
            continue
        images.append(encoded.central(tf.constant(pixels), size).numpy())
        labels.append(label)
    return np.array(images, np.uint8).reshape(len(images), size, size, 3), np.array(labels, np.int64), broken
