"""Plain tables, and counts, for the terminal."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence


def render(header: Sequence[str], rows: Sequence[Sequence[object]], left: Collection[int] = (0,)) -> str:
    """A table with a ruled header: these columns to the left, the others to the right."""
    cells = [list(header), *([str(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            value.ljust(width) if column in left else value.rjust(width)
            for column, (value, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def counted(count: int, what: str) -> str:
    """So many of `what`, which is given for one and takes an s for others: 1 image, 0 images."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def accuracy_text(accuracy: float | None) -> str:
    """An accuracy for people: a part of 1 in per cent, PSNR, which is more, in dB."""
    if accuracy is None:
        return "unknown"
    return f"{100 * accuracy:.2f} %" if accuracy <= 1 else f"{accuracy:.2f} dB"


def utc_now() -> str:
    """The time by ISO 8601, in UTC and to the millisecond."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
