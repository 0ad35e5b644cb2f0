"""The picture of a chaos run: every request's time, what happened to which worker, and the coordinator's memory."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chaos import schedule, verdicts
from benchmarks.chaos.run import ChaosSettings, Result
from paradis_tf.pictures.style import BLUE, GREEN, GRID, INK, ORANGE, PURPLE, SKY, VERMILION, plt, save

_DOTS = {
    verdicts.ANSWERED: (BLUE, "o", "answered"),
    verdicts.DEGRADED: (ORANGE, "o", "degraded: without all slices, and says so"),
    verdicts.REFUSED: (PURPLE, "x", "refused: nothing could be served"),
}
_BAD = (VERMILION, "X", "late, wrong, lost or refused without need")
_BARS = {
    schedule.KILL: ("#444444", "killed, started again"),
    schedule.STOP: ("#888888", "stopped, or in turns (stutter)"),
    schedule.RESTART: (SKY, "restarted"),
    schedule.SLOW: (ORANGE, "slow"),
    schedule.ERROR: (PURPLE, "garbage of some kind, or cut off"),
}
_LIKE = {
    schedule.STUTTER: schedule.STOP,
    schedule.BLACKOUT: schedule.STOP,
    schedule.NONSENSE: schedule.ERROR,
    schedule.TRUNCATED: schedule.ERROR,
    schedule.FOREIGN: schedule.ERROR,
    schedule.RESET: schedule.ERROR,
}


def draw(result: Result, settings: ChaosSettings, what: str, stem: Path) -> None:
    """Writes `stem`.png and `stem`.svg."""
    figure, (times, bars, memory) = plt.subplots(
        3, 1, figsize=(13, 7.5), sharex=True, height_ratios=(5, 1.6, 1.4), layout="constrained"
    )
    for name in (*_DOTS, "bad"):
        color, marker, label = _DOTS.get(name, _BAD)
        alike = [verdict for verdict in result.verdicts if (verdict.what if verdict.what in _DOTS else "bad") == name]
        size = 5 if name == verdicts.ANSWERED else 26
        times.scatter(
            [verdict.at for verdict in alike],
            [verdict.ms for verdict in alike],
            s=size,
            color=color,
            marker=marker,
            label=f"{label} ({len(alike):,})",
            rasterized=True,
        )
    times.axhline(settings.deadline_ms, color=INK, lw=1, ls="--", label=f"deadline, {settings.deadline_ms:g} ms")
    times.set_yscale("log")
    times.set_ylabel("time of a request at the client (ms)")
    times.legend(loc="upper right", fontsize=8, framealpha=0.95)
    drawn: set[str] = set()
    for incident in result.incidents:
        if incident.skipped:
            continue
        event = incident.event
        kind = _LIKE.get(event.kind, event.kind)
        color, label = _BARS[kind]
        workers = range(settings.workers) if event.worker < 0 else [event.worker]
        for worker in workers:
            named = label if kind not in drawn else None
            drawn.add(kind)
            lasted = incident.ended - incident.began
            bars.barh(worker, lasted, left=incident.began, height=0.7, color=color, label=named)
    bars.set_yticks(range(settings.workers), [f"worker {i}" for i in range(settings.workers)], fontsize=8)
    bars.invert_yaxis()
    bars.legend(loc="upper left", bbox_to_anchor=(0, -0.02), fontsize=8, ncols=len(_BARS), frameon=False)
    memory.plot([sample.at for sample in result.samples], [s.memory / 1e6 for s in result.samples], color=GREEN)
    memory.set_ylabel("coordinator's\nmemory (MB)")
    memory.set_ylim(0, 1.2 * max((sample.memory / 1e6 for sample in result.samples), default=1))
    memory.set_xlabel("seconds")
    for axis in (times, bars, memory):
        axis.grid(color=GRID)
        axis.set_axisbelow(True)
    figure.suptitle(f"{what}: {settings.workers} workers, {settings.rate:g} requests/s, seed {settings.seed}")
    save(figure, stem)
