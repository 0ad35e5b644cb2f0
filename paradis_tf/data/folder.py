"""Image files in a folder for each class: ROOT/train/CLASS/*, ROOT/val/CLASS/*."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.base.metadata import UPRIGHT
from fusion.base.pictures import ENDS
from fusion.base.program import UserError
from fusion.base.streams import say
from fusion.base.walk import BESIDE, FOLDER, identity, left_out_text, walk
from paradis_tf.data import checking, encoded
from paradis_tf.data.parts import Part, broken_text, part_names, require_all_classes, some


@dataclass(frozen=True)
class Files:
    """Image files and the classes they are of.

    Attributes:
      paths: one file for each image.
      labels: int64 (n,), class indices.
    """

    paths: list[Path]
    labels: np.ndarray


def listing(root: str, wanted: Sequence[str] = ()) -> tuple[dict[str, Files], tuple[str, ...]]:
    """The image files of each part, see `part_names`, sorted by class and path, and the sorted names of the classes.

    Images are what `fusion.base.walk` finds in a class folder and below. What else is there is counted and printed.

    Raises:
      UserError: no such folder, no class folders, one that is empty, is two classes' or that not all parts have, or a
        folder that cannot be read.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(
            f"image folder {root!r} does not exist or is no folder; it holds train and val, validation or "
            "test, and these a folder for each class."
        )
    parts = part_names(f"image folder {root!r}", _subfolders(folder), wanted)
    classes = tuple(_subfolders(folder / parts["train"]))
    for name in parts.values():
        if not _subfolders(folder / name):
            raise UserError(
                f"{str(folder / name)!r} holds no class folders; it takes a folder of images for each class."
            )
        _check_same_classes(folder, parts["train"], name)
        _check_same_classes(folder, name, parts["train"])
    names = tuple(map(_as_text, classes))
    unprintable = [name for name in names if not name.isprintable()]
    if unprintable:
        raise UserError(f"image folder {root!r}: class folder {unprintable[0]!r} is no single line of text.")
    left_out: Counter[str] = Counter()
    class_folders = {name: [str(folder / name / one) for one in classes] for name in parts.values()}
    files = {part: _files(folder, name, class_folders, left_out) for part, name in parts.items()}
    if left_out:
        say(f"image folder {root!r}: left out {left_out_text(left_out)}")
    return files, names


def _as_text(name: str) -> str:
    """A file's name as UTF-8 has it, also where the locale is another one."""
    try:
        return os.fsencode(name).decode()
    except UnicodeDecodeError:
        return name


def _check_same_classes(folder: Path, name: str, other: str) -> None:
    extra = sorted(set(_subfolders(folder / name)) - set(_subfolders(folder / other)))
    if extra:
        raise UserError(
            f"image folder {str(folder)!r}: {name} has {some(extra)} that {other} lacks; all parts have the same class "
            "folders."
        )


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(".") and os.path.isdir(folder / name))
    except OSError as error:
        raise UserError(f"folder {str(folder)!r} cannot be read: {error.strerror}.") from None


def _files(root: Path, part: str, class_folders: Mapping[str, list[str]], left_out: Counter[str]) -> Files:
    """The images of a part, by the class folders of all; adds to `left_out` what else is there, by kind."""
    folders = class_folders[part]
    known: dict[tuple[int, int] | None, str] = {}
    for folder in folders:
        other = known.setdefault(identity(folder), folder)
        if other != folder:
            raise UserError(f"class folders {other!r} and {folder!r} are one folder; an image is of one class.")
    # A link from a class to the whole set or to another part makes no images of that class. But parts may be one
    # folder.
    below = [place for others in class_folders.values() for other in others for place in _below(other, known)]
    found = walk(folders, ENDS, met=[root, *(root / name for name in class_folders), *below])
    beside = walk([root / part], ENDS, below=False)
    del beside.left_out[FOLDER]
    left_out.update(found.left_out + beside.left_out + Counter({BESIDE: len(beside.files[str(root / part)])}))
    if found.unreadable:
        raise UserError(f"{found.unreadable[0]} Let this user read it, or remove it.")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        here = [Path(file) for file in found.files[folder]]
        if not here:
            raise UserError(
                f"class folder {folder!r} holds no images ({', '.join(ENDS)}); fill it or remove it from all parts."
            )
        paths += here
        labels += [label] * len(here)
    return Files(paths, np.array(labels, np.int64))


