"""The results of a list: a row per run and switch, with its conditions."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import schedule
from benchmarks.runs.run_list import ListedRun
from fusion.base.files import write_text
from fusion.base.program import UserError
from paradis_tf.base.files import read_json
from paradis_tf.records.workdir import Workdir, flat


def collect(runs: Sequence[ListedRun], runs_dir: Path) -> list[dict[str, Any]]:
    """A row per evaluated run and switch: what the evaluation says, then what it was made with.

    Rows are in the order of the list, columns in one order whatever is there. The conditions are the run folder's own
    (config, package versions, hours of training) and the command that makes the run.
    """
    rows = []
    for run in runs:
        state = schedule.read(run, runs_dir)
        if not state.complete:
            continue
        workdir = Workdir.open(runs_dir / run.name)
        command = ["python", "-m", "paradis_tf.train", *run.train_flags(), f"--workdir={runs_dir / run.name}"]
        conditions = {
            "config_file": run.config_file,
            "command": shlex.join(command),
            "training_hours": round(state.hours, 3),
            **{
                key: " ".join(map(str, value)) if isinstance(value, list) else value
                for key, value in sorted(flat(workdir.config()).items())
                # These stand in columns of their own.
                if key not in ("config.seed", "config.epochs")
            },
            **_versions(workdir),
        }
        identity = {"name": run.name, "entry": run.entry, "method": run.method, "seed": run.seed}
        for measured in workdir.evaluation():
            # Of super-resolution also each set of images and bicubic enlargement, as `bicubic.sets.Set5.psnr_y`.
            scalars = {
                key: value for key, value in flat(measured, "").items() if isinstance(value, bool | int | float | str)
            }
            # A list, so the column holds JSON.
            live = {"live_subsets": json.dumps(measured["live_subsets"])} if "live_subsets" in measured else {}
            rows.append({**identity, "epochs": run.config.epochs, **scalars, **live, **conditions})
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as CSV, aside and then renamed; columns that only some rows have are empty in the others.

    Raises:
      UserError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _versions(workdir: Workdir) -> dict[str, Any]:
    try:
        versions = read_json(workdir.path / "versions.json")
    except UserError:
        return {}
    return {f"version.{name}": value for name, value in versions.items()} if isinstance(versions, dict) else {}
