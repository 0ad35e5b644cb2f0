"""The metrics of a run: a CSV file with a row per finished epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection
from pathlib import Path

from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.base.files import replacing


class MetricsFile:
    """`metrics.csv` of a run folder; the only record of its epochs.

    It grows by a row at a time. A process that was killed, or a full disk, may leave a broken end, which is passed over
    by all that reads.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def rows(self) -> list[dict[str, float]]:
        """The rows of the finished epochs, without those that are cut off.

        Raises:
          UserError: a cell is no number, or the file cannot be read.
        """
        if not self.file.exists():
            return []
        header, rows = self._table()
        try:
            return [dict(zip(header, map(float, row), strict=True)) for row in rows]
        except ValueError as error:
            raise UserError(f"{self.file} is damaged: {error}; delete it to go on without its rows.") from None

    def check(self, columns: Collection[str]) -> None:
        """Finds out before the work whether rows of these columns, in whatever order, can follow those of the file.

        Raises:
          UserError: the rows have other columns, as another version of the program wrote them, or a cell is no number.
        """
        header = next(iter(self.rows()), {})
        if not header or header.keys() == set(columns):
            return
        lacking = ", ".join(column for column in columns if column not in header)
        beyond = ", ".join(column for column in header if column not in columns)
        difference = " and ".join(filter(None, (lacking and f"lacks {lacking}", beyond and f"has {beyond} besides")))
        raise UserError(
            f"{self.file} has other columns than this run writes, it {difference}: another version of the program "
            "began the run; go on with that one, or move the file away."
        )

    def append(self, row: dict[str, float]) -> None:
        """Adds the row of an epoch; the first row starts the file anew.

        Raises:
          UserError: as `check`, or the file cannot be written.
        """
        self.check(row)
        before = self.rows()
        try:
            with self.file.open("a" if before else "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, before[0] if before else row)
                if not before:
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.file} cannot be written: {error.strerror}.") from None

    def truncate(self, epochs: int) -> None:
        """Drops the rows of epochs that no checkpoint holds, so that they can be written again.

        Epochs up to so many that have no row are named on standard output. A file without rows is removed.
        """
        held = {str(epoch) for epoch in range(1, epochs + 1)}
        kept: list[list[str]] = []
        if self.file.is_file():
            header, rows = self._table() if epochs else ([], [])
            kept = [row for row in rows if row[0] in held]
            if kept:
                with replacing(self.file) as aside, aside.open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([header, *kept])
            else:
                self._remove()
        lost = sorted(held - {row[0] for row in kept}, key=int)
        if lost:
            text = f"epoch {lost[0]}" if len(lost) == 1 else f"{len(lost)} epochs from {lost[0]} to {lost[-1]}"
            say(f"{self.file} was emptied, cut off or removed: the metrics of {text} are lost")

    def _remove(self) -> None:
        try:
            self.file.unlink()
        except OSError as error:
            raise UserError(f"{self.file} cannot be removed: {error.strerror}.") from None

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and whole rows."""
        try:
            with self.file.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                header, *rows = list(csv.reader(file)) or [[]]
        except OSError as error:
            raise UserError(f"{self.file} cannot be read: {error.strerror}.") from None
        except csv.Error as error:
            raise UserError(f"{self.file} is damaged: {error}; delete it to go on without its rows.") from None
        return header, [row for row in rows if row and len(row) == len(header) and all(row)]
