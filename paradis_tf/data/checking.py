"""How each image file of a folder is read: as it is, turned, from a copy, or not at all. Found once, and remembered.

What a file shows is what `fusion.base.pictures` says, in training as on boards. Pipelines read files by TensorFlow,
without Python. So all files are decoded once by both. Where TensorFlow sees the same, at most turned, the pipeline
reads the file itself. Of another that can be read, such as TIFF, or a palette with transparent parts, it reads a copy,
which is a PNG of the picture in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import PIL
import tensorflow as tf
from PIL import Image

from fusion.base import files, pictures
from fusion.base.metadata import UPRIGHT
from fusion.base.paths import in_home
from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base.files import temporary_folder
from paradis_tf.base.progress import Progress
from paradis_tf.base.threads import in_threads
from paradis_tf.data import encoded

_MEMORY = "checked.json"
# Images that a thread checks at a time.
_CHUNK = 32


@dataclass(frozen=True)
class Checked:
    """What is not so with all image files, by their paths.

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


def check(root: str, paths: Sequence[Path], fingerprint: str) -> Checked:
    """How some files are read.

    All are decoded once; what is found is remembered in the user's cache folder, beside the copies, for as long as the
    fingerprint stays. A user without one that can be written waits for the check each time, and his copies lie in a
    temporary folder, which goes with the process.

    Args:
      root: the folder that they are in; what is known of it before is forgotten.
      paths: the files.
      fingerprint: of the files, their sizes and times.

    Raises:
      UserError: a copy cannot be written.
    """
    folder = _folder(root)
    memory = folder / _MEMORY
    # Other versions may see other things.
    fingerprint = f"{fingerprint} Pillow {PIL.__version__} TensorFlow {tf.__version__}"
    checked = _remembered(memory, fingerprint)
    if checked is None:
        checked = _decode_all(paths, folder)
        with contextlib.suppress(UserError):
            files.write_json(memory, {"fingerprint": fingerprint, **asdict(checked)})
        _remove_others(folder, checked)
    if checked.copies:
        size = sum(os.stat(copy).st_size for copy in checked.copies.values())
        say(
            f"image folder {root!r}: {len(checked.copies):,} of {len(paths):,} images are read from copies, "
            f"{size / 2**20:,.1f} MB in {str(folder)!r}"
        )
    return checked


def _folder(root: str) -> Path:
    """The folder for what is known of an image folder; it can be written."""
    name = hashlib.sha256(os.fsencode(Path(root).resolve())).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or in_home(".cache")
    if cache:
        folder = Path(cache) / "paradis_tf" / f"pictures-{name[:16]}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return temporary_folder()


def _remembered(memory: Path, fingerprint: str) -> Checked | None:
    """What is remembered of these files, if its copies are still there."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known.pop("fingerprint") != fingerprint:
            return None
        checked = Checked(**known)
        return checked if all(os.path.isfile(copy) for copy in checked.copies.values()) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _decode_all(paths: Sequence[Path], folder: Path) -> Checked:
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    progress, done = Progress("checked images", len(paths)), 0
    checked = Checked()
    for chunk, found in in_threads(lambda chunk: _decode(chunk, folder), chunks, len(os.sched_getaffinity(0))):
        checked.add(found)
        done += len(chunk)
        progress.update(done)
    return checked


def _decode(paths: Sequence[Path], folder: Path) -> Checked:
    checked = Checked()
    for path in paths:
        name = str(path)
        try:
            content = pictures.load(path)
            picture = pictures.decode(content, repr(name))
        except UserError as error:
            checked.broken[name] = str(error)
            continue
        if not encoded.shows(content, picture):
            checked.copies[name] = str(_copy(path, picture, folder))
        elif picture.orientation != UPRIGHT:
            checked.turned[name] = picture.orientation
    return checked


def _copy(path: Path, picture: pictures.Picture, folder: Path) -> Path:
    """Writes a copy of a picture, by a name that changes with the file."""
    status = os.stat(path)
    state = f"{path}\0{status.st_size}\0{status.st_ctime_ns}"
    copy = folder / f"{hashlib.sha256(os.fsencode(state)).hexdigest()[:32]}.png"
    stream = io.BytesIO()
    Image.fromarray(picture.pixels).save(stream, "PNG", compress_level=1)
    files.write_bytes(copy, stream.getvalue())
    return copy


def _remove_others(folder: Path, checked: Checked) -> None:
    """Removes copies of files that have changed or gone."""
    copies = set(checked.copies.values())
    with contextlib.suppress(OSError):
        for file in folder.glob("*.png"):
            if str(file) not in copies:
                file.unlink()
