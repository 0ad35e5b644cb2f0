"""The demonstration's pictures say what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from export.demo import figures
from export.demo.life import KILLED, STARTED, Life, LifeEvent, LifeRequest


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn, in place of their files."""
    kept: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, stem: kept.append(figure))
    return kept


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_accuracy_names_every_switch(drawn: list[Any]) -> None:
    rows = [
        {"switch": "1.0", "madds_largest": 3e6, "float_accuracy": 0.99, "served_accuracy": 0.985},
        {"switch": "4x0.25", "madds_largest": 2e5, "float_accuracy": 0.96, "served_accuracy": 0.96},
    ]
    figures.draw_accuracy(rows, 200, Path("unused"))
    assert "2 ways to cut it: 96.0 to 98.5 % right" in drawn[0].get_suptitle()
    assert texts(drawn[0]) == ["1.0", "4x0.25"]


def test_speed_has_a_bar_and_a_label_for_every_switch(drawn: list[Any]) -> None:
    rows = [
        {"switch": "1.0", "devices": 1, "bytes_largest": 25e6, "memory_bytes": 60e6, "slice_ms": 90.0, "speedup": 1.0},
        {
            "switch": "4x0.25",
            "devices": 4,
            "bytes_largest": 2e6,
            "memory_bytes": None,
            "slice_ms": 9.0,
            "speedup": 10.0,
        },
    ]
    figures.draw_speed(rows, "a network", Path("unused"))
    assert "4 devices" in drawn[0].get_suptitle() and "10.0 times" in drawn[0].get_suptitle()
    assert texts(drawn[0]) == ["90 ms", "25.0 MB file, 60 MB of memory", "9.0 ms, 10.0x", "2.0 MB file"]
    assert [bar.get_width() for bar in drawn[0].axes[0].patches] == [90, 9]


def lived(lost: int) -> Life:
    """Ten seconds at two requests a second: one answer with a slice missing, then another switch."""
    life = Life({"worker-0": 2, "worker-1": 1}, seconds=10)
    for number in range(20 - lost):
        before = number < 10
        devices = ("worker-0", "worker-1") if before else ("worker-1",)
        life.requests.append(LifeRequest(number / 2, 20, "0.5+0.5" if before else "1.0", devices, number == 10))
    life.requests += [LifeRequest(9.9, 50)] * lost
    life.events += [LifeEvent(5, KILLED), LifeEvent(5.5, "now 1.0 on worker-1"), LifeEvent(8, STARTED)]
    return life


@pytest.mark.parametrize(("lost", "title"), [(0, "no request lost"), (1, "1 request lost"), (2, "2 requests lost")])
def test_life_shows_switches_devices_and_what_went_wrong(drawn: list[Any], lost: int, title: str) -> None:
    figures.draw_life(lived(lost), "a network", Path("unused"))
    rates, times, devices = drawn[0].axes
    assert drawn[0].get_suptitle().endswith(title)
    assert f"20 requests: {lost} lost, 1 with slices missing" in rates.get_title(loc="left")
    assert [text.get_text() for text in rates.texts] == ["0.5+0.5", "1.0", KILLED, STARTED]
    assert sum(bar.get_height() for bar in rates.patches) == 20 - lost
    assert [text.get_text() for text in times.get_legend().get_texts()] == ["slices missing"]
    marks = [len(collection.get_segments()) for collection in devices.collections]
    assert marks == [10, 20 - lost]


def test_a_life_without_an_answer_is_drawn_too(drawn: list[Any]) -> None:
    life = Life({"worker-0": 2}, [LifeRequest(0.5, 3)], seconds=1)
    figures.draw_life(life, "a network", Path("unused"))
    assert "1 requests, none answered" in drawn[0].axes[0].get_title(loc="left")
