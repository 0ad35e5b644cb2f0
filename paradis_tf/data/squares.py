"""A small set as one .npz file of square images, which `paradis_tf.data.datasets.load` reads as `npz`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.base.program import UserError
from paradis_tf.base.processes import load_quietly, run_all
from paradis_tf.base.progress import Progress
from paradis_tf.data import encoded
from paradis_tf.data.parts import require_all_classes
from paradis_tf.data.preparation import report_broken
from paradis_tf.data.sources import Chunk, Plan

_MOST_BYTES = 4 * 2**30
# More than what an .npz holds beside its arrays, in bytes.
_HEADERS = 2**16


@dataclass(frozen=True)
class Piece:
    """What one process makes arrays of."""

    role: str
    number: int
    chunk: Chunk
    size: int


def prepare(plan: Plan, target: Path, size: int, skip_broken: bool, processes: int) -> dict[str, np.ndarray]:
    """Writes the labels and the images' centre squares, see `paradis_tf.data.encoded.central`: aside, then in place.

    Args:
      plan: the images.
      target: the file.
      size: side of the images in pixels.
      skip_broken: images that cannot be decoded are left out instead of refused.
      processes: how many work at once, at least 1.

    Returns:
      the arrays of the file.

    Raises:
      UserError: images that cannot be decoded, more of them than fit in memory, or a file that cannot be written.
    """
    needed = plan.images * size * size * 3
    if needed > _MOST_BYTES:
        raise UserError(
            f"{plan.images:,} images of {size}x{size} are {needed / 2**30:.1f} GiB, too many for an .npz, which is "
            f"held in memory ({_MOST_BYTES / 2**30:.0f} GiB at most); give a folder as --target."
        )
    aside = target.with_name(f".{target.stem}.part.npz")
    with _writing(target, aside):
        # Before the work, so that it is not in vain.
        aside.touch()
    pieces = [Piece(role, n, chunk, size) for role, chunks in plan.chunks.items() for n, chunk in enumerate(chunks)]
    found: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    broken: dict[tuple[str, int], list[str]] = {}
    progress = Progress("prepared", plan.images)

    def finished(piece: Piece, made: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
        place = (piece.role, piece.number)
        found[place], broken[place] = made[:2], made[2]
        progress.update(sum(len(labels) for _, labels in found.values()) + sum(map(len, broken.values())))

    run_all(
        squares,
        pieces,
        processes,
        finished,
        load_quietly,
        (__name__,),
        lambda piece: f"part {piece.role}, piece {piece.number}",
    )
    report_broken(plan, [name for place in sorted(broken) for name in broken[place]], skip_broken)
    arrays = {"class_names": np.array(plan.classes)}
    for role, chunks in plan.chunks.items():
        made = [found.pop((role, number)) for number in range(len(chunks))]
        arrays[f"x_{role}"] = np.concatenate([images for images, _ in made])
        arrays[f"y_{role}"] = np.concatenate([labels for _, labels in made])
        require_all_classes(arrays[f"y_{role}"], plan.classes if role == "train" else (), f"{plan.name}, part {role}")
    with _writing(target, aside):
        with aside.open("wb") as stream:
            # So that a full disk shows here: an archive that is cut off in its middle also complains when it is freed.
            os.posix_fallocate(stream.fileno(), 0, sum(array.nbytes for array in arrays.values()) + _HEADERS)
            np.savez(stream, **arrays)
            stream.truncate()
        aside.replace(target)
    return arrays


@contextlib.contextmanager
def _writing(target: Path, aside: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--target={target} cannot be written: {error.strerror}.") from None
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def squares(piece: Piece) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The images uint8 (n, size, size, 3) and labels int64 (n,) of a piece, and what could not be decoded."""
    images, labels, broken = [], [], []
    for name, content, label in piece.chunk.read():
        try:
            images.append(encoded.central(encoded.decode(content), piece.size).numpy())
            labels.append(label)
        except ValueError:
            broken.append(name)
    shape = (len(images), piece.size, piece.size, 3)
    return np.array(images, np.uint8).reshape(shape), np.array(labels, np.int64), broken
