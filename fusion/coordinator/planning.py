"""What coordinator and plan share: the flags that a plan depends on, and its description in JSON values."""

from __future__ import annotations

from typing import Any

from absl import flags

from ..base.program import LONGEST_S, UserError, define_float
from ..bundle.contents import Bundle, SwitchEntry
from ..bundle.tasks import CLASSIFICATION, SUPER_RESOLUTION
from .estimates import now
from .fleet import Fleet
from .planner import Goal, Plan

SWITCH = flags.DEFINE_string(
    "switch", None, "The one switch to run, e.g. 0.5+0.5; without it, the best for the devices that are there."
)
PRECISION = flags.DEFINE_string(
    "precision", None, "Which files of the bundle the workers serve; by default the first of the bundle."
)
DEADLINE_MS = define_float(
    "deadline_ms",
    1000,
    "Milliseconds within which a request is answered; a switch is run that is expected to keep it.",
    1,
    LONGEST_S * 1e3,
)
ACCURACY_LOSS = define_float(
    "accuracy_loss",
    None,
    "Runs the fastest switch that loses at most this much against the most accurate one: of a classifier in percentage "
    f"points, {CLASSIFICATION.accuracy_loss:g} by default, of super-resolution PSNR-Y in dB, "
    f"{SUPER_RESOLUTION.accuracy_loss:g} by default. 0: runs the most accurate.",
    0,
    100,
)
MIN_ACCURACY = define_float(
    "min_accuracy",
    None,
    "Instead, runs the fastest switch that has this accuracy: of a classifier in per cent, of super-resolution PSNR-Y "
    "in dB.",
    0,
    100,
)
CONNECT_TIMEOUT_S = define_float(
    "connect_timeout_s", 2, "Seconds that connecting to a worker may take.", 0.001, LONGEST_S
)
UNVERIFIED = "no accuracy is known, so more multiply-adds count as better; export.verify puts accuracies in the bundle"
"""What users are told of a bundle without accuracies."""


def goal(bundle: Bundle) -> Goal:
    """What the flags ask of a plan. Raises `UserError` where they ask for two things."""
    least, loss, task = MIN_ACCURACY.value, ACCURACY_LOSS.value, bundle.task
    if least is not None and loss is not None:
        raise UserError(f"--min_accuracy={least:g} and --accuracy_loss={loss:g} are two rules; legal: one of them.")
    if least is not None:
        return Goal(DEADLINE_MS.value or 0.0, least / task.accuracy_scale, 0.0, task)
    loss = (task.accuracy_loss if loss is None else loss) / task.accuracy_scale
    return Goal(DEADLINE_MS.value or 0.0, None, loss, task)


def entries(bundle: Bundle) -> tuple[SwitchEntry, ...]:
    """The switches that the flags allow. Raises `UserError` when the bundle lacks that of --switch."""
    return bundle.switches if SWITCH.value is None else (bundle.find_switch(SWITCH.value),)


def describe(fleet: Fleet) -> dict[str, Any]:
    """The plan for the next image, the rule that chose it and what it lacks of the goal, what requests run that come
    meanwhile on devices that it leaves, why other switches are not run, and the devices."""
    goal, time = fleet.goal, now()
    decision = fleet.decide(goal)
    chosen, said = decision.chosen, {"rule": decision.rule, "lacks": decision.lacks}
    # Of two plans of a switch the first, of which the reason tells too.
    plans = {plan.entry.switch: plan for plan in reversed(decision.plans)}
    return {
        "precision": fleet.precision,
        "deadline_ms": goal.deadline_ms,
        "min_accuracy": goal.min_accuracy,
        "accuracy_loss": goal.accuracy_loss,
        "plan": chosen and {"switch": chosen.entry.switch, **_plan(chosen), **said},
        "meanwhile": [{"switch": plan.entry.switch, **_plan(plan)} for plan in fleet.meanwhile(goal, decision)],
        "rejected": [
            {"switch": switch, "reason": reason, **_plan(plans.get(switch))}
            for switch, reason in decision.rejected.items()
        ],
        "devices": [
            {
                "name": device.name,
                "url": device.url,
                "state": device.health.state,
                "reason": device.health.reason,
                "since_s": time - device.health.since,
                "inflight": device.running,
                "requests": device.requests,
                "failures": device.failures,
                "latency_ms": dict(device.latencies),
                "models": len(device.latencies),
            }
            for device in fleet.devices
        ],
    }


def _plan(plan: Plan | None) -> dict[str, Any]:
    if plan is None:
        return {"assignment": [], "latency_ms": None, "accuracy": None}
    return {"assignment": list(plan.devices), "latency_ms": plan.latency_ms, "accuracy": plan.accuracy}
