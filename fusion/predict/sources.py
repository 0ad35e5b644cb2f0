"""Which images a program is to ask about: files, folders, a list on standard input, a folder that fills, a camera's
file that is written again and again."""

from __future__ import annotations

import codecs
import itertools
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ..base.paths import expand
from ..base.pictures import ENDS, MOST_BYTES
from ..base.program import UserError
from ..base.walk import WalkedFolders, left_out_text, walk

STDIN = "-"
"""The argument that stands for standard input."""

# What a line of an image begins with that could pass for a name: those of PNG, JPEG and PNM.
_OF_IMAGES = re.compile(rb"\x89PNG|\xff\xd8\xff|P[1-7]$")
_LOOK_S = 0.25


@dataclass(frozen=True)
class ImageSource:
    """One image: the name of its file, and its content where that is not to be read from there."""

    name: str
    content: bytes | None = None


@dataclass(frozen=True)
class Selection:
    """What a program is to ask about: the images that are known at the start, all images in their order, which may go
    on for ever, and what was found in the folders."""

    known: Sequence[ImageSource]
    all: Iterable[ImageSource]
    found: Sequence[WalkedFolders] = ()

    @property
    def left_out(self) -> Counter[str]:
        """How many other things the folders hold, by kind."""
        return sum((found.left_out for found in self.found), Counter())

    @property
    def unreadable(self) -> list[str]:
        """A sentence for each folder below these that cannot be read."""
        return [sentence for found in self.found for sentence in found.unreadable]

    @property
    def total(self) -> int | None:
        """How many images there are; None where that is not known at the start."""
        return len(self.known) if self.all is self.known else None


class WatchedFolder:
    """The images that appear in a folder or below, or change there, from the construction on, for ever.

    One counts as written when its size and time are the same at two looks, a quarter of a second apart. What vanishes
    is forgotten. Raises `UserError` when the folder cannot be read at the start; later it may come and go.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._done = self._look()

    def __iter__(self) -> Iterator[ImageSource]:
        before = dict(self._done)
        while True:
            time.sleep(_LOOK_S)
            try:
                now = self._look()
            except UserError:
                now = {}
            self._done = {path: state for path, state in self._done.items() if path in now}
            for path, state in now.items():
                if before.get(path) == state != self._done.get(path):
                    self._done[path] = state
                    yield ImageSource(path)
            before = now

    def _look(self) -> dict[str, tuple[int, int]]:
        states = {}
        for path in walk([self._folder], ENDS).files[self._folder]:
            try:
                status = os.stat(path)
            except OSError:
                continue
            states[path] = (status.st_mtime_ns, status.st_size)
        return states


def select(
    arguments: Sequence[str], stdin_is_image: bool, watched: WatchedFolder | None = None, every_s: float | None = None
) -> Selection:
    """The images that a command line names.

    Args:
      arguments: files, folders and, once at most, `STDIN`.
      stdin_is_image: whether standard input holds one image; else the names of files.
      watched: whose images come after the others.
      every_s: where it is given, all images come again and again, each round so many seconds after the one before.

    Raises `UserError` as `files` and `image` do.
    """
    place = arguments.index(STDIN) if STDIN in arguments else len(arguments)
    before, found = files(arguments[:place])
    after, more = files(arguments[place + 1 :])
    found += more
    names_follow = STDIN in arguments and not stdin_is_image
    if STDIN in arguments and stdin_is_image:
        before.append(image(sys.stdin.buffer))
    known = before + after
    if every_s is not None:
        return Selection(known, again(known, every_s), found)
    if watched is None and not names_follow:
        return Selection(known, known, found)
    names = lines(sys.stdin.buffer) if names_follow else ()
    return Selection(known, itertools.chain(before, names, after, watched or ()), found)


def files(arguments: Sequence[str]) -> tuple[list[ImageSource], list[WalkedFolders]]:
    """The images of files and folders, and what was found in each of the folders.

    A folder stands for the files in it and below that end in one of `ENDS`, as `walk` finds them; a file that is named
    itself is taken whatever its name. Raises `UserError` for a folder without images, or one that cannot be read.
    """
    sources: list[ImageSource] = []
    walks: list[WalkedFolders] = []
    for argument in map(expand, arguments):
        if not os.path.isdir(argument):
            sources.append(ImageSource(argument))
            continue
        found = walk([argument], ENDS)
        paths = found.files[argument]
        if not paths:
            other = f"; it holds {left_out_text(found.left_out)}" if found.left_out else ""
            raise UserError(f"folder {argument!r} has no images; legal: files ending in {', '.join(ENDS)}{other}.")
        sources += map(ImageSource, paths)
        walks.append(found)
    return sources, walks


def image(stream: BinaryIO) -> ImageSource:
    """The one image that a stream holds. Raises `UserError` for one of more than `MOST_BYTES`."""
    content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"standard input holds more than {MOST_BYTES >> 20} MB; legal: one image, or its file's name.")
    return ImageSource(STDIN, content)


def lines(stream: BinaryIO) -> Iterator[ImageSource]:
    """The files that a stream names, one in each line that is not empty, as they come.

    Raises `UserError` where it holds something else, such as an image.
    """
    for number, line in enumerate(stream):
        name = line.rstrip(b"\r\n")
        if number == 0:
            name = name[len(codecs.BOM_UTF8) :] if name.startswith(codecs.BOM_UTF8) else name
            if name.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise UserError("standard input is UTF-16 text; legal: file names in UTF-8, one per line.")
        # No name holds a zero byte.
        if b"\0" in name or _OF_IMAGES.match(name):
            raise UserError(
                "standard input holds no file names; legal: one per line, or an image's own bytes with --stdin=image."
            )
        if name:
            yield ImageSource(_expanded(os.fsdecode(name)))


def _expanded(name: str) -> str:
    """As `expand`; a name with a home that nobody knows is one of no file, and does not keep the others."""
    try:
        return expand(name)
    except UserError:
        return name


def again(sources: Sequence[ImageSource], every_s: float) -> Iterator[ImageSource]:
    """The same images for ever, each round so many seconds after the start of the one before, or at once where that one
    took longer."""
    due = time.monotonic()
    while True:
        yield from sources
        due = max(due + every_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
