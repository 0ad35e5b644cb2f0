"""The planner against brute force, and what it says of what it did not choose."""

import itertools
import random
import sys
from dataclasses import replace

import pytest

from fusion.bundle.contents import SliceModel, SwitchEntry
from fusion.bundle.tasks import TASKS
from fusion.coordinator import assignment, planner
from fusion.coordinator.planner import Goal

WIDTHS = {"1.0": [8], "0.5+0.5": [4, 4], "0.5+0.25+0.25": [4, 2, 2], "4x0.25": [2, 2, 2, 2]}
ACCURACY = {"1.0": 0.8, "0.5+0.5": 0.77, "0.5+0.25+0.25": 0.75, "4x0.25": 0.7}
# What each missing slice costs.
MISSED = 0.02


def accuracy_of(one, slices):
    return ACCURACY[one.switch] - MISSED * (len(one.slices) - len(slices))


def by_model(latencies):
    """Latencies as the planner takes them, of those by device and model."""
    found: dict[str, dict[str, float]] = {}
    for (device, model), ms in latencies.items():
        found.setdefault(model, {})[device] = ms
    return found


def decide(goal, latencies, busy, accuracy, running=None):
    return planner.choose(*assignment.best_plans(SWITCHES, accuracy, by_model(latencies), busy), goal, running)


def choose(goal, latencies, busy, accuracy=None, running=None):
    """The chosen plan, and the reasons against the other switches."""
    decision = decide(goal, latencies, busy, accuracy or accuracy_of, running)
    return decision.chosen, decision.rejected


def entry(switch, widths):
    slices = [SliceModel(i, "0", "1", f"{switch}-{i}", w * w, w, {}) for i, w in enumerate(widths)]
    return SwitchEntry(switch, switch, sum(w * w for w in widths), None, tuple(slices))


SWITCHES = [entry(switch, widths) for switch, widths in WIDTHS.items()]


def table(rng, devices, served=1.0):
    """Latencies of devices of random speed, each with a part of the slices."""
    found = {}
    for device in range(devices):
        speed = rng.uniform(0.5, 4)
        for one in SWITCHES:
            for part in one.slices:
                if rng.random() < served:
                    found[f"pi-{device}", part.model] = speed * part.madds * rng.uniform(0.8, 1.2)
    return found


def ends(one, devices, latencies, busy):
    """When each device is done with an assignment."""
    found: dict[str, float] = {}
    for part, device in zip(one.slices, devices, strict=True):
        if not device:
            continue
        found[device] = found.get(device, busy.get(device, 0)) + latencies[device, part.model]
    return found


def best_of(one, names, latencies, busy):
    """(latency, work, devices) of a switch on these devices, of the slices that any of them has; None of none."""
    options = [[name for name in names if (name, part.model) in latencies] or [""] for part in one.slices]
    found = []
    for devices in itertools.product(*options):
        parts = zip(one.slices, devices, strict=True)
        work = sum(latencies[device, part.model] for part, device in parts if device)
        if any(devices):
            found.append((max(ends(one, devices, latencies, busy).values()), work, devices))
    return min(found, default=None)


def brute_force(latencies, busy, goal, running):
    """(latency, -accuracy, switch) by trying every assignment of every switch, of the slices that any device has; also
    without the slowest devices, where slices are lost by that and the rest is much faster."""
    plans = []
    for one in SWITCHES:
        names = {device for device, _ in latencies}
        found = first = best_of(one, sorted(names), latencies, busy)
        while found is not None:
            latency, _, devices = found
            is_less = sum(map(bool, devices)) < sum(map(bool, first[2]))
            if found is first or (is_less and first[0] > 2 * latency + 20):
                plans.append((latency, -accuracy_of(one, list(filter(None, devices))), one.switch))
                if found is not first:
                    break
            done = ends(one, devices, latencies, busy)
            names.remove(max(done, key=done.get))
            found = best_of(one, sorted(names), latencies, busy)
    in_time = [plan for plan in plans if plan[0] <= goal.deadline_ms]
    if not in_time:
        return min(plans, default=None)
    good = [plan for plan in in_time if goal.min_accuracy is not None and -plan[1] >= goal.min_accuracy]
    if not good:
        # In hundredths of a point, which are whole numbers.
        most, loss = round(1e4 * max(-plan[1] for plan in in_time)), round(1e4 * goal.accuracy_loss)
        good = [plan for plan in in_time if most - round(-1e4 * plan[1]) <= loss]
    fastest = min(good)
    kept = min((plan for plan in good if plan[2] == running), default=fastest)
    return kept if 10 * fastest[0] >= 9 * kept[0] else fastest


