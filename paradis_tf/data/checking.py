"""How each image file of a folder is read: as it is, turned, from a copy, or not at all. Found once, and remembered.

What a file shows is what `fusion.base.pictures` says, in training as on boards. Pipelines read files by TensorFlow,
without Python. So all files are decoded once by both. Where TensorFlow sees the same, at most turned, the pipeline
reads the file itself. Of another that can be read, such as TIFF, or a palette with transparent parts, it reads a copy,
which is a PNG of the picture in the user's cache folder, by the name of its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import PIL
import tensorflow as tf
from PIL import Image

from fusion.base import files, pictures
from fusion.base.metadata import UPRIGHT
from fusion.base.paths import in_home
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base.files import file_sha256, temporary_folder
from paradis_tf.base.progress import Progress
from paradis_tf.base.threads import in_threads
from paradis_tf.data import encoded

_MEMORY = "checked.json"
# Images that a thread checks at a time.
_CHUNK = 32
# Seconds after which a copy is removed that nobody has begun to use in them: a training may last for weeks, and a file
# that it reads a copy of may change meanwhile.
_UNUSED = 30 * 24 * 3600
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Checked:
    """What is not so with all image files, by their paths in their root.

    Attributes:
      broken: why a file cannot be used, a sentence.
      turned: the EXIF orientation of a file that TensorFlow reads but for that.
      copies: the file that is read instead.
    """

    broken: dict[str, str] = field(default_factory=dict)
    turned: dict[str, int] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def add(self, other: Checked) -> None:
        """Adds what another says of other files."""
        self.broken.update(other.broken)
        self.turned.update(other.turned)
        self.copies.update(other.copies)


def check(root: str, names: Sequence[str], fingerprint: str) -> Checked:
    """How some files are read.

    All are decoded once; what is found is remembered in the user's cache folder, beside the copies, for as long as the
    fingerprint stays. Of copies that are no longer whole the files are decoded again. A user without a cache folder
    that can be written waits for the check each time, and his copies lie in a temporary folder, which goes with the
    process.

    Args:
      root: the folder that they are in, by any of its names.
      names: the files' paths in it.
      fingerprint: of the files, their sizes and times.

    Raises:
      UserError: a copy cannot be written.
    """
    # What is remembered, and the sentences in it, are for all names of the root.
    place = Path(root).resolve()
    folder = _folder(place)
    memory = folder / _MEMORY
    # Other versions may see other things.
    versions = f"definition {pictures.VERSION} Pillow {PIL.__version__} TensorFlow {tf.__version__}"
    fingerprint = f"{fingerprint} {versions}"
    checked = _remembered(memory, fingerprint, frozenset(names))
    missing = names if checked is None else _not_whole(checked.copies, folder)
    checked = checked or Checked()
    for found in _at_once("checked images", missing, lambda chunk: _decode(chunk, place, folder)):
        checked.add(found)
    if missing:
        with contextlib.suppress(UserError):
            files.write_json(memory, {"fingerprint": fingerprint, **asdict(checked)})
    _remove_unused(folder)
    copies = {name: str(folder / copy) for name, copy in checked.copies.items()}
    if copies:
        size = sum(map(_size, set(copies.values())))
        say(
            f"image folder {root!r}: {len(copies):,} of {len(names):,} images are read from copies, "
            f"{size / 2**20:,.1f} MB in {str(folder)!r}"
        )
    return replace(checked, copies=copies)


def _folder(root: Path) -> Path:
    """The folder for what is known of an image folder; it can be written."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or in_home(".cache")
    if cache:
        folder = Path(cache) / "paradis_tf" / f"pictures-{name[:16]}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return temporary_folder()


def _remembered(memory: Path, fingerprint: str, names: Set[str]) -> Checked | None:
    """What is remembered of these files."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known.pop("fingerprint") != fingerprint:
            return None
        checked = Checked(**known)
        tables = ((checked.broken, str), (checked.turned, int), (checked.copies, str))
        whole = asdict(checked) == known and all(
            name in names and type(value) is kind for table, kind in tables for name, value in table.items()
        )
        return checked if whole and set(checked.turned.values()) <= set(range(1, 9)) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _at_once(what: str, names: Sequence[str], work: Callable[[Sequence[str]], _Found]) -> Iterator[_Found]:
    """What is found by work on some of the files at a time, in several threads."""
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    progress, done = Progress(what, len(names)), 0
    for chunk, found in in_threads(work, chunks, len(os.sched_getaffinity(0))):
        yield found
        done += len(chunk)
        progress.update(done)


def _decode(names: Sequence[str], root: Path, folder: Path) -> Checked:
    checked = Checked()
    for name in names:
        path = root / name
        try:
            content = pictures.load(path)
            picture = pictures.decode(content, repr(str(path)))
        except UserError as error:
            checked.broken[name] = str(error)
            continue
        if not encoded.shows(content, picture):
            checked.copies[name] = _copy(path, picture, folder)
        elif picture.orientation != UPRIGHT:
            checked.turned[name] = picture.orientation
    return checked


def _copy(path: Path, picture: pictures.Picture, folder: Path) -> str:
    """Writes a copy of a picture; its name."""
    stream = io.BytesIO()
    Image.fromarray(picture.pixels).save(stream, "PNG", compress_level=1)
    name = _name(hashlib.sha256(stream.getvalue()).hexdigest())
    try:
        files.write_bytes(folder / name, stream.getvalue(), files.PRIVATE)
    except UserError as error:
        reason = str(error).rstrip(".")
        raise UserError(
            f"the copy of image {str(path)!r} cannot be kept, {reason}; XDG_CACHE_HOME=FOLDER puts copies elsewhere."
        ) from None
    return name


def _name(digest: str) -> str:
    return f"{digest[:32]}.png"


def _not_whole(copies: Mapping[str, str], folder: Path) -> list[str]:
    """The files whose copies have gone or changed. The others' count as used from now on."""

    def damaged(names: Sequence[str]) -> list[str]:
        return [name for name in names if not _is_whole(folder / copies[name])]

    return [name for found in _at_once("checked copies", list(copies), damaged) for name in found]


def _is_whole(copy: Path) -> bool:
    try:
        os.utime(copy)
        return copy.name == _name(file_sha256(copy))
    except (OSError, UserError, ValueError):  # of values: a name with a zero byte
        return False


def _remove_unused(folder: Path) -> None:
    """Removes copies that nobody needs any more, and what was left of writing some."""
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):
            if file.name != _MEMORY and file.stat().st_mtime < time.time() - _UNUSED:
                file.unlink()


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # somebody has emptied the cache folder meanwhile
        return 0
