"""Slices are timed alone, and a cluster goes on while a device dies and comes back: with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.demo import life, speed
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle

MAKER = Path(__file__).resolve().parents[2] / "fusion" / "make_bundle.py"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the switches 1.0, 0.5+0.5 and 0.75+0.25; the more multiply-adds, the better."""
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([sys.executable, MAKER, folder], check=True, capture_output=True)
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    madds = {"0.5+0.5": 1, "0.75+0.25": 2, "1.0": 3}
    for entry in content["switches"]:
        entry["madds"] = madds[entry["switch"]]
    file.write_text(json.dumps(content))
    return manifest.load(folder)


def test_each_switch_is_timed_by_its_largest_slice(tiny: Bundle) -> None:
    rows = speed.measure(tiny, "float32", "auto")
    assert [(row["switch"], row["devices"]) for row in rows] == [("1.0", 1), ("0.5+0.5", 2), ("0.75+0.25", 2)]
    for row in rows:
        largest = max(tiny.find_switch(row["switch"]).slices, key=lambda slice_: slice_.madds)
        assert (row["madds_largest"], row["bytes_largest"]) == (largest.madds, largest.files["float32"].bytes)
        assert row["speedup"] == pytest.approx(rows[0]["slice_ms"] / row["slice_ms"])
    assert speed.table(rows).count("x") == 3


def test_a_slice_that_cannot_be_timed(tiny: Bundle) -> None:
    with pytest.raises(UserError, match="has ended: .* runtime 'mine' is unknown; legal: "):
        speed.measure(tiny, "float32", "mine")


def test_another_switch_takes_over_until_the_device_is_back(tiny: Bundle) -> None:
    script = life.Script(kill_s=4, down_s=3, after_s=0.5, longest_s=300)
    heard: list[str] = []
    seen = life.watch(tiny, "0.75+0.25", "float32", "auto", script, heard.append)
    assert len(seen.answers) == len(seen.requests)
    events = [event.text.split(" on ")[0] for event in seen.events]
    assert events[0] == "now 0.75+0.25"
    assert set(events) == {"now 0.75+0.25", life.KILLED, "now 0.5+0.5", life.STARTED}
    killed, started = (seen.events[events.index(text)].at_s for text in (life.KILLED, life.STARTED))
    # On a busy machine a switch may be left at other times too.
    assert killed < started
    assert "0.5+0.5" in [answer.switch for answer in seen.answers if answer.at_s > killed]
    assert "0.75+0.25" in [answer.switch for answer in seen.answers if answer.at_s > started]
    # Each was told as it happened.
    assert [text.partition(" s  ")[2] for text in heard if text.endswith(tuple(e.text for e in seen.events))] == [
        event.text for event in seen.events
    ]
    # Nobody but the large device has memory for the widest slice, and it has none for all of the network.
    for answer in seen.answers:
        assert (answer.switch == "0.75+0.25") == (life.LARGE in answer.devices)
    assert len(seen.memory_bytes) == 3


def test_a_bundle_without_a_wider_slice(tiny: Bundle) -> None:
    with pytest.raises(UserError, match="has no slice wider than those of switch 1.0"):
        life.watch(tiny, "1.0", "float32", "auto", life.Script(), print)