@pytest.mark.parametrize("seed", range(200))
def test_chooses_as_brute_force_does(seed):
    rng = random.Random(seed)
    latencies = table(rng, rng.randint(1, 4), rng.choice([1.0, 0.6]))
    busy = {f"pi-{i}": rng.uniform(0, 100) for i in range(4) if rng.random() < 0.4}
    goal = Goal(rng.uniform(5, 300), rng.choice([None, None, 0.72, 0.76, 0.9]), rng.choice([0.0, 0.02, 0.03, 0.05, 1]))
    running = rng.choice([None, *WIDTHS])
    chosen, others = choose(goal, latencies, busy, running=running)
    wanted = brute_force(latencies, busy, goal, running)
    if wanted is None:
        assert chosen is None
        return
    assert (chosen.entry.switch, chosen.latency_ms) == (wanted[2], pytest.approx(wanted[0]))
    assert max(ends(chosen.entry, chosen.devices, latencies, busy).values()) == pytest.approx(chosen.latency_ms)
    assert set(others) == set(WIDTHS) - {chosen.entry.switch}


def left(*models, ms=4.0):
    """Latencies of a device for each of some slices."""
    return {(f"pi-{i}", model): ms for i, model in enumerate(models)}


QUARTERS = ("4x0.25-0", "4x0.25-1", "4x0.25-3")


def test_a_switch_is_run_without_a_slice_that_no_device_serves():
    decision = decide(Goal(100), left(*QUARTERS), {}, accuracy_of)
    plan = decision.chosen
    assert (plan.entry.switch, plan.devices, plan.latency_ms) == ("4x0.25", ("pi-0", "pi-1", "", "pi-2"), 4.0)
    assert (plan.missing, plan.answering, plan.madds) == ((2,), {0, 1, 3}, 12)
    assert plan.accuracy == pytest.approx(0.68) and decision.lacks == "though no living device serves slice 2"
    assert decision.rejected["0.5+0.5"] == "no living device serves slice 0, 1"


@pytest.mark.parametrize(
    ("slow_ms", "goal", "missing", "lacks"),
    [
        (300.0, Goal(500, accuracy_loss=0.02), (3,), "though slice 3 would take 300.0 ms"),
        (28.1, Goal(500, accuracy_loss=0.02), (3,), "though slice 3 would take 28.1 ms"),
        (28.0, Goal(500, accuracy_loss=0.02), (), ""),
        (300.0, Goal(500, accuracy_loss=0.01), (), ""),
        (300.0, Goal(500, 0.69), (), ""),
        (600.0, Goal(500, 0.69), (3,), "though slice 3 would take 600.0 ms, though none reaches 69.00 % within the"),
    ],
)
def test_a_board_that_takes_far_longer_than_the_others(slow_ms, goal, missing, lacks):
    """The others take 4 ms; each board has one slice."""
    latencies = left(*(f"4x0.25-{i}" for i in range(3))) | {("slow", "4x0.25-3"): slow_ms}
    decision = decide(goal, latencies, {}, accuracy_of)
    plan = decision.chosen
    assert (plan.entry.switch, plan.missing) == ("4x0.25", missing)
    assert plan.latency_ms == (4.0 if missing else slow_ms) and decision.lacks.startswith(lacks)
    assert bool(decision.lacks) == bool(missing) and set(decision.rejected) == set(WIDTHS) - {"4x0.25"}
    # Where another has the slice too, it is given that.
    spare = latencies | {("spare", "4x0.25-3"): 5.0}
    assert decide(goal, spare, {}, accuracy_of).chosen.missing == ()


