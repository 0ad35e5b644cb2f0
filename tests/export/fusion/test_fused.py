"""What a coordinator keeps of its answers."""

import gc
import time
import weakref
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np

from export.fusion.bundle import SliceModel, SwitchEntry
from export.fusion.dispatch import Arrival, Outcome
from export.fusion.fleet_metrics import FleetMetrics
from export.fusion.fused import FusedModel, Limits
from export.fusion.journal import Journal
from export.fusion.metrics import Metrics
from export.fusion.planner import Goal
from export.fusion.remote import Partial


def test_recent_answers_are_kept_without_their_outputs():
    bundle: Any = SimpleNamespace(name="tiny", shape=(2, 2, 3), output_shape=(1000,), tail=None, model_id="m")
    made = Mock(outputs=())
    fleet: Any = None
    limits = Limits(32, 64, 10, "off")
    model = FusedModel(bundle, fleet, Goal(1000), FleetMetrics(Metrics()), limits, made, None, Journal(None))
    entry = SwitchEntry("1.0", "1.0", 16, None, (SliceModel(0, "0", "1", "m", 16, 1, {}),))
    partial = Partial(np.zeros((32, 1000)), 0.0, 0.001, 0.0, 1.0)
    outcome = Outcome(entry, {0: Arrival("a", "http://h:1", partial)}, False, None)
    kept = weakref.ref(partial)
    said = model._said(outcome)
    model._answered(time.perf_counter(), outcome, 0.1, 0.1, said)
    assert (said["switch"], said["devices"]) == ("1.0", "a")
    del partial, outcome
    gc.collect()
    assert kept() is None
