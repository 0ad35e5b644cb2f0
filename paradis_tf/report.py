"""Compares finished, evaluated runs: a picture, tables and a page, from what the runs measured and nothing else.

    python -m paradis_tf.report --workdir=runs/paradis --workdir=runs/us_slimmable --target=build/report
    python -m paradis_tf.report --results=benchmarks/results/runs.csv --target=build/report --title="CIFAR-10"

Runs of one config that differ in the seed alone are averaged; runs of the method `individual`, one per switch, make one
line. Super-resolution is shown for each set of test images, beside bicubic enlargement; Set5, or else the first set, is
drawn. Where switches were measured with devices missing, what remains of them is drawn and listed too, beside that of
the first line; so give the run that others are to be compared with first.

Writes into --target: report.png and report.svg (the metric against the multiply-adds of all devices and of the largest
one), devices_left.png and devices_left.svg (the metric against the number of devices left), report.json (points and
comparisons) and index.html, which holds everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from fusion.base import columns
from fusion.base.files import check_json_target, write_bytes, write_json
from fusion.base.paths import define_path, define_paths
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.base.metrics import METRICS
from paradis_tf.reports import tables
from paradis_tf.reports.image_sets import shown, whole
from paradis_tf.reports.results import read_all
from paradis_tf.reports.runs import Run, check_together

_WORKDIRS = define_paths("workdir", [], "Run folder, finished and evaluated; may be given many times.")
_LABELS = flags.DEFINE_list(
    "labels",
    [],
    "Names of the lines in the picture, in the order of --workdir, one for each line; seeds of one config, which are "
    "averaged, make one line.",
)
_RESULTS = define_paths("results", [], "CSV of results, as benchmarks.runs writes it.")
_TARGET = define_path("target", None, "Folder to write to; made if it is not there.", required=True)
_TITLE = flags.DEFINE_string("title", "", "Title of the picture and the page.")
_JSON = define_path("json", "", "Another file to write report.json to.")


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    runs = read_all(_WORKDIRS.value, _LABELS.value, _RESULTS.value)
    check_together(runs)
    all_images, sets = whole(runs), shown(runs)
    target = _folder(_TARGET.value)
    with program.loading():
        from paradis_tf.reports import figures, page
    metric = METRICS[runs[0].metric]
    title = _TITLE.value or _default_title(runs)
    figures.draw(sets[0], metric, title, target / "report")
    values = tables.results_json(all_images, sets, metric)
    write_json(target / "report.json", values)
    if _JSON.value:
        write_json(_JSON.value, values)
    pictures = [(target / "report.svg").read_text(encoding="utf-8")]
    left = tables.devices_left(all_images.lines, metric)
    if left.rows:
        figures.draw_devices_left(all_images, metric, title, target / "devices_left")
        pictures.append((target / "devices_left.svg").read_text(encoding="utf-8"))
    write_bytes(target / "index.html", page.render(title, all_images, sets, metric, *pictures).encode())
    for of_set in sets:
        means = tables.means(of_set, metric)
        images = f"{of_set.name}, {of_set.images} images" if of_set.name else f"{of_set.images} test images"
        name = f"{title}, {images}"
        print(f"{name}\n{columns.render(means.header, means.rows)}\n")
    if left.rows:
        print(f"{title}, {metric.heading} with so many devices left\n{columns.render(left.header, left.rows)}\n")
    if unequal := tables.unequal_training(all_images.lines):
        print(f"{unequal}\n")
    print(f"{target / 'index.html'} has the picture, the comparisons and the runs.")


def _default_title(runs: Sequence[Run]) -> str:
    names = [runs[0].identity.get(f"config.{key}.name", "") for key in ("model", "dataset")]
    return ", ".join(filter(None, names)) or "Runs compared"


def _folder(path: str) -> Path:
    from paradis_tf.reports.page import MARK

    target = Path(path)
    try:
        target.mkdir(parents=True, exist_ok=True)
        page = target / "index.html"
        if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
            raise UserError(f"{page} is not a report's page, and would be overwritten; give another --target.")
    except OSError as error:
        raise UserError(f"--target={path} cannot be made: {error.strerror}.") from None
    return target


if __name__ == "__main__":
    program.run(main)