@pytest.mark.parametrize(
    ("slow", "missing", "lacks"),
    [
        ({("a", 3): 300.0, ("b", 3): 310.0}, (3,), "though slice 3 would take 300.0 ms"),
        ({("a", 3): 300.0, ("b", 3): 300.0, ("c", 3): 300.0}, (3,), "though slice 3 would take 300.0 ms"),
        # By two boards at once, and by one after the other.
        ({("a", 2): 300.0, ("a", 3): 300.0, ("b", 2): 310.0, ("b", 3): 310.0}, (2, 3), "though slice 2, 3 would take"),
        ({("a", 2): 300.0, ("b", 2): 310.0, ("b", 3): 290.0}, (2, 3), "though slice 2, 3 would take 300.0 ms"),
        # One of the boards is quick enough.
        ({("a", 3): 300.0, ("b", 3): 28.0}, (), ""),
    ],
)
def test_a_slice_that_slow_boards_alone_have_is_not_waited_for(slow, missing, lacks):
    """However many they are; the others take 4 ms."""
    latencies = left(*(f"4x0.25-{i}" for i in range(4) if i not in {number for _, number in slow}))
    latencies |= {(device, f"4x0.25-{number}"): ms for (device, number), ms in slow.items()}
    decision = decide(Goal(1000, accuracy_loss=0.05), latencies, {}, accuracy_of)
    assert (decision.chosen.entry.switch, decision.chosen.missing) == ("4x0.25", missing)
    assert decision.lacks.startswith(lacks) and bool(decision.lacks) == bool(missing)
    waits = decide(Goal(1000), latencies, {}, accuracy_of)
    assert (waits.chosen.missing, waits.lacks) == ((), "")


def test_boards_that_are_gone_and_boards_that_are_slow():
    latencies = left("4x0.25-0") | {("slow", "4x0.25-1"): 300.0, ("slower", "4x0.25-3"): 400.0}
    decision = decide(Goal(1000, accuracy_loss=1.0), latencies, {}, accuracy_of)
    assert decision.chosen.missing == (1, 2, 3)
    assert decision.lacks == "though no living device serves slice 2 and slice 1, 3 would take 400.0 ms"
    kept = decide(Goal(1000, accuracy_loss=0.01), latencies, {}, accuracy_of)
    assert (kept.chosen.missing, kept.lacks) == ((2,), "though no living device serves slice 2")
    with_others = decide(Goal(1000), latencies | {("a", "1.0-0"): 5.0}, {}, accuracy_of)
    assert with_others.chosen.entry.switch == "1.0"
    reason = "no living device serves slice 2; the rest: is 12 points less accurate than 1.0"
    assert with_others.rejected["4x0.25"] == reason


@pytest.mark.parametrize(("loss", "switch"), [(0.0, "1.0"), (0.119, "1.0"), (0.12, "4x0.25")])
def test_of_whole_switches_and_others_the_accuracy_decides(loss, switch):
    decision = decide(Goal(100, accuracy_loss=loss), left(*QUARTERS) | {("pi-9", "1.0-0"): 60.0}, {}, accuracy_of)
    assert decision.chosen.entry.switch == switch
    if switch == "1.0":
        begins = "no living device serves slice 2; the rest: is 12 points less accurate than 1.0"
        assert decision.rejected["4x0.25"].startswith(begins)
    late = decide(Goal(50, accuracy_loss=loss), left(*QUARTERS) | {("pi-9", "1.0-0"): 60.0}, {}, accuracy_of)
    assert late.chosen.entry.switch == "4x0.25"
    both = "though no living device serves slice 2, though none reaches 90.00 %"
    assert decide(Goal(50, 0.9), left(*QUARTERS), {}, accuracy_of).lacks == both


def test_without_accuracies_whole_switches_come_first_then_what_is_left_of_most():
    def unknown(one, slices):
        return None

    whole, half = left(*(f"4x0.25-{i}" for i in range(4))), left("0.5+0.5-1", ms=16.0)
    for latencies, missing in ((whole | half, ()), (left(*QUARTERS), (2,))):
        plan = decide(Goal(100), latencies, {}, unknown).chosen
        assert (plan.entry.switch, plan.missing) == ("4x0.25", missing)
    assert decide(Goal(100), whole | half, {}, unknown).rejected["0.5+0.5"] == "no living device serves slice 0"
    decision = decide(Goal(100), left(*QUARTERS) | {("pi-9", "0.5+0.5-1"): 16.0}, {}, unknown)
    assert (decision.chosen.entry.switch, decision.chosen.missing) == ("0.5+0.5", (0,))
    reason = "no living device serves slice 2; the rest: has fewer multiply-adds, 12 against 16"
    assert decision.rejected["4x0.25"] == reason


