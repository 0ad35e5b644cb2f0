"""The metrics of a run: a CSV file with a row per finished epoch."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from fusion.base.program import UserError
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

    def append(self, row: dict[str, float]) -> None:
        """Adds the row of an epoch; the first row, or one behind a broken header alone, starts the file anew.

        Raises:
          UserError: the rows before have other columns, as another version of the program wrote them, or the file
            cannot be written.
        """
        header = ""
        try:
            if self.file.exists():
                with self.file.open(newline="", encoding="utf-8", errors="replace") as file:
                    header = file.readline()
            new = header != ",".join(row) + "\r\n"
            if new and self.file.exists() and self._table()[1]:
                raise UserError(
                    f"{self.file} has columns {header.strip()}, and this epoch {','.join(row)}: another version of the "
                    "program began the run; go on with that one, or move the file away."
                )
            with self.file.open("w" if new else "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, row.keys())
                if new:
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.file} cannot be written: {error.strerror}.") from None

    def truncate(self, epochs: int) -> None:
        """Drops the rows of epochs that no checkpoint holds, so that they can be written again."""
        if not self.file.is_file():
            return
        if not epochs:
            try:
                self.file.unlink()
            except OSError as error:
                raise UserError(f"{self.file} cannot be removed: {error.strerror}.") from None
            return
        header, rows = self._table()
        held = {str(epoch) for epoch in range(1, epochs + 1)}
        with replacing(self.file) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *(row for row in rows if row[0] in held)])

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and whole rows."""
        try:
            with self.file.open(newline="", encoding="utf-8", errors="replace") as file:
                header, *rows = list(csv.reader(file)) or [[]]
        except OSError as error:
            raise UserError(f"{self.file} cannot be read: {error.strerror}.") from None
        except csv.Error as error:
            raise UserError(f"{self.file} is damaged: {error}; delete it to go on without its rows.") from None
        return header, [row for row in rows if row and len(row) == len(header) and all(row)]
