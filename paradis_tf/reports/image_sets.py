"""What a report shows, for each set of test images: of super-resolution there are several, of other tasks one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.base.program import UserError
from paradis_tf.reports.claims import Comparison, compare
from paradis_tf.reports.lines import Line, make_lines
from paradis_tf.reports.runs import Run

# The set that the field's papers show.
_USUAL = "Set5"


@dataclass(frozen=True)
class ImageSet:
    """The lines and comparisons over one set of test images.

    Attributes:
      name: of the set; empty for the whole test part.
      bicubic: the value of bicubic enlargement, where it was measured.
    """

    name: str
    images: int
    lines: Sequence[Line]
    comparisons: Sequence[Comparison]
    bicubic: float | None = None


def whole(runs: Sequence[Run]) -> ImageSet:
    """The whole test part, the mean over all its images."""
    lines = make_lines(runs)
    return ImageSet("", runs[0].rows[0].images, lines, compare(lines))


def shown(runs: Sequence[Run]) -> list[ImageSet]:
    """Each set that all runs were measured on, that of the picture first; the whole test part if there is none.

    Raises:
      UserError: a set of other images in one run than in another.
    """
    rows = [row for run in runs for row in run.rows]
    names = [name for name in rows[0].sets if all(name in row.sets for row in rows)]
    return [_of_set(runs, name) for name in sorted(names, key=lambda name: name != _USUAL)] or [whole(runs)]


def _of_set(runs: Sequence[Run], name: str) -> ImageSet:
    first = runs[0].rows[0].sets[name]
    restricted = []
    for run in runs:
        rows = []
        for row in run.rows:
            of_set = row.sets[name]
            if of_set.images != first.images or not _alike(of_set.bicubic, first.bicubic):
                raise UserError(
                    f"{runs[0].where} and {run.where} differ in the images of set {name}, or in what bicubic "
                    "enlargement has on them; a report is of one test part."
                )
            # With devices missing only the whole test part is measured.
            rows.append(dataclasses.replace(row, images=of_set.images, value=of_set.value, live={}))
        restricted.append(dataclasses.replace(run, rows=tuple(rows)))
    return dataclasses.replace(whole(restricted), name=name, bicubic=first.bicubic)


def _alike(first: float | None, second: float | None) -> bool:
    # Machines may differ in the last digits.
    return first is None or second is None or math.isclose(first, second, rel_tol=1e-4)