def test_a_fast_board_gets_the_half_and_slow_ones_the_quarters():
    speeds = {"slow": 3.0, "fast": 1.0, "slower": 3.1}
    latencies = {(d, p.model): s * p.madds for d, s in speeds.items() for p in SWITCHES[2].slices}
    found = assignment.assign([part.model for part in SWITCHES[2].slices], by_model(latencies), {})
    assert found is not None
    devices, latency = found
    assert (devices[0], set(devices[1:])) == ("fast", {"slow", "slower"})
    assert latency == 16


def test_a_device_with_work_before_it_is_spared():
    latencies = {"4x0.25-0": {f"pi-{i}": 5.0 for i in range(3)}}
    assert assignment.assign(["4x0.25-0"], latencies, {"pi-0": 7, "pi-1": 1}) == (("pi-2",), 5.0)
    assert assignment.assign(["4x0.25-0"], latencies, {"pi-0": 7, "pi-1": 1, "pi-2": 9}) == (("pi-1",), 6.0)


def four_boards():
    """Latencies of four equal boards: of 64 ms for the whole network, 16 for halves and 4 for quarters."""
    return {(f"pi-{i}", part.model): float(part.madds) for i in range(4) for one in SWITCHES for part in one.slices}


@pytest.mark.parametrize(
    ("loss", "switch", "devices"),
    [(0.0, "1.0", 1), (0.0299, "1.0", 1), (0.03, "0.5+0.5", 2), (0.05, "0.5+0.5", 2), (0.1, "4x0.25", 4)],
)
def test_the_fastest_of_those_that_lose_so_much(loss, switch, devices):
    chosen, _ = choose(Goal(1000, accuracy_loss=loss), four_boards(), {})
    assert (chosen.entry.switch, len(set(chosen.devices))) == (switch, devices)


def test_a_loss_is_against_the_most_accurate_plan_within_the_deadline():
    assert choose(Goal(60, accuracy_loss=0.03), four_boards(), {})[0].entry.switch == "0.5+0.5"
    assert choose(Goal(60, accuracy_loss=0.07), four_boards(), {})[0].entry.switch == "4x0.25"
    # That of a switch that no living device serves counts no more than that of one that would be late.
    halves = {key: ms for key, ms in four_boards().items() if not key[1].startswith("1.0")}
    assert choose(Goal(1000, accuracy_loss=0.07), halves, {})[0].entry.switch == "4x0.25"


@pytest.mark.parametrize("accuracy", [0.8046, 0.7777, 0.7601, 0.5012, 31.27])
def test_a_loss_of_as_much_as_is_allowed_is_none_too_much(accuracy):
    """Whatever the differences of their binary fractions are."""
    for loss in (0.01, 0.1, 0.0001):
        accuracies = {"1.0": accuracy, "0.5+0.5": round(accuracy - loss, 4), "4x0.25": round(accuracy - loss - 1e-4, 4)}
        plans, _ = assignment.best_plans(SWITCHES, lambda one, slices: None, by_model(four_boards()), {})
        known = [replace(plan, accuracy=accuracies.get(plan.entry.switch)) for plan in plans]
        chosen = planner.choose(known, {}, Goal(100, accuracy_loss=loss)).chosen
        assert chosen is not None and chosen.entry.switch == "0.5+0.5"


def test_one_without_an_accuracy_is_not_near_any():
    accuracies = {"0.5+0.5": 0.7, "4x0.25": None}
    chosen, said = choose(
        Goal(100, accuracy_loss=1.0), four_boards(), {}, lambda one, slices: accuracies.get(one.switch)
    )
    assert (chosen.entry.switch, said["4x0.25"]) == ("0.5+0.5", "its accuracy is unknown")


