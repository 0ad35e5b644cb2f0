"""Which of the plans that can be run is run, and why no other. Knows nothing of networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..base.columns import accuracy_text
from ..bundle.contents import SwitchEntry
from ..bundle.tasks import CLASSIFICATION, BundleTask

# A device is taken for slow after twice what was expected of it, and this.
_PATIENCE, _PATIENCE_MS = 2.0, 20.0
# The switch that runs is kept while no other is expected to answer in less than this part of its time.
_MUCH_FASTER = 0.9
# Two accuracies that are so many images of a set apart may differ by a little more.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Plan:
    """A switch and the devices that run its slices.

    Attributes:
      entry: the switch.
      devices: the names of the devices, in slice order; one device may run several slices, one after the other. Empty
        for a slice that no device serves, or in far more time: the answer is the sum of the others.
      latency_ms: when the last of them is expected to answer.
      accuracy: of the switch without the missing slices, in the metric of its verification; None where that is unknown.
      slow: the missing slices that would have been served, and the milliseconds that the plan would take with them.
    """

    entry: SwitchEntry
    devices: tuple[str, ...]
    latency_ms: float
    accuracy: float | None
    slow: tuple[tuple[int, ...], float] = ((), 0.0)

    @property
    def answering(self) -> frozenset[int]:
        """The slices that a device serves."""
        return frozenset(number for number, device in enumerate(self.devices) if device)

    @property
    def missing(self) -> tuple[int, ...]:
        """The slices that the answer lacks."""
        return tuple(number for number, device in enumerate(self.devices) if not device)

    @property
    def rank(self) -> tuple[float, bool, int]:
        """How good its answers are; without an accuracy, whole ones before others, then those of more multiply-adds."""
        return (-1.0 if self.accuracy is None else self.accuracy, not self.missing, self.madds)

    @property
    def lacks(self) -> str:
        """Why slices are missing, as a phrase; empty where none are."""
        slow, ms = self.slow
        unserved = [number for number in self.missing if number not in slow]
        late = f"slice {', '.join(map(str, slow))} would take {ms:.1f} ms" if slow else ""
        return " and ".join(filter(None, [not_served(unserved) if unserved else "", late]))

    @property
    def madds(self) -> int:
        """Multiply-adds of all that answer."""
        entry = self.entry
        return sum(entry.slices[number].madds for number in self.answering) if self.missing else entry.madds


@dataclass(frozen=True)
class Goal:
    """What a plan is chosen for: the fastest of those that are within the deadline and accurate enough.

    Accurate enough are those that lose at most `accuracy_loss` against the most accurate one within the deadline; with
    `min_accuracy`, those that have it, where any has. Where no plan is within the deadline, the fastest is chosen.

    Attributes:
      deadline_ms: milliseconds for an answer.
      min_accuracy, accuracy_loss: in the bundle's metric.
      task: the bundle's, which says how differences of accuracies are written.
    """

    deadline_ms: float
    min_accuracy: float | None = None
    accuracy_loss: float = 0.0
    task: BundleTask = CLASSIFICATION

    def is_met(self, plan: Plan) -> bool:
        """Whether a plan has the accuracy that one has to have."""
        return self.min_accuracy is None or (plan.accuracy is not None and plan.accuracy >= self.min_accuracy)

    def accurate(self, plans: Sequence[Plan]) -> list[Plan]:
        """Those of some plans that are accurate enough among them; none only of none."""
        if self.min_accuracy is not None:
            good = [plan for plan in plans if self.is_met(plan)]
            if good:
                return good
        best = max(plans, key=lambda plan: plan.rank, default=None)
        if best is None:
            return []
        if best.accuracy is None:
            return [plan for plan in plans if plan.rank == best.rank]
        least = best.accuracy - self.accuracy_loss - _ROUNDING
        return [plan for plan in plans if plan.accuracy is not None and plan.accuracy >= least]


@dataclass(frozen=True)
class Decision:
    """What to run.

    Attributes:
      goal: what it was chosen for.
      plans: the best one of each switch that can be run, and after it the one without its slow devices, if there are.
      impossible: why each other switch cannot be.
      chosen: one of the plans; None where there are none.
      kept: whether it was chosen because its switch runs, though another is faster.
    """

    goal: Goal
    plans: Sequence[Plan]
    impossible: Mapping[str, str]
    chosen: Plan | None
    kept: bool

    @property
    def rejected(self) -> dict[str, str]:
        """Why each switch that was not chosen was not."""
        reasons = dict(self.impossible)
        in_time = _in_time(self.plans, self.goal)
        accurate = self.goal.accurate(in_time)
        for plan in self.plans:
            # Of two plans of a switch the first speaks for it.
            if self.chosen is None or plan.entry == self.chosen.entry or plan.entry.switch in reasons:
                continue
            if plan not in in_time:
                reason = f"takes {plan.latency_ms:.1f} ms, the deadline is {self.goal.deadline_ms:g} ms"
            elif plan in accurate and self.goal.is_met(plan):
                reason = _why_not_faster(plan, self.chosen, self.goal)
            else:
                reason = _why_not_accurate(plan, max(in_time, key=lambda one: one.rank), self.goal)
            if plan.missing:
                # Of unknown accuracies a whole one is better for that alone.
                is_known = plan.accuracy is not None or self.chosen.missing
                reason = plan.lacks + (f"; the rest: {reason}" if is_known else "")
            reasons[plan.entry.switch] = reason
        return reasons

    @property
    def rule(self) -> str:
        """What the chosen plan was chosen as, as a phrase; empty where there is none."""
        plan, goal = self.chosen, self.goal
        if plan is None:
            return ""
        if len({plan.entry.switch for plan in self.plans} | self.impossible.keys()) == 1:
            return "the only switch"
        if self.kept:
            others = goal.accurate(_in_time(self.plans, goal))
            if any(_is_much_faster(other, plan) for other in others):
                return "kept, as another is much faster only just now"
            return "kept, as no other that is accurate enough is much faster"
        if plan.latency_ms > goal.deadline_ms:
            return "the fastest"
        if plan.accuracy is None:
            return "the one with the most multiply-adds"
        if goal.min_accuracy is not None and goal.is_met(plan):
            return f"the fastest that reaches {accuracy_text(goal.min_accuracy)}"
        if goal.accuracy_loss:
            return f"the fastest within {goal.task.difference_text(goal.accuracy_loss)} of the most accurate"
        return "the most accurate"

    @property
    def lacks(self) -> str:
        """What of the goal the chosen plan does not meet, as a phrase; empty where that is nothing."""
        plan = self.chosen
        if plan is None:
            return ""
        missing = f"though {plan.lacks}" if plan.missing else ""
        return ", ".join(filter(None, [missing, self._lacks_of_goal(plan)]))

    def _lacks_of_goal(self, plan: Plan) -> str:
        goal = self.goal
        if plan.latency_ms > goal.deadline_ms:
            return f"though it is over the deadline of {goal.deadline_ms:g} ms"
        if goal.is_met(plan):
            return ""
        if plan.accuracy is None:
            return "though its accuracy is unknown"
        late = any(goal.is_met(other) for other in self.plans)
        return f"though none reaches {accuracy_text(goal.min_accuracy)}{' within the deadline' if late else ''}"


def patience_ms(expected_ms: float) -> float:
    """How long a device is waited for of which an answer is expected in so many milliseconds."""
    return _PATIENCE * expected_ms + _PATIENCE_MS


def choose(
    plans: Sequence[Plan], impossible: Mapping[str, str], goal: Goal, running: str | None = None, hold: bool = False
) -> Decision:
    """Chooses among the plans that `best_plans` gives; `impossible` are the switches without any.

    Of equally fast plans the most accurate. The switch that is `running` is kept where it is within the deadline and
    accurate enough and the fastest plan is not much faster; with `hold`, however much faster that is.
    """

    def by_speed(plan: Plan) -> tuple[float, ...]:
        return (plan.latency_ms, *(-value for value in plan.rank))

    good = goal.accurate(_in_time(plans, goal))
    chosen = fastest = min(good or plans, key=by_speed, default=None)
    if fastest is not None:
        runs = sorted((plan for plan in good if plan.entry.switch == running), key=by_speed)
        chosen = next((plan for plan in runs if hold or not _is_much_faster(fastest, plan)), fastest)
    return Decision(goal, plans, impossible, chosen, chosen is not fastest)


def _in_time(plans: Sequence[Plan], goal: Goal) -> list[Plan]:
    return [plan for plan in plans if plan.latency_ms <= goal.deadline_ms]


def not_served(slices: Collection[int]) -> str:
    """That these slices are not served, as a phrase."""
    return f"no living device serves slice {', '.join(map(str, slices))}"


def _is_much_faster(plan: Plan, other: Plan) -> bool:
    return plan.latency_ms < _MUCH_FASTER * other.latency_ms


def _why_not_accurate(plan: Plan, best: Plan, goal: Goal) -> str:
    """Why a plan is not accurate enough, where the most accurate one in time is this."""
    if not goal.is_met(plan):
        return f"its accuracy is {accuracy_text(plan.accuracy)}, at least {accuracy_text(goal.min_accuracy)} is wanted"
    if plan.accuracy is None or best.accuracy is None:
        if plan.accuracy == best.accuracy:
            return f"has fewer multiply-adds, {plan.madds:,} against {best.madds:,}"
        return "its accuracy is unknown"
    less = goal.task.difference_text(best.accuracy - plan.accuracy)
    most = f", at most {goal.task.difference_text(goal.accuracy_loss)} may be lost" if goal.accuracy_loss else ""
    return f"is {less} less accurate than {best.entry.switch}{most}"


def _why_not_faster(plan: Plan, chosen: Plan, goal: Goal) -> str:
    """Why a plan that is accurate enough was not chosen."""
    times = f"{plan.latency_ms:.1f} against {chosen.latency_ms:.1f} ms"
    if plan.latency_ms < chosen.latency_ms:
        return f"is faster {'only just now' if _is_much_faster(plan, chosen) else 'by less than a tenth'}, {times}"
    if plan.accuracy is None or chosen.accuracy is None or plan.accuracy <= chosen.accuracy:
        return f"takes longer, {times}"
    more, ratio = goal.task.difference_text(plan.accuracy - chosen.accuracy), plan.latency_ms / chosen.latency_ms
    return f"is {more} more accurate, and takes {ratio:.1f} times as long"
