"""Which images a program is to ask about: files, folders, a list on standard input, a folder that fills, a camera's
file that is written again and again."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..base.program import UserError
from ..images.reading import FORMATS

STDIN = "-"
"""The argument that stands for standard input."""

_ENDS = tuple(end for ends in FORMATS.values() for end in ends)
_LARGEST = 256 * 2**20
# What a line of an image begins with that could pass for a name: those of PNG, JPEG and PNM.
_OF_IMAGES = re.compile(rb"\x89PNG|\xff\xd8\xff|P[1-7]$")
_LOOK_S = 0.25


@dataclass(frozen=True)
class Source:
    """One image: the name of its file, and its content where that is not to be read from there."""

    name: str
    content: bytes | None = None


def files(arguments: Sequence[str]) -> tuple[list[Source], int]:
    """The images of files and folders, and how many files of the folders are left out.

    A folder stands for the files in it and below that are named as images of `images.FORMATS` and not hidden, in the
    order of their names; a file that is named itself is taken whatever its name. Raises `UserError` for a folder
    without images, or one that cannot be read.
    """
    found: list[Source] = []
    others = 0
    for argument in arguments:
        if not os.path.isdir(argument):
            found.append(Source(argument))
            continue
        inside, left = _walk(argument)
        others += left
        if not inside:
            raise UserError(f"folder {argument!r} has no images; legal: files ending in {', '.join(_ENDS)}.")
        found += [Source(path) for path in inside]
    return found, others


def image(stream: BinaryIO) -> Source:
    """The one image that a stream holds. Raises `UserError` for one of more than 256 MB."""
    content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise UserError("standard input holds more than 256 MB; legal: one image, or its file's name.")
    return Source(STDIN, content)


def lines(stream: BinaryIO) -> Iterator[Source]:
    """The files that a stream names, one in each line that is not empty, as they come.

    Raises `UserError` where it holds something else, such as an image.
    """
    for line in stream:
        named = line.rstrip(b"\r\n")
        # No name holds a zero byte.
        if b"\0" in named or _OF_IMAGES.match(named):
            raise UserError(
                "standard input holds no file names; legal: one per line, or an image's own bytes with --stdin=image."
            )
        name = os.fsdecode(named)
        if name:
            yield Source(name)


def again(sources: Sequence[Source], every_s: float) -> Iterator[Source]:
    """The same images for ever, each round so many seconds after the start of the one before, or at once where that one
    took longer."""
    due = time.monotonic()
    while True:
        yield from sources
        due = max(due + every_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


class Watch:
    """The images that appear in a folder or below, or change there, from the construction on, for ever.

    One counts as written when its size and time are the same at two looks, a quarter of a second apart. What vanishes
    is forgotten. Raises `UserError` when the folder cannot be read at the start; later it may come and go.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._served = self._look()

    def __iter__(self) -> Iterator[Source]:
        before = dict(self._served)
        while True:
            time.sleep(_LOOK_S)
            try:
                now = self._look()
            except UserError:
                now = {}
            self._served = {path: state for path, state in self._served.items() if path in now}
            ready = [path for path, state in now.items() if before.get(path) == state != self._served.get(path)]
            for path in ready:
                self._served[path] = now[path]
                yield Source(path)
            before = now

    def _look(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in _walk(self._folder)[0]:
            try:
                about = os.stat(path)
            except OSError:
                continue
            found[path] = (about.st_mtime_ns, about.st_size)
        return found


def is_within(path: str | Path, folder: str | Path) -> bool:
    """Whether a path is a folder or lies below it."""
    return Path(folder).resolve() in (Path(path).resolve(), *Path(path).resolve().parents)


def chain(*parts: Iterable[Source]) -> Iterator[Source]:
    """One after the other."""
    for part in parts:
        yield from part


def _never_ends(path: str) -> bool:
    """Whether reading a file may wait for ever: a pipe, a socket or a terminal. One that is not there is none."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _walk(folder: str) -> tuple[list[str], int]:
    """The images of a folder and below, and how many other files there are; hidden ones are neither."""
    found, others = [], 0

    def failed(error: OSError) -> None:
        raise UserError(f"folder {error.filename!r} cannot be read: {error.strerror}.") from error

    for parent, below, names in os.walk(folder, onerror=failed):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            if name.lower().endswith(_ENDS) and not _never_ends(path):
                found.append(path)
            else:
                others += 1
    return found, others