def test_the_switch_that_runs_is_kept_while_no_other_is_much_faster():
    goal, latencies = Goal(1000, accuracy_loss=0.05), four_boards()
    for first_half, switch in ((17.7, "0.5+0.25+0.25"), (17.8, "0.5+0.5")):
        for i in range(4):
            latencies[f"pi-{i}", "0.5+0.25+0.25-0"] = first_half
        decision = decide(goal, latencies, {}, accuracy_of, running="0.5+0.25+0.25")
        assert decision.chosen.entry.switch == switch
        assert choose(goal, latencies, {})[0].entry.switch == "0.5+0.5"
        if switch == "0.5+0.25+0.25":
            assert decision.rule == "kept, as no other that is accurate enough is much faster"
            assert decision.rejected["0.5+0.5"] == "is faster by less than a tenth, 16.0 against 17.7 ms"
        else:
            # What runs and is the fastest too is not kept for anything.
            again = decide(goal, latencies, {}, accuracy_of, running="0.5+0.5")
            assert again.rule == decision.rule == "the fastest within 5 points of the most accurate"
        plans = assignment.best_plans(SWITCHES, accuracy_of, by_model(latencies), {})
        held = planner.choose(*plans, goal, "0.5+0.25+0.25", hold=True)
        assert held.chosen is not None and held.chosen.entry.switch == "0.5+0.25+0.25"
    assert held.rule == "kept, as another is much faster only just now"
    assert held.rejected["0.5+0.5"] == "is faster only just now, 16.0 against 17.8 ms"
    # One that is not accurate enough, or late, or cannot be run, is not kept.
    for goal in (Goal(1000, accuracy_loss=0.03), Goal(60, 0.76), Goal(15, accuracy_loss=0.05), Goal(17, 0.9)):
        assert choose(goal, latencies, {}, running="0.5+0.25+0.25")[0] == choose(goal, latencies, {})[0]
        assert planner.choose(*plans, goal, "0.5+0.25+0.25", hold=True).chosen == choose(goal, latencies, {})[0]


def test_says_why_others_lost():
    latencies = {("a", part.model): float(part.madds) for one in SWITCHES[:3] for part in one.slices}

    def reasons(goal):
        chosen, said = choose(goal, latencies, {})
        return chosen.entry.switch, said

    assert reasons(Goal(100)) == (
        "1.0",
        {
            "0.5+0.5": "is 3 points less accurate than 1.0",
            "0.5+0.25+0.25": "is 5 points less accurate than 1.0",
            "4x0.25": "no living device serves slice 0, 1, 2, 3",
        },
    )
    chosen, said = reasons(Goal(50))
    assert (chosen, said["1.0"]) == ("0.5+0.5", "takes 64.0 ms, the deadline is 50 ms")
    chosen, said = reasons(Goal(100, 0.75))
    assert (chosen, said["1.0"]) == ("0.5+0.25+0.25", "is 5 points more accurate, and takes 2.7 times as long")
    chosen, said = reasons(Goal(100, accuracy_loss=0.035))
    assert (chosen, said["1.0"]) == ("0.5+0.5", "is 3 points more accurate, and takes 2.0 times as long")
    assert said["0.5+0.25+0.25"] == "is 5 points less accurate than 1.0, at most 3.5 points may be lost"
    chosen, said = reasons(Goal(100, 0.76))
    assert (chosen, said["0.5+0.25+0.25"]) == ("0.5+0.5", "its accuracy is 75.00 %, at least 76.00 % is wanted")


@pytest.mark.parametrize(
    ("goal", "lacks"),
    [
        (Goal(100), ""),
        (Goal(100, 0.8), ""),
        (Goal(100, 0.99), "though none reaches 99.00 %"),
        (Goal(50, 0.8), "though none reaches 80.00 % within the deadline"),
        (Goal(5), "though it is over the deadline of 5 ms"),
        (Goal(5, 0.99), "though it is over the deadline of 5 ms"),
    ],
)
def test_says_what_the_chosen_plan_lacks(goal, lacks):
    latencies = {("a", part.model): float(part.madds) for one in SWITCHES for part in one.slices}
    assert decide(goal, latencies, {}, accuracy_of).lacks == lacks


def test_without_accuracies_none_is_reached():
    latencies = {("a", part.model): 1.0 for one in SWITCHES for part in one.slices}
    for least, lacks in ((None, ""), (0.5, "though its accuracy is unknown")):
        assert decide(Goal(100, least), latencies, {}, lambda one, slices: None).lacks == lacks
    assert decide(Goal(1), {}, {}, lambda one, slices: None).lacks == ""


