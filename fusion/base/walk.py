"""Which files of folders are pictures: one walk for training, preparing and predicting."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from .program import UserError

AnyPath = Union[str, "os.PathLike[str]"]

FOLDER, BESIDE = "folder", "image beside the class folders"
_HIDDEN, _MET, _SPECIAL, _UNREADABLE = "hidden", "folder met before", "pipe or device", "unreadable folder"
_OTHER = "other file"
# What several of a kind are called. The other kinds are ends of names.
_SEVERAL = {
    _HIDDEN: "hidden",
    _MET: "folders met before",
    _SPECIAL: "pipes or devices",
    _UNREADABLE: "unreadable folders",
    FOLDER: "folders",
    BESIDE: "images beside the class folders",
    _OTHER: "other files",
}
_END = re.compile(r"\.[a-z0-9]{1,8}$")
# So many ends are named one by one.
_NAMED_ENDS = 5


@dataclass(frozen=True)
class WalkedFolders:
    """What a walk found.

    Attributes:
      files: of each folder that was walked the pictures in it and below, in the order of their names.
      left_out: how many other things there are, by kind; see `left_out_text`.
      unreadable: a sentence for each folder below that cannot be read.
    """

    files: dict[str, list[str]]
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)


def walk(
    folders: Sequence[AnyPath], ends: Sequence[str], below: bool = True, met: Iterable[AnyPath] = ()
) -> WalkedFolders:
    """The pictures of folders: files whose names end in one of `ends`, in lower or upper case.

    What begins with a dot is hidden and left out, files and folders alike. Links are followed. A folder is walked once,
    however many names lead to it, by one without links where it has one. A pipe, a socket or a device is no picture; a
    link to nowhere is one, which whoever reads it names.

    Args:
      folders: where to look. None of them is walked as a part of another.
      ends: in lower case, with their dots.
      below: whether the folders in these are walked too.
      met: more folders that count as walked.

    Raises `UserError` when one of `folders` cannot be read.
    """
    roots = [os.fspath(folder) for folder in folders]
    found = WalkedFolders({root: [] for root in roots})
    done = {identity(folder) for folder in (*roots, *met)} - {None}
    real, linked = deque((root, root) for root in roots), deque[tuple[str, str]]()
    while real or linked:
        root, path = (real or linked).popleft()
        if path != root:
            if identity(path) in done:
                found.left_out[_MET] += 1
                continue
            done.add(identity(path))
        try:
            with os.scandir(path) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            sentence = f"folder {path!r} cannot be read: {error.strerror}."
            if path == root:
                raise UserError(sentence) from error
            found.unreadable.append(sentence)
            found.left_out[_UNREADABLE] += 1
            continue
        for entry in entries:
            kind = _kind(entry, tuple(ends))
            if kind is None:
                found.files[root].append(entry.path)
            elif kind == FOLDER and below:
                (linked if entry.is_symlink() else real).append((root, entry.path))
            else:
                found.left_out[kind] += 1
    for files in found.files.values():
        files.sort(key=lambda file: file.split(os.sep))
    return found


def identity(folder: AnyPath) -> tuple[int, int] | None:
    """What all names of a folder have in common, and no other folder has; None where there is none."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def left_out_text(left_out: Mapping[str, int]) -> str:
    """What was left out, for people: 60 .heic, 3 hidden and 1 folder met before."""
    ends = Counter({kind: count for kind, count in left_out.items() if kind not in _SEVERAL})
    counts = dict(ends.most_common(_NAMED_ENDS))
    counts |= {kind: left_out.get(kind, 0) for kind in _SEVERAL}
    counts[_OTHER] += sum(ends.values()) - sum(count for _, count in ends.most_common(_NAMED_ENDS))
    texts = [f"{count:,} {kind if count == 1 else _SEVERAL.get(kind, kind)}" for kind, count in counts.items() if count]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def _kind(entry: os.DirEntry[str], ends: tuple[str, ...]) -> str | None:
    """What something in a folder is; None for a picture."""
    name = entry.name.lower()
    if name.startswith("."):
        return _HIDDEN
    try:
        if entry.is_dir():
            return FOLDER
        # Where neither a folder nor a file is, `stat` tells a pipe from a link to nowhere.
        special = not entry.is_file() and bool(entry.stat())
    except OSError:
        special = False
    if name.endswith(ends):
        return _SPECIAL if special else None
    end = _END.search(name)
    return end[0] if end else _OTHER
