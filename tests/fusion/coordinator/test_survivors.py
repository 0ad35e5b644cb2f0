"""What a request makes of a dead device, by the accuracies of digits trained without and with live sets."""

from itertools import combinations

import numpy as np
import pytest

from fusion.coordinator.dispatch import Dispatch
from fusion.coordinator.planner import Goal
from tests.fusion.coordinator.fakes import IMAGE, FakeWorker, entry, fleet_of, gone, now, run, until

# Of int8 files on the 359 test images, in the mean over which of the devices are left, by how many are.
NEVER = {"0.5+0.5": {2: 0.9777, 1: 0.8844}, "4x0.25": {4: 0.9805, 3: 0.9387, 2: 0.8672, 1: 0.6463}}
LIVE = {"0.5+0.5": {2: 0.9805, 1: 0.9749}, "4x0.25": {4: 0.9861, 3: 0.9798, 2: 0.9587, 1: 0.9130}}
UNKNOWN: dict[str, dict[int, float]] = {"0.5+0.5": {}, "4x0.25": {}}
MADDS = {"0.5+0.5": [4, 4], "4x0.25": [1, 1, 1, 1]}
POINT = 0.01


def entries_of(table):
    return [
        entry(
            switch,
            madds,
            {live: table[switch][count] for count in table[switch] for live in combinations(range(len(madds)), count)},
        )
        for switch, madds in MADDS.items()
    ]


def quarters(ms=10):
    """Four boards, each with memory for one quarter alone."""
    return [FakeWorker(f"4x0.25-{i}", device=f"quarter {i}", ms=ms) for i in range(4)]


def halves(ms=60):
    return [FakeWorker(f"0.5+0.5-{i}", device=f"half {i}", ms=ms) for i in range(2)]


def request(
    table,
    workers,
    dies=(),
    hangs=(),
    deadline_ms=500,
    loss=POINT,
    slow=None,
    entries=None,
    min_accuracy=None,
    images=1,
):
    """(switch, slices that answered, accuracy, ms, times sent anew); `dies` and `hangs` when all devices are known, and
    the workers `slow` take so many ms from then on."""

    async def story():
        goal = Goal(deadline_ms, min_accuracy, loss)
        async with fleet_of(*workers, entries=entries or entries_of(table), goal=goal) as fleet:
            for one in dies:
                one.refused = one.error = gone()
            for one in hangs:
                one.hanging = one.names
            for one, ms in (slow or {}).items():
                one.ms = ms
            started = now()
            batch = np.repeat(IMAGE, images, axis=0)
            dispatch = Dispatch(fleet, batch, goal, deadline_ms / 1e3, None)
            outcome = await dispatch.run()
            assert outcome.degraded == bool(outcome.missing)
            ms = pytest.approx((now() - started) * 1e3)
            return outcome.entry.switch, tuple(outcome.arrivals), outcome.accuracy, ms, dispatch.retries

    return run(story())


