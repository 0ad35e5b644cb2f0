"""What a set is prepared from, in chunks that several threads can work on apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fusion.base import pictures
from fusion.base.program import UserError
from paradis_tf.data import folder, tfds

# Images of a file of the set: few enough to share the work and lose little when stopped, enough for ImageNet to have
# some hundred files.
_FEWEST, _MOST, _FILES = 50, 2000, 32
# Name, file content and label of an image.
_Image = tuple[str, bytes, int]


@dataclass(frozen=True)
class Chunk:
    """Images that lie together in a part of a source.

    Attributes:
      images: how many there are.
      read: gives name, file content and label of each; the content of a file that cannot be read is empty.
    """

    images: int
    read: Callable[[], Iterator[_Image]]


@dataclass(frozen=True)
class PreparationPlan:
    """What is to be prepared.

    Attributes:
      name: of the source.
      classes: their names.
      chunks: the images of each part.
      fingerprint: a hash of what the source holds, of files their names and sizes.
    """

    name: str
    classes: tuple[str, ...]
    chunks: dict[str, list[Chunk]]
    fingerprint: str

    @property
    def images(self) -> int:
        """How many there are in all parts."""
        return sum(chunk.images for chunks in self.chunks.values() for chunk in chunks)


def plan(source: str, data_dir: str | None, wanted: Sequence[str]) -> PreparationPlan:
    """The images of a folder of class folders, or of `tfds:NAME`.

    Args:
      source: the folder or the name.
      data_dir: where TensorFlow Datasets keeps its sets.
      wanted: the parts to use, by the source's names; empty takes all.

    Raises:
      UserError: the source is not there or not of that form.
    """
    if source.startswith(tfds.PREFIX):
        images = tfds.TfdsSet(source, data_dir, wanted)
        digest = hashlib.sha256(f"{images.full_name}\0{images.parts}\0{images.classes}".encode()).hexdigest()
        chunks = {part: _chunks(images.count(part), partial(_read_tfds, images, part)) for part in images.parts}
        return PreparationPlan(source, images.classes, chunks, digest)
    parts, classes = folder.listing(source, wanted)
    chunks = {part: _chunks(len(files.paths), partial(_read_files, files)) for part, files in parts.items()}
    root = Path(source)
    return PreparationPlan(root.resolve().name, classes, chunks, folder.fingerprint(parts, root, times=False))


def _chunks(images: int, read: Callable[[int, int], Iterator[_Image]]) -> list[Chunk]:
    size = min(_MOST, max(_FEWEST, -(-images // _FILES)))
    bounds = [(start, min(start + size, images)) for start in range(0, images, size)]
    return [Chunk(stop - start, partial(read, start, stop)) for start, stop in bounds]


def _read_files(files: folder.Files, start: int, stop: int) -> Iterator[_Image]:
    for path, label in zip(files.paths[start:stop], files.labels[start:stop], strict=True):
        try:
            yield str(path), pictures.load(path), int(label)
        except UserError:
            yield str(path), b"", int(label)


def _read_tfds(images: tfds.TfdsSet, part: str, start: int, stop: int) -> Iterator[_Image]:
    for name, content, label in images.encoded(part, start, stop):
        if not 0 <= label < len(images.classes):
            raise UserError(
                f"image {name!r} has label {label}; a part without labels is left out with --parts, as in "
                "--parts=train,validation."
            )
        yield name, content, label
