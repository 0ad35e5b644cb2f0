"""The results of a list: a row per run and switch with its conditions, and their summary over the seeds."""

from __future__ import annotations

import csv
import io
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import state
from benchmarks.runs.run_list import Run
from fusion.base import columns
from fusion.base.files import write_text
from fusion.base.program import UserError
from paradis_tf.base.files import read_json
from paradis_tf.records.workdir import Workdir, flat

Row = dict[str, Any]
_IDENTITY = ("name", "entry", "method", "seed", "epochs", "model_id", "switch", "devices", "images")


def collect(runs: Sequence[Run], runs_dir: Path) -> list[Row]:
    """A row per evaluated run and switch: what the evaluation says, then what it was made with.

    Rows are in the order of the list, columns in one order whatever is there. The conditions are the run folder's own
    (config, package versions, hours of training) and the command that makes the run.
    """
    rows = []
    for run in runs:
        found = state.read(run, runs_dir)
        if not found.complete:
            continue
        workdir = Workdir.open(runs_dir / run.name)
        conditions = {
            "config_file": run.config_file,
            "command": shlex.join(
                ["python", "-m", "paradis_tf.train", *run.train_flags(), f"--workdir={runs_dir / run.name}"]
            ),
            "training_hours": round(sum(found.seconds) / 3600, 3),
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
            told = flat(measured, "")
            scalars = {key: value for key, value in told.items() if isinstance(value, bool | int | float | str)}
            rows.append({**identity, "epochs": run.config.epochs, **scalars, **conditions})
    return rows


def summarize(rows: Sequence[Row]) -> list[Row]:
    """For every entry and switch each measure over the seeds: mean, standard deviation (of a sample), extremes, n.

    A measure is what an evaluation gives as a float, such as `accuracy`; whole numbers, such as MAdds, are copied.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["entry"], row["switch"]), []).append(row)
    summary = []
    for (entry, switch), group in groups.items():
        first = group[0]
        conditions = list(first).index("config_file")
        evaluated = {key: first[key] for key in list(first)[:conditions] if key not in _IDENTITY}
        copied = {key: value for key, value in evaluated.items() if type(value) is int}
        for measure in (key for key, value in evaluated.items() if isinstance(value, float)):
            values = [row[measure] for row in group if isinstance(row.get(measure), int | float)]
            summary.append(
                {
                    "method": first["method"],
                    "entry": entry,
                    "switch": switch,
                    "devices": first.get("devices", ""),
                    "images": first.get("images", ""),
                    **copied,
                    "measure": measure,
                    "mean": round(statistics.mean(values), 6),
                    "std": round(statistics.stdev(values), 6) if len(values) > 1 else "",
                    "min": round(min(values), 6),
                    "max": round(max(values), 6),
                    "n": len(values),
                    "seeds": " ".join(str(row["seed"]) for row in group),
                }
            )
    return summary


def render(summary: Sequence[Row]) -> str:
    """Method x switch: mean, spread and number of seeds of the accuracy, or of the first measure there is.

    An accuracy is in percent. Entries of one method that have a switch in common get a line each.
    """
    if not summary:
        return "no run is evaluated yet"
    measures = list(dict.fromkeys(row["measure"] for row in summary))
    measure = "accuracy" if "accuracy" in measures else measures[0]
    scale = 100 if measure == "accuracy" else 1
    shown = [row for row in summary if row["measure"] == measure]
    places = Counter((row["method"], row["switch"]) for row in shown)
    ambiguous = {method for (method, _), entries in places.items() if entries > 1}
    cells: dict[tuple[str, str], str] = {}
    for row in shown:
        label = f"{row['method']} ({row['entry']})" if row["method"] in ambiguous else row["method"]
        spread = f" ± {scale * row['std']:.2f}" if row["std"] != "" else ""
        cells[label, row["switch"]] = f"{scale * row['mean']:.2f}{spread} ({row['n']})"
    switches = list(dict.fromkeys(row["switch"] for row in shown))
    labels = list(dict.fromkeys(label for label, _ in cells))
    lines = [(label, *(cells.get((label, switch), "") for switch in switches)) for label in labels]
    unit = " (%)" if measure == "accuracy" else ""
    return f"{measure}{unit}: mean ± standard deviation (seeds)\n" + columns.render(("method", *switches), lines)


def summary_file(path: Path) -> Path:
    """Where the summary of a results file goes."""
    return path.with_name(f"{path.stem}_summary{path.suffix}")


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as CSV, aside and then renamed; columns that only some rows have are empty in the others.

    Raises:
      UserError: the file cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())


def _versions(workdir: Workdir) -> Row:
    try:
        versions = read_json(workdir.path / "versions.json")
    except UserError:
        return {}
    return {f"version.{name}": value for name, value in versions.items()} if isinstance(versions, dict) else {}