def test_without_accuracies_more_multiply_adds_are_better():
    latencies = {("a", part.model): 1.0 for one in SWITCHES for part in one.slices}
    chosen, said = choose(Goal(100), latencies, {}, lambda one, slices: None)
    assert chosen.entry.switch == "1.0"
    assert said["0.5+0.5"] == "has fewer multiply-adds, 32 against 64"


def test_of_equal_accuracies_the_faster_is_better_then_more_multiply_adds():
    latencies = {("a", part.model): 1.0 for one in SWITCHES for part in one.slices}
    chosen, said = choose(Goal(100), latencies, {}, lambda one, slices: 0.5)
    assert chosen.entry.switch == "1.0"
    assert said["0.5+0.5"] == "takes longer, 2.0 against 1.0 ms"
    latencies |= {("b", "0.5+0.5-0"): 0.5, ("c", "0.5+0.5-1"): 0.5}
    assert choose(Goal(100), latencies, {}, lambda one, slices: 0.5)[0].entry.switch == "0.5+0.5"
    latencies |= {("b", "0.5+0.5-0"): 1.0}
    assert choose(Goal(100), latencies, {}, lambda one, slices: 0.5)[0].entry.switch == "1.0"


def test_of_super_resolution_it_is_said_in_decibels():
    task, psnr = TASKS["super_resolution"], {"1.0": 31.05, "0.5+0.5": 30.97}
    goal = Goal(100, accuracy_loss=task.accuracy_loss / task.accuracy_scale, task=task)
    decision = decide(goal, four_boards(), {}, lambda one, slices: psnr.get(one.switch, 30.0))
    assert (decision.chosen.entry.switch, decision.rule) == (
        "0.5+0.5",
        "the fastest within 0.1 dB of the most accurate",
    )
    assert decision.rejected["1.0"] == "is 0.08 dB more accurate, and takes 4.0 times as long"
    assert decision.rejected["4x0.25"] == "is 1.05 dB less accurate than 1.0, at most 0.1 dB may be lost"


@pytest.mark.parametrize(
    ("goal", "rule"),
    [
        (Goal(100), "the most accurate"),
        (Goal(100, accuracy_loss=0.01), "the fastest within 1 point of the most accurate"),
        (Goal(100, accuracy_loss=0.005), "the fastest within 0.5 points of the most accurate"),
        (Goal(100, 0.75), "the fastest that reaches 75.00 %"),
        (Goal(100, 0.99), "the most accurate"),
        (Goal(5, accuracy_loss=0.01), "the fastest"),
    ],
)
def test_says_which_rule_chose(goal, rule):
    latencies = {("a", part.model): float(part.madds) for one in SWITCHES for part in one.slices}
    assert decide(goal, latencies, {}, accuracy_of).rule == rule
    if goal == Goal(100):
        assert decide(goal, latencies, {}, lambda one, slices: None).rule == "the one with the most multiply-adds"
        plans, impossible = assignment.best_plans(SWITCHES[:1], lambda one, slices: None, by_model(latencies), {})
        assert planner.choose(plans, impossible, goal).rule == "the only switch"
        assert planner.choose([], {}, goal).rule == ""


def test_nothing_can_be_run():
    chosen, said = choose(Goal(100), {}, {})
    assert chosen is None
    assert said["0.5+0.5"] == "no living device serves slice 0, 1"


def steps(function, *arguments):
    """How many lines of Python a call runs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def test_many_devices_with_work_before_them_are_planned_in_few_steps():
    """The event loop of the coordinator waits for every plan. A step is a line of Python, some tens of nanoseconds."""
    rng = random.Random(3)
    models = [f"s{i}" for i in range(4)]
    most = 0
    for _ in range(400):
        speeds = [rng.choice([rng.uniform(1, 10), 5, rng.uniform(4, 6)]) for _ in range(50)]
        latencies = {(f"d{i}", model): ms for i, ms in enumerate(speeds) for model in models}
        busy = {f"d{i}": rng.choice([0.0, rng.uniform(0, 60)]) for i in range(50)}
        most = max(most, steps(assignment.assign, models, by_model(latencies), busy))
    assert most < 10_000
