"""The report as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from paradis_tf.base.metrics import Metric
from paradis_tf.reports import tables
from paradis_tf.reports.image_sets import ImageSet
from paradis_tf.reports.lines import Line

# Tells a page of ours from anybody else's before it is overwritten.
MARK = '<meta name="generator" content="paradis_tf.report">'

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1150px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
svg { width: 100%; height: auto; } figure { margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #222; } .left { text-align: left; }
.wide { overflow-x: auto; } pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: .85rem; }
"""

# What multiply-adds are counted for.
_UNITS = {"accuracy": "image", "psnr_y": "low-resolution patch of the size of training"}

_CLAIMS = (
    (
        "a",
        "A. Against individual networks",
        "Each switch minus the network of the same structure that was trained alone.",
    ),
    (
        "b",
        "B. Against universally slimmable networks at equal multiply-adds in all",
        "The curve of the universally slimmable network is interpolated, seed by seed, linearly in the logarithm of "
        "the multiply-adds. A switch that costs more or less than all its widths has no counterpart.",
    ),
    (
        "c",
        "C. Against slimmable networks that cost what the largest device does",
        "Each switch of several devices minus the single-device width whose multiply-adds equal those of the switch's "
        "largest device.",
    ),
)


def render(
    title: str,
    all_images: ImageSet,
    sets: Sequence[ImageSet],
    metric: Metric,
    picture: str,
    left_picture: str = "",
) -> str:
    """The page, with two SVG pictures in it.

    `picture` is of the first of the sets, `left_picture` of the devices left; empty where nothing was measured of them.
    """
    lines = all_images.lines
    seeds = max(point.value.seeds for line in lines for point in line.points)
    texts = (_introduction(all_images, metric, seeds), tables.unequal_training(lines))
    sections = [
        *(f"<p>{escape(text)}</p>" for text in texts if text),
        _figure(
            picture,
            f"{metric.heading} of every switch against the multiply-adds of all devices and of the largest one.",
        ),
    ]
    for of_set in sets:
        heading = f"{of_set.name}, {of_set.images} images: Every switch" if of_set.name else "Every switch"
        text = "Means over seeds." if seeds > 1 else "One seed each."
        sections.append(_section(heading, text, tables.means(of_set, metric)))
    for claim, heading, text in _CLAIMS:
        for of_set in sets:
            table = tables.comparisons(of_set.comparisons, claim, metric)
            if table.rows:
                sections.append(_section(heading + (of_set.name and f", {of_set.name}"), text, table))
    left = tables.devices_left(lines, metric)
    if left.rows:
        sections.append("<h2>Devices left</h2>")
        alternative = (
            f"{metric.heading} against the number of devices left, a panel for each of "
            f"{', '.join(dict.fromkeys(row[0] for row in left.rows))}; the table has the values."
        )
        sections.append(_figure(left_picture, alternative))
        text = f"{metric.heading}: the mean over the sets of so many devices, each as likely to be left."
        judged = [line for line in lines if line.with_missing and not line.is_reference]
        if len(judged) > 1:
            text += f" Differences are to {judged[0].label}."
        sections.append(f"<p>{escape(text)}</p>\n{_html(left)}")
    live = tables.live(lines, metric)
    if live.rows:
        text = "The plain sum of the slices that arrived; a dash stands for a device that is missing."
        if metric.key == "accuracy":
            text += " The classifier's bias is in the first slice, so it is missing along with device 0."
        if sets[0].name:
            text += " The mean over the images of all sets."
        sections.append(_section("With devices missing", text, live))
    sections.append(_runs(lines))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def _figure(picture: str, alternative: str) -> str:
    """An SVG picture, and for whom does not see it what it shows."""
    drawing = picture[picture.index("<svg") + len("<svg") :]
    return f'<figure><svg role="img" aria-label="{escape(alternative)}"{drawing}</figure>'


def _introduction(all_images: ImageSet, metric: Metric, seeds: int) -> str:
    resolution = f" One image is {100 / all_images.images:.2g} points." if metric.key == "accuracy" else ""
    spread = (
        "± is the sample standard deviation over seeds, and of a difference the root of the sum of squares."
        if seeds > 1
        else "Every value is of a single seed, so its spread is not known."
    )
    return (
        f"{metric.title[0].upper()}{metric.title[1:]} on the {all_images.images:,} images of the test part, in "
        f"floating point, against multiply-adds (MAdds) of one {_UNITS[metric.key]}.{resolution} {spread}"
    )


def _section(heading: str, text: str, table: tables.TextTable) -> str:
    return f"<h2>{escape(heading)}</h2>\n<p>{escape(text)}</p>\n{_html(table)}"


def _html(table: tables.TextTable) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=left' if place < table.left else ''}>{escape(text)}</{tag}>"
            for place, text in enumerate(row)
        )

    rows = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    return f'<div class="wide"><table>\n<tr>{cells(table.header, "th")}</tr>\n{rows}\n</table></div>'


def _runs(lines: Sequence[Line]) -> str:
    pieces = ["<h2>Runs</h2>"]
    for line in lines:
        pieces.append(f"<h3>{escape(line.label)}</h3>")
        for run in line.runs:
            pieces.append(f"<p>{escape(run.where)}: seed {run.seed}, {run.epochs} epochs</p>")
            if run.command:
                pieces.append(f"<pre>{escape(run.command)}</pre>")
            if run.config is not None:
                config = escape(json.dumps(run.config, indent=2))
                pieces.append(f"<details><summary>config</summary><pre>{config}</pre></details>")
    packages = {
        ", ".join(f"{name} {version}" for name, version in (run.versions or {}).items())
        for line in lines
        for run in line.runs
    }
    return "\n".join([*pieces, *(f"<p>Packages: {escape(text)}</p>" for text in sorted(packages) if text)])
