"""Takes from an image file what does not hold its pixels, and reads the orientation of its EXIF on the way.

Decoders look at more than pixels need, and fail where a program has written a tag of a wrong type. So they get a file
without it, and the one tag that matters is read here, whatever the others hold.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

UPRIGHT = 1
"""The orientation of a picture that lies in its file as it is looked at."""

_ORIENTATION = 0x112
_EXIF = b"Exif\0\0"
_TIFF = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
# Tags for size, depth, colours, order, compression, and where the pixels are.
_OF_PIXELS = frozenset(
    [*range(256, 260), 262, 266, 273, *range(277, 280), 284, 292, 293, 317, *range(320, 326), 332, 334, 338, 339, 347]
    + [*range(512, 522), 529, 530, 532]
)
# Segments, chunks or entries that are looked at, which is more than a file of the largest picture has.
_MOST_PARTS = 65535
# Scans of a progressive JPEG, which are all decoded, one after the other. Encoders write about ten.
_MOST_SCANS = 100
# Types of tags: BYTE, SHORT, LONG.
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}
# How a JPEG segment begins: any number of bytes that fill, its marker, its length.
_SEGMENT = re.compile(rb"\xff+([\xc0-\xfe])(..)", re.DOTALL)
# The next marker among what is packed, where no other byte but 0 and the marks of restarts follows one of 255.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
_SCAN, _END = 0xDA, 0xD9
# Markers: those that stand alone or begin a scan, EXIF's, and those of an application or a comment. Two of these say
# what the colours are (JFIF, Adobe).
_WITHOUT_LENGTH, _OF_EXIF, _OF_COLOURS = range(0xD0, 0xDB), 0xE1, (0xE0, 0xEE)
_OF_APPLICATIONS = (*range(0xE0, 0xF0), 0xFE)


def divide(content: bytes) -> tuple[bytes, int]:
    """What a decoder needs of an image file, and the EXIF orientation, 1 (upright) to 8; 1 where none can be read.

    Of a JPEG, PNG or TIFF all that is not for its pixels is left out, of a TIFF also the images after the first. Other
    files, and what is damaged, are left as they are, for the decoder to refuse.

    Raises `ValueError` for a JPEG that would take without end.
    """
    if content.startswith(b"\xff\xd8\xff"):
        return _of_jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _of_png(content)
    if content.startswith(_TIFF):
        return _of_tiff(content)
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return content, _of_webp(content)
    return content, UPRIGHT


def _of_jpeg(content: bytes) -> tuple[bytes, int]:
    kept, exif, place = [content[:2]], b"", 2
    for _ in range(_MOST_PARTS):
        head = _SEGMENT.match(content, place)
        if head is None:
            break
        marker, length = head[1][0], int.from_bytes(head[2], "big")
        start, end = head.start(1) - 1, head.start(2) + length
        if marker in _WITHOUT_LENGTH or length < 2 or end > len(content):
            break
        segment = content[start:end]
        if marker == _OF_EXIF and segment[4:].startswith(_EXIF):
            # One that is longer than a segment goes on in the next.
            exif += segment[4 + len(_EXIF) :]
        if marker not in _OF_APPLICATIONS or marker in _OF_COLOURS:
            kept.append(segment)
        place = end
    if _has_many_scans(content, place):
        raise ValueError(f"it has more than {_MOST_SCANS} scans")
    return b"".join([*kept, content[place:]]), _orientation(exif)


def _has_many_scans(content: bytes, place: int) -> bool:
    """Whether a JPEG has more than `_MOST_SCANS` between a place and its end."""
    if content.count(bytes([0xFF, _SCAN]), place) <= _MOST_SCANS:
        return False
    scans = 0
    for _ in range(_MOST_PARTS):
        head = _MARKER.search(content, place)
        if head is None or head[0][1] == _END:
            return False
        scans += head[0][1] == _SCAN
        if scans > _MOST_SCANS:
            return True
        place = head.end() + int.from_bytes(content[head.end() : head.end() + 2], "big")
    return True


def _of_png(content: bytes) -> tuple[bytes, int]:
    kept, exif, place = [content[:8]], b"", 8
    for _ in range(_MOST_PARTS):
        kind, end = content[place + 4 : place + 8], place + 12 + int.from_bytes(content[place : place + 4], "big")
        if end > len(content):
            break
        if kind == b"eXIf":
            exif = exif or content[place + 8 : end - 4]
        # A small first letter is that of a chunk that decoders may pass over.
        if not kind[:1].islower() or kind == b"tRNS":
            kept.append(content[place:end])
        place = end
    return b"".join([*kept, content[place:]]), _orientation(exif)


def _of_webp(content: bytes) -> int:
    place = 12
    for _ in range(_MOST_PARTS):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"EXIF":
            return _orientation(content[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return UPRIGHT


def _of_tiff(content: bytes) -> tuple[bytes, int]:
    try:
        form, start, entries = _directory(content)
    except struct.error:
        return content, UPRIGHT
    kept = [entry for tag, _, entry in entries if tag in _OF_PIXELS]
    # Behind a directory is the place of the next one: 0, there is none.
    directory = struct.pack(form.count, len(kept)) + b"".join(kept) + bytes(struct.calcsize(form.place))
    return content[:start] + directory + content[start + len(directory) :], _orientation_of(form, entries)


def _orientation(exif: bytes) -> int:
    tiff = exif[len(_EXIF) :] if exif.startswith(_EXIF) else exif
    try:
        form, _, entries = _directory(tiff)
    except struct.error:
        return UPRIGHT
    return _orientation_of(form, entries)


@dataclass(frozen=True)
class _Form:
    """How numbers stand in a TIFF, as formats of `struct`: how many entries there are, places in the file, and an
    entry: its tag, its type, how many values it has, and the value or its place."""

    count: str
    place: str
    entry: str

    @property
    def step(self) -> int:
        """Bytes of an entry."""
        return struct.calcsize(self.entry)


def _directory(tiff: bytes) -> tuple[_Form, int, list[tuple[int, int, bytes]]]:
    """The first directory of a TIFF, or of EXIF, which is one without pixels: where it starts, and its entries, each
    with its tag and type before it. Raises `struct.error` where there is none; one that is cut off ends early."""
    if not tiff.startswith(_TIFF):
        raise struct.error
    order, large = "<" if tiff.startswith(b"I") else ">", b"+" in tiff[2:4]
    form = _Form(*(order + code for code in (("Q", "Q", "HHQ8s") if large else ("H", "I", "HHI4s"))))
    (start,) = struct.unpack_from(form.place, tiff, 8 if large else 4)
    # A place so far away that no format could hold it.
    if start >= len(tiff):
        raise struct.error
    (count,) = struct.unpack_from(form.count, tiff, start)
    first, step = start + struct.calcsize(form.count), form.step
    whole = min(count, _MOST_PARTS, (len(tiff) - first) // step)
    entries = (tiff[place : place + step] for place in range(first, first + whole * step, step))
    return form, start, [(*struct.unpack_from(form.entry[:3], entry), entry) for entry in entries]


def _orientation_of(form: _Form, entries: list[tuple[int, int, bytes]]) -> int:
    for tag, kind, entry in entries:
        if tag == _ORIENTATION and kind in _WHOLE_NUMBERS:
            value = struct.unpack(form.entry, entry)[3]
            (number,) = struct.unpack_from(form.entry[0] + _WHOLE_NUMBERS[kind], value)
            return number if number in range(1, 9) else UPRIGHT
    return UPRIGHT
