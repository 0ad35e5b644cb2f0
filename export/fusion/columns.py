"""Plain tables for the terminal."""

from __future__ import annotations

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