def _below(folder: str, but: Container[tuple[int, int] | None]) -> Iterator[str]:
    """A folder and those that lie in it; not some, and not what is in them."""
    for place, folders, _ in os.walk(folder):
        if identity(place) in but:
            folders.clear()
        else:
            yield place


def _whole(
    root: str, parts: Mapping[str, Files], classes: Sequence[str], broken: Mapping[str, str], skip_broken: bool
) -> Mapping[str, Files]:
    """The parts without the images that cannot be used.

    Raises:
      UserError: there are such images and `skip_broken` is not set, or a class has no others.
    """
    if not broken:
        return parts
    total = sum(len(files.paths) for files in parts.values())
    sentence = f"image folder {root!r}: {broken_text(broken, total)}"
    if not skip_broken:
        raise UserError(f"{sentence}; mend or remove them, or set config.dataset.skip_broken.")
    say(f"{sentence}; they are left out")
    return {part: _without(files, broken, classes) for part, files in parts.items()}


def _without(files: Files, broken: Mapping[str, str], classes: Sequence[str]) -> Files:
    kept = np.array([str(path) not in broken for path in files.paths])
    labels = files.labels[kept]
    require_all_classes(labels, classes, str(files.paths[0].parents[1]))
    return Files([path for path, keep in zip(files.paths, kept, strict=True) if keep], labels)


def fingerprint(parts: Mapping[str, Files], root: Path, times: bool) -> str:
    """A hash of the files' places in the root and sizes, and if asked for of the times of their last changes."""
    digest = hashlib.sha256()
    for part, files in parts.items():
        for path in files.paths:
            try:
                status = path.stat()
                # Unlike the time of modification it also tells of a change of permissions.
                state = f"{status.st_size}\0{status.st_ctime_ns if times else 0}"
            except OSError:  # a link to nowhere is an image that cannot be used
                state = ""
            digest.update(f"{part}\0{path.relative_to(root)}\0{state}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def load(root: str, image_size: int, skip_broken: bool) -> tuple[dict[str, Part], list[str]]:
    """The parts of a folder of class folders, see `part_names`, and the classes' names; the images stay in their files.

    Args:
      root: the folder.
      image_size: side of the square input in pixels.
      skip_broken: images that cannot be used are left out instead of refused.

    Raises:
      UserError: the folders are not as `listing` wants them, or images cannot be used.
    """
    parts, classes = listing(root)
    folder = Path(root)
    names = [str(path.relative_to(folder)) for files in parts.values() for path in files.paths]
    checked = checking.check(root, names, fingerprint(parts, folder, times=True))
    broken = {str(folder / name): reason for name, reason in checked.broken.items()}
    whole = _whole(root, parts, classes, broken, skip_broken)
    return {part: _part(folder, files, image_size, checked) for part, files in whole.items()}, list(classes)


def _part(root: Path, files: Files, size: int, checked: checking.Checked) -> Part:
    names = [str(path.relative_to(root)) for path in files.paths]
    nothing = np.zeros(len(names), np.int64)
    read = [Path(checked.copies.get(name, path)) for name, path in zip(names, files.paths, strict=True)]
    orientations = np.array([checked.turned.get(name, UPRIGHT) for name in names])
    # A length of 0 is the whole file.
    images = encoded.EncodedImages(
        read, np.arange(len(read)), nothing, nothing, size, orientations=orientations, originals=files.paths
    )
    return Part(images, files.labels)
