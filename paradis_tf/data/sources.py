"""What a set is prepared from, in chunks that several processes can work on apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusion.base.program import UserError
from paradis_tf.data import folder, tfds

# Images of a file of the set: few enough to share the work and lose little when stopped, enough for ImageNet to have
# some hundred files.
_FEWEST, _MOST, _FILES = 50, 2000, 32


@dataclass(frozen=True)
class Chunk:
    """Images that lie together in a part of a source.

    Attributes:
      classes: the names of the source's classes.
      paths, labels: of image files; empty for a set of TensorFlow Datasets, which has the rest.
      name, data_dir, wanted, role: the set, its folder, the parts to use, and the part by what it serves as.
      start, stop: the images' numbers in the part.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()
    name: str = ""
    data_dir: str | None = None
    wanted: tuple[str, ...] = ()
    role: str = ""
    start: int = 0
    stop: int = 0

    @property
    def images(self) -> int:
        return len(self.paths) or self.stop - self.start

    def read(self) -> Iterator[tuple[str, bytes, int]]:
        """Name, file content and label of each image; the content of a file that cannot be read is empty.

        Raises:
          UserError: a label that is no class.
        """
        if self.paths:
            for path, label in zip(self.paths, self.labels, strict=True):
                try:
                    yield str(path), path.read_bytes(), label
                except OSError:
                    yield str(path), b"", label
            return
        for name, content, label in tfds.Source(self.name, self.data_dir, self.wanted).encoded(
            self.role, self.start, self.stop
        ):
            if not 0 <= label < len(self.classes):
                raise UserError(
                    f"image {name!r} has label {label}; a part without labels is left out with --parts, as in "
                    "--parts=train,validation."
                )
            yield name, content, label


@dataclass(frozen=True)
class Plan:
    """What is to be prepared.

    Attributes:
      name: of the source.
      classes: their names.
      chunks: the images of each part.
      fingerprint: a hash of what was found.
      state: another, which changes with the files' times too.
    """

    name: str
    classes: tuple[str, ...]
    chunks: dict[str, list[Chunk]]
    fingerprint: str
    state: str

    @property
    def images(self) -> int:
        """How many there are in all parts."""
        return sum(chunk.images for chunks in self.chunks.values() for chunk in chunks)


def plan(source: str, data_dir: str | None, wanted: Sequence[str]) -> Plan:
    """The images of a folder of class folders, or of `tfds:NAME`.

    Args:
      source: the folder or the name.
      data_dir: where TensorFlow Datasets keeps its sets.
      wanted: the parts to use, by the source's names; empty takes all.

    Raises:
      UserError: the source is not there or not of that form.
    """
    if source.startswith(tfds.PREFIX):
        return _of_tfds(tfds.Source(source, data_dir, wanted), source, data_dir, tuple(wanted))
    parts, classes = folder.listing(source, wanted)
    chunks = {
        role: [
            Chunk(classes, tuple(files.paths[start:stop]), tuple(int(label) for label in files.labels[start:stop]))
            for start, stop in _bounds(len(files.paths))
        ]
        for role, files in parts.items()
    }
    root = Path(source)
    found, state = (folder.fingerprint(parts, root, times) for times in (False, True))
    return Plan(root.resolve().name, classes, chunks, found, state)


def _bounds(images: int) -> list[tuple[int, int]]:
    size = min(_MOST, max(_FEWEST, -(-images // _FILES)))
    return [(start, min(start + size, images)) for start in range(0, images, size)]


def _of_tfds(found: tfds.Source, name: str, data_dir: str | None, wanted: tuple[str, ...]) -> Plan:
    digest = hashlib.sha256(f"{found.full_name}\0{found.parts}\0{found.classes}".encode()).hexdigest()
    chunks = {
        role: [
            Chunk(
                found.classes,
                name=name,
                data_dir=data_dir,
                wanted=wanted,
                role=role,
                start=start,
                stop=stop,
            )
            for start, stop in _bounds(found.count(role))
        ]
        for role in found.parts
    }
    return Plan(name, found.classes, chunks, digest, digest)