@pytest.mark.parametrize(
    ("table", "deadline_ms", "answer"),
    [
        # At once, of the three that are left: a point less than the halves, which would take 60 ms more.
        (LIVE, 500, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (NEVER, 500, ("0.5+0.5", (0, 1), 0.9777, 70, 1)),
        # There is no time for the halves.
        (LIVE, 50, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (NEVER, 50, ("4x0.25", (0, 1, 2), 0.9387, 10, 0)),
        (UNKNOWN, 50, ("4x0.25", (0, 1, 2), None, 10, 0)),
    ],
)
def test_a_device_dies_in_mid_request(table, deadline_ms, answer):
    boards = quarters()
    assert request(table, [*boards, *halves()], boards[3:], deadline_ms=deadline_ms) == answer


@pytest.mark.parametrize(
    ("table", "loss", "answer"),
    [
        (LIVE, POINT, ("0.5+0.5", (0, 1), 0.9805, 70, 1)),
        (LIVE, 0.03, ("4x0.25", (0, 2), 0.9587, 10, 0)),
        (NEVER, 0.03, ("0.5+0.5", (0, 1), 0.9777, 70, 1)),
    ],
)
def test_two_devices_die_in_mid_request(table, loss, answer):
    boards = quarters()
    assert request(table, [*boards, *halves()], [boards[1], boards[3]], loss=loss) == answer


@pytest.mark.parametrize(
    ("table", "deadline_ms", "loss", "answer"),
    [
        (LIVE, 500, 0.02, ("0.5+0.5", (1,), 0.9749, 20, 0)),
        (NEVER, 500, 0.02, ("4x0.25", (0, 1, 2, 3), 0.9805, 80, 1)),
        # Who wants it more accurate waits for that.
        (LIVE, 500, 0.006, ("4x0.25", (0, 1, 2, 3), 0.9861, 80, 1)),
        # There is no time for four quarters.
        (NEVER, 70, 0.02, ("0.5+0.5", (1,), 0.8844, 20, 0)),
    ],
)
def test_one_half_of_two_is_left(table, deadline_ms, loss, answer):
    boards = halves(20)
    assert request(table, [*quarters(60), *boards], boards[:1], deadline_ms=deadline_ms, loss=loss) == answer


@pytest.mark.parametrize(
    ("table", "others", "answer"),
    [
        # It is waited for twice as long as was expected of it, and 20 ms.
        (LIVE, halves(), ("4x0.25", (0, 1, 2), 0.9798, 40, 0)),
        (LIVE, [], ("4x0.25", (0, 1, 2), 0.9798, 40, 0)),
        (NEVER, halves(), ("0.5+0.5", (0, 1), 0.9777, 100, 1)),
        # It might come yet.
        (NEVER, [], ("4x0.25", (0, 1, 2), 0.9387, 500, 0)),
        (UNKNOWN, [], ("4x0.25", (0, 1, 2), None, 500, 0)),
    ],
)
def test_a_device_hangs_in_mid_request(table, others, answer):
    boards = quarters()
    assert request(table, [*boards, *others], hangs=boards[3:]) == answer


@pytest.mark.parametrize(
    ("table", "others", "answer"),
    [
        (LIVE, [], ("4x0.25", (0, 2, 3), 0.9798, 10, 0)),
        (LIVE, halves(), ("4x0.25", (0, 2, 3), 0.9798, 10, 0)),
        (NEVER, [], ("4x0.25", (0, 2, 3), 0.9387, 10, 0)),
        (NEVER, halves(), ("0.5+0.5", (0, 1), 0.9777, 60, 0)),
        (UNKNOWN, [], ("4x0.25", (0, 2, 3), None, 10, 0)),
    ],
)
def test_a_device_that_was_never_there(table, others, answer):
    """None has its slice, and the others are not kept from answering."""
    boards = quarters()
    boards[1].error = gone()
    assert request(table, [*boards, *others]) == answer


def test_a_slice_is_sent_anew_though_another_has_no_device():
    boards = quarters()
    spare = FakeWorker("4x0.25-1", device="spare", ms=30)
    boards[3].error = gone()
    answer = ("4x0.25", (0, 1, 2), 0.9387, 40, 1)
    assert request(NEVER, [*boards, spare], dies=[boards[1]]) == answer


def test_a_device_that_is_left_hangs_too():
    """What was good enough is not waited for till the deadline."""

    def answer(loss):
        boards = quarters()
        return request(LIVE, [*boards, *halves()], boards[3:], boards[2:3], loss=loss)

    assert answer(0.03) == ("4x0.25", (0, 1), 0.9587, 40, 0)
    assert answer(POINT) == ("0.5+0.5", (0, 1), 0.9805, 100, 1)


@pytest.mark.parametrize(
    ("count", "early", "accuracy", "ms"),
    [(2, True, 0.9861, 20), (3, True, 0.9861, 30), (4, False, 0.9798, 30)],
)
def test_what_is_settled_without_a_dead_board_is_no_worse_for_it(count, early, accuracy, ms):
    """Settled by so many slices, of the three that there are."""
    boards = [FakeWorker(f"4x0.25-{i}", device=f"quarter {i}", ms=10 * (i + 1)) for i in range(4)]
    boards[3].error = gone()

    async def story():
        async with fleet_of(*boards, entries=entries_of(LIVE)) as fleet:
            started = now()
            dispatch = Dispatch(fleet, IMAGE, Goal(500), 0.5, lambda one, contributions: len(contributions) >= count)
            outcome = await dispatch.run()
            assert (now() - started) * 1e3 == pytest.approx(ms)
            return outcome.early, outcome.degraded, outcome.accuracy

    assert run(story()) == (early, not early, accuracy)


def test_of_what_was_sent_anew_the_first_is_no_answer_where_more_may_come():
    def answer(ms, loss=POINT):
        boards, pair = quarters(), halves(20)
        pair[0].error = gone()
        return request(NEVER, [*boards, *pair], slow=dict.fromkeys(boards[2:], ms), loss=loss)

    assert answer(75) == ("4x0.25", (0, 1, 2, 3), 0.9805, 75, 1)
    # Nothing more comes: it is waited for all the same.
    assert answer(5000) == ("0.5+0.5", (1,), 0.8844, 500, 1)
    # What loses little is an answer.
    assert answer(75, 0.1) == ("0.5+0.5", (1,), 0.8844, 60, 1)


def test_a_slice_that_was_sent_anew_is_no_answer_where_a_slow_one_may_come():
    def answer(ms, loss=POINT):
        boards = quarters()
        spare = FakeWorker("4x0.25-1", device="spare", ms=30)
        slow = {boards[1]: 45, boards[3]: ms}
        return request(NEVER, [*boards, spare], dies=[boards[1]], slow=slow, loss=loss)

    assert answer(80) == ("4x0.25", (0, 1, 2, 3), 0.9805, 80, 1)
    assert answer(65) == ("4x0.25", (0, 1, 2, 3), 0.9805, 70, 1)
    assert answer(80, 0.05) == ("4x0.25", (0, 1, 2), 0.9387, 70, 1)


@pytest.mark.parametrize("others", [[], [FakeWorker("0.5+0.5-1", device="half", ms=3)]])
@pytest.mark.parametrize(("ms", "answered"), [(40, 95), (30, 85)])
def test_time_is_left_for_a_whole_switch_and_not_for_what_nobody_wants(others, ms, answered):
    """Quarters of 50 ms, one of which hangs."""
    boards, whole = quarters(50), FakeWorker("1.0-0", device="whole", ms=ms)
    table = [*entries_of(NEVER), entry("1.0", [16], {(0,): 0.955})]
    table[0] = entry("0.5+0.5", MADDS["0.5+0.5"], {(0,): 0.5, (1,): 0.5})
    answer = request(NEVER, [*boards, whole, *others], hangs=boards[3:], deadline_ms=100, loss=0.0, entries=table)
    assert answer == ("1.0", (0,), 0.955, answered, 1)


@pytest.mark.parametrize(("dies_at", "ms"), [(5, 10), (10, 10), (12, 12)])
@pytest.mark.parametrize("pair", [halves(), halves(400), []])
def test_whatever_the_order_a_dead_board_keeps_no_answer_waiting(dies_at, ms, pair):
    boards = quarters()
    answer = request(NEVER, [*boards, *pair], boards[3:], deadline_ms=50, slow={boards[3]: dies_at})
    assert answer == ("4x0.25", (0, 1, 2), 0.9387, ms, 0)


@pytest.mark.parametrize(
    ("table", "comes_at", "answer"),
    [
        (LIVE, 50, ("4x0.25", (0, 1, 2), 0.9798, 50, 1)),
        (LIVE, 139, ("4x0.25", (0, 1, 2), 0.9798, 139, 1)),
        (LIVE, 150, ("0.5+0.5", (0, 1), 0.9805, 140, 1)),
        (NEVER, 50, ("0.5+0.5", (0, 1), 0.9777, 140, 1)),
    ],
)
def test_a_slow_board_answers_while_another_switch_runs(table, comes_at, answer):
    """Another one hangs."""
    boards = quarters()
    found = request(table, [*boards, *halves(100)], hangs=boards[3:], slow={boards[2]: comes_at})
    assert found == answer


@pytest.mark.parametrize("spare_ms", [100, 200])
def test_a_slow_board_answers_while_a_spare_one_runs(spare_ms):
    boards, spare = quarters(), FakeWorker("4x0.25-3", device="spare", ms=spare_ms)
    answer = request(LIVE, [*boards, spare], hangs=boards[3:], slow={boards[2]: 50})
    assert answer == ("4x0.25", (0, 1, 2), 0.9798, 50, 1)


@pytest.mark.parametrize("dies_at", [60, 80, 90])
def test_three_of_four_are_enough_whichever_they_are(dies_at):
    """Slice 2 was sent to a spare board, which dies; slice 3 is slow, and was not waited for any more."""
    boards, spare = quarters(), FakeWorker("4x0.25-2", device="spare", ms=100)
    slow = {boards[3]: 80, spare: dies_at - 40}
    answer = request(LIVE, [*boards, spare], [spare], boards[2:3], slow=slow)
    assert answer == ("4x0.25", (0, 1, 3), 0.9798, 80, 1)


def test_who_allows_a_large_loss_still_waits_for_those_that_are_in_time():
    boards = quarters()
    slow = {boards[0]: 2, boards[1]: 3, boards[3]: 4}
    assert request(LIVE, boards, boards[3:], slow=slow, loss=0.03) == ("4x0.25", (0, 1, 2), 0.9798, 10, 0)


@pytest.mark.parametrize(
    ("table", "slow_ms", "answer"),
    [
        # As without it.
        (LIVE, 300, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (LIVE, 600, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (NEVER, 600, ("4x0.25", (0, 1, 2), 0.9387, 10, 0)),
        (UNKNOWN, 600, ("4x0.25", (0, 1, 2), None, 10, 0)),
        # It is worth the time.
        (NEVER, 300, ("4x0.25", (0, 1, 2, 3), 0.9805, 300, 0)),
        (UNKNOWN, 300, ("4x0.25", (0, 1, 2, 3), None, 300, 0)),
        # As long as any is waited for.
        (LIVE, 40, ("4x0.25", (0, 1, 2, 3), 0.9861, 40, 0)),
    ],
)
def test_a_board_that_is_known_to_be_slow(table, slow_ms, answer):
    boards = quarters()
    boards[3].ms = slow_ms
    assert request(table, boards) == answer


@pytest.mark.parametrize(
    ("table", "spare_ms", "answer"),
    [
        (LIVE, 310, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (LIVE, 300, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        # Of the two the faster is worth the time, or is quick enough.
        (NEVER, 310, ("4x0.25", (0, 1, 2, 3), 0.9805, 300, 0)),
        (LIVE, 35, ("4x0.25", (0, 1, 2, 3), 0.9861, 35, 0)),
    ],
)
def test_two_boards_that_are_known_to_be_slow_have_the_same_slice(table, spare_ms, answer):
    boards, spare = quarters(), FakeWorker("4x0.25-3", device="spare", ms=spare_ms)
    boards[3].ms = 300
    assert request(table, [*boards, spare]) == answer


@pytest.mark.parametrize(
    ("least", "answer"),
    [
        (0.975, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (0.9798, ("4x0.25", (0, 1, 2), 0.9798, 10, 0)),
        (0.98, ("0.5+0.5", (0, 1), 0.9805, 70, 1)),
        # Nothing has it; the rule without it decides.
        (0.99, ("0.5+0.5", (0, 1), 0.9805, 70, 1)),
    ],
)
def test_survivors_that_are_as_accurate_as_was_asked_for(least, answer):
    boards = quarters()
    assert request(LIVE, [*boards, *halves()], boards[3:], loss=0.0, min_accuracy=least) == answer


@pytest.mark.parametrize(("images", "ms"), [(2, 20), (5, 50)])
def test_several_images(images, ms):
    boards = quarters()
    answer = ("4x0.25", (0, 1, 2), 0.9798, ms, 0)
    assert request(LIVE, [*boards, *halves()], boards[3:], deadline_ms=1000, images=images) == answer


def test_a_board_that_comes_back():
    boards = quarters()

    async def story():
        async with fleet_of(*boards, entries=entries_of(LIVE)) as fleet:

            async def ask():
                outcome = await Dispatch(fleet, IMAGE, Goal(500, accuracy_loss=POINT), 0.5, None).run()
                return outcome.missing, outcome.accuracy

            assert await ask() == ((), 0.9861)
            boards[3].refused = boards[3].error = gone()
            assert await ask() == await ask() == ((3,), 0.9798)
            boards[3].refused = boards[3].error = None
            await until(lambda: len(fleet.latencies()) == 4)
            assert await ask() == ((), 0.9861)

    run(story())


@pytest.mark.parametrize(
    ("half_ms", "meanwhile"),
    # After the first request on the same boards, which is sooner, or at once on the others.
    [(60, []), (15, [("half 0", "half 1")])],
)
def test_what_requests_run_meanwhile_where_a_slice_has_no_device(half_ms, meanwhile):
    boards, pair = quarters(), halves(half_ms)
    boards[1].error = gone()
    goal = Goal(500, accuracy_loss=POINT)

    async def story():
        async with fleet_of(*boards, *pair, entries=entries_of(LIVE), goal=goal) as fleet:
            decision = fleet.decide(goal)
            assert decision.chosen.devices == ("quarter 0", "", "quarter 2", "quarter 3")
            assert [plan.devices for plan in fleet.meanwhile(goal, decision)] == meanwhile

    run(story())
