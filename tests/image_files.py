"""Writes image files: byte by byte where Pillow does not write them so."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

Tag = tuple[int, int, int, bytes]
"""Of a TIFF directory: tag, type, count, and the value's bytes in little-endian order."""

RATIONAL_UNIT: Tag = (0x128, 5, 1, struct.pack("<II", 2, 1))
TEXT_RESOLUTION: Tag = (0x11A, 2, 3, b"72\0")
NAN_EXPOSURE: Tag = (0x829A, 12, 1, struct.pack("<d", float("nan")))
BROKEN = (TEXT_RESOLUTION, RATIONAL_UNIT, NAN_EXPOSURE)
"""Tags whose types are not those of the standard."""


def exif(orientation: int, *others: Tag) -> bytes:
    """EXIF with an orientation among other tags."""
    return b"Exif\0\0" + tiff([(0x112, 3, 1, struct.pack("<H", orientation)), *others], b"")


def tiff(tags: Sequence[Tag], pixels: bytes, order: str = "<", large: bool = False) -> bytes:
    """A TIFF of one directory; behind it are the values that do not fit in, and last the pixels.

    The tags of the pixels' place and size are added if there are any. `order` is that of `struct`; values are turned
    into it where they are numbers.
    """
    count, place, room = ("Q", "Q", 8) if large else ("H", "I", 4)
    start = 16 if large else 8
    listed = [*tags, (0x111, 4, 1, b""), (0x117, 4, 1, struct.pack("<I", len(pixels)))] if pixels else list(tags)
    listed.sort(key=lambda tag: tag[0])
    step = struct.calcsize("<HH" + place) + room
    behind = start + struct.calcsize("<" + count) + step * len(listed) + struct.calcsize("<" + place)
    values = b""
    sizes = sum(len(value) for _, _, _, value in listed if len(value) > room)
    entries = b""
    for tag, kind, number, value in listed:
        if tag == 0x111:
            value = struct.pack("<I", behind + sizes)
        if order == ">":
            value = _swapped(kind, value)
        entries += struct.pack(f"{order}HH{place}", tag, kind, number)
        if len(value) > room:
            entries += struct.pack(order + place, behind + len(values))
            values += value
        else:
            entries += value.ljust(room, b"\0")
    letters = b"II" if order == "<" else b"MM"
    head = letters + (struct.pack(order + "HHHQ", 43, 8, 0, 16) if large else struct.pack(order + "HI", 42, 8))
    directory = struct.pack(order + count, len(listed)) + entries + struct.pack(order + place, 0)
    return head + directory + values + pixels


def _swapped(kind: int, value: bytes) -> bytes:
    size = {3: 2, 4: 4, 5: 4, 12: 8}.get(kind, 1)
    return b"".join(value[place : place + size][::-1] for place in range(0, len(value), size))


def tiff_image(
    stored: np.ndarray, photometric: int, *others: Tag, order: str = "<", large: bool = False, form: int = 1
) -> bytes:
    """An uncompressed TIFF of an array (height, width) or (height, width, samples); `form` is of its SampleFormat."""
    height, width = stored.shape[:2]
    samples, bits = (stored.shape[2] if stored.ndim == 3 else 1), 8 * stored.dtype.itemsize
    return tiff(
        [
            (0x100, 4, 1, struct.pack("<I", width)),
            (0x101, 4, 1, struct.pack("<I", height)),
            (0x102, 3, samples, struct.pack(f"<{samples}H", *[bits] * samples)),
            (0x103, 3, 1, struct.pack("<H", 1)),
            (0x106, 3, 1, struct.pack("<H", photometric)),
            (0x115, 3, 1, struct.pack("<H", samples)),
            (0x116, 4, 1, struct.pack("<I", height)),
            (0x153, 3, samples, struct.pack(f"<{samples}H", *[form] * samples)),
            *others,
        ],
        stored.astype(stored.dtype.newbyteorder(order)).tobytes(),
        order,
        large,
    )


def chunk(kind: bytes, data: bytes, whole: bool = True) -> bytes:
    """A chunk of PNG; not `whole`, its sum is wrong."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ (not whole))


def png(stored: np.ndarray, colour: int, bits: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG of an array (height, width) or (height, width, samples), with more chunks before and after the pixels."""
    height, width = stored.shape[:2]
    if bits < 8:
        places = np.arange(8 // bits)[::-1] * bits
        packed = stored.reshape(height, -1, 8 // bits) << places
        stored = packed.sum(axis=2).astype(np.uint8)
    rows = stored.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", head) + b"".join(before) + chunk(b"IDAT", zlib.compress(lines)) + after
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """A file that Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def jpeg(pixels: np.ndarray, about: bytes = b"", **options: object) -> bytes:
    """A JPEG that loses little, with EXIF."""
    content = saved(Image.fromarray(pixels), "JPEG", quality=98, subsampling=0, **options)
    return with_segment(content, 0xE1, about) if about else content


def with_segment(content: bytes, marker: int, data: bytes) -> bytes:
    """A JPEG with another segment after its first one."""
    place = 4 + int.from_bytes(content[4:6], "big")
    return content[:place] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + content[place:]


def with_chunk(content: bytes, kind: bytes, data: bytes, shape: Sequence[int]) -> bytes:
    """A WebP in its simple form, made one of the extended form with another chunk at its end."""
    flags = {b"EXIF": 0x08}[kind]
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0])
    extended += b"".join(struct.pack("<I", side - 1)[:3] for side in (shape[1], shape[0]))
    body = b"WEBP" + extended + content[12:] + kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(stored: np.ndarray, bits: int, palette: np.ndarray | None = None) -> bytes:
    """A BMP of an array (height, width) of indices, or (height, width, 3), rows from below."""
    height, width = stored.shape[:2]
    colours = b"" if palette is None else b"".join(bytes([*colour[::-1], 0]) for colour in palette.tolist())
    place = 14 + 40 + len(colours)
    rows = stored[::-1] if palette is not None else stored[::-1, :, ::-1]
    pixels = rows.astype(np.uint8).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, len(pixels), 2835, 2835, len(colours) // 4, 0)
    return b"BM" + struct.pack("<IHHI", place + len(pixels), 0, 0, place) + head + colours + pixels


def lying(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A picture as a camera stores it that writes this EXIF orientation."""
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda upright: upright,
        2: lambda upright: upright[:, ::-1],
        3: lambda upright: upright[::-1, ::-1],
        4: lambda upright: upright[::-1],
        5: lambda upright: upright.swapaxes(0, 1),
        6: lambda upright: np.rot90(upright, 1),
        7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
        8: lambda upright: np.rot90(upright, -1),
    }
    return np.ascontiguousarray(turns[orientation](pixels))


def saved_lying(pixels: np.ndarray, orientation: int, about: bytes) -> list[bytes]:
    """JPEG, PNG, WebP and TIFF files of a picture as it lies by an orientation, all with this EXIF."""
    stored = lying(pixels, orientation)
    webp = saved(Image.fromarray(stored), "WEBP", lossless=True)
    return [
        jpeg(stored, about),
        png(stored, 2, 8, chunk(b"eXIf", about[6:])),
        with_chunk(webp, b"EXIF", about, stored.shape),
        saved(Image.fromarray(stored), "TIFF", tiffinfo={0x112: orientation}),
    ]
