"""Image files of every mode, depth, orientation, format and fault that people meet, each with what it shows.

What a file shows is the array that it was made from; most files are written here byte by byte.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from tests.image_files import (
    BROKEN,
    NAN_EXPOSURE,
    RATIONAL_UNIT,
    TEXT_RESOLUTION,
    Tag,
    bmp,
    chunk,
    exif,
    jpeg,
    lying,
    png,
    saved,
    tiff,
    tiff_image,
    with_chunk,
    with_segment,
)

SIDE = 32
CLEAR = (slice(4, 12), slice(20, 30))
"""The rows and columns that are transparent in pictures with transparent parts."""


@dataclass(frozen=True)
class Odd:
    """An image file.

    Attributes:
      name: of the file.
      content: its bytes.
      pixels: what it shows, uint8 (SIDE, SIDE, 3); None where it is to be refused.
      near: by how many grey levels an answer may differ.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None
    near: int = 0


def scene() -> np.ndarray:
    """A picture without symmetry, uint8 (SIDE, SIDE, 3), smooth but for a corner."""
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([40 + 6 * x, 30 + 6 * y, 200 - 3 * x - 2 * y], axis=-1).astype(np.uint8)
    pixels[:8, :8] = (250, 240, 20)
    return pixels


def grey() -> np.ndarray:
    """Grey levels without symmetry, uint8 (SIDE, SIDE)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return (20 + 5 * x + 2 * y).astype(np.uint8)


def rgb(levels: np.ndarray) -> np.ndarray:
    """Grey levels as a picture."""
    return np.repeat(levels[..., np.newaxis], 3, axis=2)


def black_where_clear(pixels: np.ndarray) -> np.ndarray:
    """The picture with its transparent part on black."""
    laid = pixels.copy()
    laid[CLEAR] = 0
    return laid


@functools.cache
def odd_pictures() -> list[Odd]:
    """All of them, in the order of their names, which differ in more than their ends."""
    files = [*_pngs(), *_jpegs(), *_webps(), *_tiffs(), *_others(), *_faults()]
    named = [replace(odd, name=f"{odd.name.rpartition('.')[2]}-{odd.name}") for odd in files]
    return sorted(named, key=lambda odd: odd.name)


def agree(odd: Odd, found: np.ndarray | None) -> bool:
    """Whether somebody who saw these pixels, or refused the file, did as is right."""
    if odd.pixels is None or found is None:
        return odd.pixels is found
    return found.shape == odd.pixels.shape and int(np.abs(found.astype(int) - odd.pixels).max()) <= odd.near


def _alpha() -> tuple[np.ndarray, np.ndarray]:
    """An alpha channel, clear in `CLEAR` and half clear below, and the scene under it, on black."""
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[CLEAR] = 0
    alpha[24:] = 128
    return alpha, np.round(scene() * (alpha[..., np.newaxis] / 255)).astype(np.uint8)


def _pngs() -> list[Odd]:
    alpha, laid = _alpha()
    grey_laid = rgb(np.round(grey() * (alpha / 255)).astype(np.uint8))
    few = (grey() // 64).astype(np.uint8)
    indices = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 7
    colours = np.array([[9 * n, 255 - 30 * n, 40 * n] for n in range(7)], np.uint8)
    palette = chunk(b"PLTE", colours.tobytes())
    wide = grey().astype(np.uint16) * 256 + 77
    with_level, with_colour = grey(), scene()
    with_level[CLEAR], with_colour[CLEAR] = 7, (1, 2, 3)
    wide_level = wide.copy()
    wide_level[CLEAR] = 0xFF01
    few_level = few.copy()
    few_level[CLEAR] = 2
    two = (grey() > 100).astype(np.uint8)
    turned = exif(6, *BROKEN)
    plain = png(scene(), 2, 8)
    return [
        Odd("rgb.png", plain, scene()),
        Odd("grey.png", png(grey(), 0, 8), rgb(grey())),
        Odd("two-levels.png", png(two, 0, 1), rgb(two * 255)),
        Odd("four-levels.png", png(few, 0, 2), rgb(few * 85)),
        Odd("grey-16.png", png(wide, 0, 16), rgb(grey()), 1),
        Odd("rgb-16.png", png(scene().astype(np.uint16) * 257, 2, 16), scene(), 1),
        Odd("palette.png", png(indices, 3, 8, palette), colours[indices]),
        Odd("small-palette.png", png(indices, 3, 4, palette), colours[indices]),
        Odd("grey-alpha.png", png(np.dstack([grey(), alpha]), 4, 8), grey_laid, 1),
        Odd("grey-alpha-16.png", png(np.dstack([grey(), alpha]).astype(np.uint16) * 257, 4, 16), grey_laid, 1),
        Odd("rgba.png", png(np.dstack([scene(), alpha]), 6, 8), laid, 1),
        Odd("rgba-16.png", png(np.dstack([scene(), alpha]).astype(np.uint16) * 257, 6, 16), laid, 1),
        Odd("clear-level.png", png(with_level, 0, 8, chunk(b"tRNS", b"\0\7")), rgb(black_where_clear(with_level))),
        Odd(
            "clear-level-16.png",
            png(wide_level, 0, 16, chunk(b"tRNS", b"\xff\1")),
            rgb(black_where_clear(grey())),
            1,
        ),
        Odd(
            "clear-level-of-four.png",
            png(few_level, 0, 2, chunk(b"tRNS", b"\0\2")),
            rgb(np.where(few_level == 2, 0, few_level * 85).astype(np.uint8)),
        ),
        Odd(
            "clear-colour.png",
            png(with_colour, 2, 8, chunk(b"tRNS", b"\0\1\0\2\0\3")),
            black_where_clear(with_colour),
        ),
        Odd(
            "clear-palette.png",
            png(indices, 3, 8, palette, chunk(b"tRNS", bytes([255, 255, 0]))),
            np.where((indices == 2)[..., np.newaxis], 0, colours[indices]).astype(np.uint8),
        ),
        Odd("clear-colour-16.png", png(wide[..., np.newaxis].repeat(3, 2), 2, 16, chunk(b"tRNS", bytes(6))), None),
        Odd("turned.png", png(lying(scene(), 6), 2, 8, chunk(b"eXIf", turned[6:])), scene()),
        Odd("turned-late.png", png(lying(scene(), 8), 2, 8, after=chunk(b"eXIf", exif(8)[6:])), scene()),
        Odd("bad-profile.png", png(scene(), 2, 8, chunk(b"iCCP", b"x\0\0nonsense")), scene()),
        Odd("bad-sum-of-text.png", png(scene(), 2, 8, chunk(b"tEXt", b"a\0b", whole=False)), scene()),
        Odd("cut-off.png", plain[:-60], None),
        Odd("bad-sum.png", plain.replace(plain[41:45], b"\0\0\0\0", 1), None),
        Odd("a-jpeg.png", jpeg(scene()), scene(), 6),
    ]


def _jpegs() -> list[Odd]:
    plain = jpeg(scene())
    second = jpeg(scene()[::-1])
    # Of MPO: a directory with the number of images and where they are.
    places = struct.pack("<IIIHH", 0x030000, len(plain) + 78, 0, 0, 0) + struct.pack(
        "<IIIHH", 0, len(second), len(plain) + 8, 0, 0
    )
    mpf = tiff([(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, b"\2\0\0\0"), (0xB002, 7, 32, places)], b"")
    subtractive = np.dstack([255 - scene(), np.zeros((SIDE, SIDE), np.uint8)])
    return [
        Odd("rgb.jpg", plain, scene(), 6),
        Odd("grey.jpg", jpeg(grey()), rgb(grey()), 4),
        Odd("progressive.jpg", jpeg(scene(), progressive=True), scene(), 6),
        Odd(
            "cmyk.jpg",
            saved(Image.frombytes("CMYK", (SIDE, SIDE), subtractive.tobytes()), "JPEG", quality=98),
            scene(),
            8,
        ),
        *(
            Odd(f"orientation-{number}.jpg", jpeg(lying(scene(), number), exif(number)), scene(), 6)
            for number in range(1, 9)
        ),
        Odd("orientation-9.jpg", jpeg(scene(), exif(9)), scene(), 6),
        Odd("rational-unit.jpg", jpeg(lying(scene(), 6), exif(6, RATIONAL_UNIT)), scene(), 6),
        Odd("text-resolution.jpg", jpeg(lying(scene(), 6), exif(6, TEXT_RESOLUTION)), scene(), 6),
        Odd("nan.jpg", jpeg(lying(scene(), 6), exif(6, NAN_EXPOSURE)), scene(), 6),
        Odd("filled.jpg", b"\xff\xd8" + b"\xff" * 50 + jpeg(lying(scene(), 6), exif(6))[2:], scene(), 6),
        Odd("nonsense-exif.jpg", jpeg(scene(), b"Exif\0\0II*\0\xff\xff\xff\xff nonsense"), scene(), 6),
        Odd("two-pictures.mpo", with_segment(plain, 0xE2, b"MPF\0" + mpf) + second, scene(), 6),
        Odd("bad-mpf.jpg", with_segment(plain, 0xE2, b"MPF\0II*\0\x08\0\0\0\1\0"), scene(), 6),
        Odd("cut-off.jpg", plain[: len(plain) // 2], None),
        Odd("head-alone.jpg", plain[:20], None),
    ]


def _webps() -> list[Odd]:
    alpha, laid = _alpha()
    plain = saved(Image.fromarray(scene()), "WEBP", lossless=True)
    lying_one = saved(Image.fromarray(lying(scene(), 6)), "WEBP", lossless=True)
    frames = [Image.fromarray(pixels) for pixels in (scene(), scene()[::-1].copy())]
    return [
        Odd("rgb.webp", plain, scene()),
        Odd("lossy.webp", saved(Image.fromarray(rgb(grey())), "WEBP", quality=98), rgb(grey()), 6),
        Odd("rgba.webp", saved(Image.fromarray(np.dstack([scene(), alpha])), "WEBP", lossless=True), laid, 1),
        Odd("turned.webp", with_chunk(lying_one, b"EXIF", exif(6, *BROKEN), (SIDE, SIDE)), scene()),
        Odd("moving.webp", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]), scene()),
        Odd("cut-off.webp", plain[:-40], None),
    ]


def _tiffs() -> list[Odd]:
    alpha, laid = _alpha()
    turned: list[Tag] = [(0x112, 3, 1, struct.pack("<H", 6)), *BROKEN]
    wide = grey().astype(np.uint16) * 256 + 77
    luma = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ycc = np.clip(np.round(scene() @ luma.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    subtractive = np.dstack([255 - scene(), np.zeros((SIDE, SIDE), np.uint8)])
    # Grey by its lightness, in hundredths of 255, and what sRGB has for it.
    lightness = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 200 + 50
    steps = lightness / 255 * 100
    light = np.where(steps > 8, ((steps + 16) / 116) ** 3, steps / 903.3)
    seen = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    lab = np.dstack([lightness, np.zeros((SIDE, SIDE, 2))]).astype(np.uint8)
    twelve = grey().astype(np.uint16) * 16 + 5
    pairs = twelve.reshape(SIDE, -1, 2)
    packed = np.dstack([pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255])
    table = np.linspace(65535, 0, 256).astype("<u2")
    palette: Tag = (0x140, 3, 768, np.concatenate([table, table, np.zeros(256, "<u2")]).tobytes())
    shown = (table >> 8).astype(np.uint8)[grey()]
    pages = [Image.fromarray(pixels) for pixels in (scene(), scene()[::-1].copy())]
    plain = tiff_image(scene(), 2)
    return [
        Odd("rgb.tif", plain, scene()),
        Odd("large.tif", tiff_image(scene(), 2, large=True), scene()),
        Odd("turned.tiff", tiff_image(lying(scene(), 6), 2, *turned), scene()),
        Odd("turned-big-endian.tiff", tiff_image(lying(scene(), 6), 2, *turned, order=">"), scene()),
        Odd("turned-large.tiff", tiff_image(lying(scene(), 6), 2, *turned, large=True), scene()),
        Odd("packed.tif", saved(Image.fromarray(scene()), "TIFF", compression="tiff_lzw"), scene()),
        Odd("grey.tif", tiff_image(grey(), 1), rgb(grey())),
        Odd("white-is-0.tif", tiff_image(255 - grey(), 0), rgb(grey())),
        Odd("grey-16.tif", tiff_image(wide, 1), rgb(grey()), 1),
        Odd("grey-16-big-endian.tif", tiff_image(wide, 1, order=">"), rgb(grey()), 1),
        Odd("white-is-0-16.tif", tiff_image(65535 - wide, 0), rgb(grey()), 1),
        Odd(
            "grey-12.tif",
            tiff_image(packed.reshape(SIDE, -1).astype(np.uint8), 1)
            .replace(struct.pack("<HHII", 0x102, 3, 1, 8), struct.pack("<HHII", 0x102, 3, 1, 12))
            .replace(struct.pack("<HHII", 0x100, 4, 1, SIDE * 3 // 2), struct.pack("<HHII", 0x100, 4, 1, SIDE)),
            rgb(grey()),
            1,
        ),
        Odd("rgb-16.tif", tiff_image(scene().astype(np.uint16) * 257, 2), scene(), 1),
        Odd("rgba.tif", tiff_image(np.dstack([scene(), alpha]), 2, (0x152, 3, 1, b"\2\0")), laid, 1),
        Odd("rgba-on-black.tif", tiff_image(np.dstack([laid, alpha]), 2, (0x152, 3, 1, b"\1\0")), laid, 2),
        Odd("palette.tif", tiff_image(grey(), 3, palette), np.dstack([shown, shown, shown * 0])),
        Odd("cmyk.tif", tiff_image(subtractive, 5), scene()),
        Odd("ycc.tif", tiff_image(ycc, 6, (0x212, 3, 2, b"\1\0\1\0")), scene(), 3),
        Odd("lab.tif", tiff_image(lab, 8), rgb(np.round(seen * 255).astype(np.uint8)), 3),
        Odd("pages.tif", saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]), scene()),
        Odd("float.tif", tiff_image((grey() / 255).astype(np.float32), 1, form=3), None),
        Odd("int32.tif", tiff_image(grey().astype(np.int32) * 2**23, 1, form=2), None),
        Odd("uint32.tif", tiff_image(grey().astype(np.uint32) * 2**24, 1), None),
        Odd("int16.tif", tiff_image(grey().astype(np.int16), 1, form=2), None),
        Odd("cut-off.tif", plain[:-60], None),
    ]


def _others() -> list[Odd]:
    indices = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 7
    colours = np.array([[9 * n, 255 - 30 * n, 40 * n] for n in range(7)], np.uint8)
    flat = Image.fromarray(indices.astype(np.uint8))
    flat.putpalette(colours.tobytes())
    clear = np.where((indices == 2)[..., np.newaxis], 0, colours[indices]).astype(np.uint8)
    other = Image.fromarray(indices[::-1].astype(np.uint8))
    other.putpalette(colours[::-1].tobytes())
    two = (grey() > 100).astype(np.uint8)
    ten = (grey().astype(np.uint16) * 4 + 1).astype(">u2")
    return [
        Odd("palette.gif", saved(flat, "GIF"), colours[indices]),
        Odd("clear.gif", saved(flat, "GIF", transparency=2), clear),
        Odd("moving.gif", saved(flat, "GIF", save_all=True, append_images=[other]), colours[indices]),
        Odd("rgb.bmp", bmp(scene(), 24), scene()),
        Odd("palette.bmp", bmp(indices, 8, np.resize(colours, (256, 3))), colours[indices]),
        Odd("cut-off.bmp", bmp(scene(), 24)[:-60], None),
        Odd("rgb.ppm", b"P6 32 32 255\n" + scene().tobytes(), scene()),
        Odd("text.ppm", b"P3 32 32 255\n" + " ".join(map(str, scene().ravel())).encode(), scene()),
        Odd("grey.pgm", b"P5 32 32 255\n" + grey().tobytes(), rgb(grey())),
        Odd(
            "grey-16.pgm",
            b"P5 32 32 65535\n" + (grey().astype(np.uint16) * 256 + 77).astype(">u2").tobytes(),
            rgb(grey()),
            1,
        ),
        Odd("grey-10.pgm", b"P5 32 32 1023\n" + ten.tobytes(), rgb(grey()), 1),
        Odd("two-levels.pbm", b"P4 32 32\n" + np.packbits(1 - two).tobytes(), rgb(two * 255)),
        Odd("float.ppm", b"Pf\n32 32\n-1.0\n" + (grey() / 255).astype("<f4").tobytes(), None),
    ]


def _faults() -> list[Odd]:
    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return [
        Odd("empty.png", b"", None),
        Odd("page.jpg", b"<html>not found</html>", None),
        Odd("drawing.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n", None),
        Odd("giant.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b""), None),
        Odd("no-pixels.ppm", b"P6 0 0 255\n", None),
        Odd("zeros.bmp", bytes(2000), None),
    ]


def mutated(seed: int) -> bytes:
    """One of the files, damaged as a number decides: bytes of its first kilobyte or of all are changed, taken out or
    put in, or its end is that of another."""
    rng = np.random.default_rng(seed)
    files = [odd.content for odd in odd_pictures() if odd.content]
    content = bytearray(files[seed % len(files)])
    reach = min(len(content), int(rng.choice([64, 1024, 2**30])))
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(reach))
        kind = rng.integers(4)
        if kind == 0:
            content[place : place + 1] = rng.bytes(1)
        elif kind == 1:
            content[place : place + int(rng.integers(1, 9))] = rng.choice([b"", b"\xff\xff", bytes(4), rng.bytes(8)])
        elif kind == 2:
            content[place:place] = rng.bytes(int(rng.integers(1, 9)))
        else:
            content[place : place + 1] = bytes([content[place] ^ 1 << int(rng.integers(8))]) if content else b""
        reach = max(1, min(reach, len(content)))
    if rng.random() < 0.1:
        content[reach:] = files[int(rng.integers(len(files)))][reach:]
    return bytes(content)
