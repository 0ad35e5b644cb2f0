"""What a coordinator keeps of its answers."""

import gc
import time
import weakref
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np

from fusion.bundle.contents import SliceModel, SwitchEntry
from fusion.coordinator import planning
from fusion.coordinator.dispatch import Arrival, Events, Outcome
from fusion.coordinator.fleet_metrics import FleetMetrics
from fusion.coordinator.fused import FusedModel, Limits
from fusion.coordinator.planner import Goal
from fusion.coordinator.remote import Partial
from fusion.serving.journal import Journal
from fusion.serving.metrics import Metrics


def fused():
    bundle: Any = SimpleNamespace(name="tiny", shape=(2, 2, 3), output_shape=(1000,), tail=None, model_id="m")
    made = Mock(outputs=())
    fleet: Any = None
    limits = Limits(32, 64, 10, "off")
    return FusedModel(bundle, fleet, Goal(1000), FleetMetrics(Metrics()), limits, made, None, Journal(None))


def answer(slices=1, early=False):
    """An answer for which the first of so many slices came."""
    models = tuple(SliceModel(i, str(i), "1", f"m-{i}", 16, 1, {}) for i in range(slices))
    partial = Partial(np.zeros((32, 1000)), 0.0, 0.001, 0.0, 1.0)
    return Outcome(SwitchEntry("1.0", "1.0", 16, None, models), {0: Arrival("a", "http://h:1", partial)}, early, None)


def test_recent_answers_are_kept_without_their_outputs():
    model, outcome = fused(), answer()
    partial = outcome.arrivals[0].partial
    kept = weakref.ref(partial)
    said = model._said(outcome)
    model._answered(time.perf_counter(), outcome, 0.1, 0.1, said)
    assert (said["switch"], said["devices"]) == ("1.0", "a")
    del partial, outcome
    gc.collect()
    assert kept() is None


def test_answers_and_slices_are_counted_apart(monkeypatch):
    monkeypatch.setattr(planning, "describe", lambda fleet, goal: {})
    model = fused()
    for outcome in (answer(), answer(2, early=True), answer(2)):
        model._answered(time.perf_counter(), outcome, 0.1, 0.1, model._said(outcome))
    model._refused(time.perf_counter(), 504)
    model._count(Events(late=["b", "b", "c"]))
    status = model.status()
    assert status["requests"] == {
        "running": 0,
        "answered": 3,
        "early": 1,
        "degraded": 1,
        "refused": 1,
        "late_slices": 3,
    }
    kinds = [(one["status"], one["early"], one["degraded"], one["missing"]) for one in status["recent"]]
    assert kinds == [(504, False, False, ""), (200, False, True, "1"), (200, True, False, "1"), (200, False, False, "")]
