"""The demonstration's picture of one request says itself what is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from export.demo import figures as demo_figures


def request(workers: int) -> dict:
    device = {"sent_ms": 0.2, "received_ms": 1.4, "queue_ms": 0.2, "invoke_ms": 0.1}
    devices = [{"device": f"worker-{number}", **device} for number in range(workers)]
    return {"decode_ms": 0.1, "fuse_ms": 0.03, "devices": devices}


def test_the_timeline_explains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(demo_figures, "save", lambda figure, stem: kept.append(figure))
    demo_figures.timeline({"1.0": request(1), "4x0.25": request(4)}, Path("unused"))
    (figure,) = kept
    (legend,) = figure.legends
    assert "the test image of median latency" in legend.get_title().get_text()
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == [
        *("coordinator", "wire and HTTP", "queue", "slice")
    ]
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["switch 1.0: 1 worker", "switch 4x0.25: 4 workers"]
    assert "not when" in figure.axes[-1].get_xlabel()
    # The device's time away, and of it, in the middle, its waiting and its computing.
    boxes = [bar.get_extents().transformed(figure.axes[0].transData.inverted()) for bar in figure.axes[0].patches]
    bars = [(round(box.x0, 6), round(box.width, 6)) for box in boxes]
    assert bars == [(0, 0.1), (1.4, 0.03), (0.2, 1.2), (0.65, 0.2), (0.85, 0.1)]
