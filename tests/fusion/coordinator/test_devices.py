"""A watched device whose worker a test makes up."""

import asyncio

import numpy as np
import pytest

from fusion.coordinator.devices import DOWN, UP
from tests.fusion.coordinator.fakes import IMAGE, FakeWorker, device_of, entry, gone, now, refusal, run, until

ENTRIES = [entry("m", [16]), entry("wide", [64])]
SMALL, WIDE = "m-0", "wide-0"


def tell(story, *names, same_worker=lambda device: None, **worker_options):
    """Runs `story(worker, device)` with a device that is watched and up."""

    async def main():
        worker = FakeWorker(*names or (SMALL,), **worker_options)
        device = device_of(worker, ENTRIES, same_worker)
        watch = asyncio.create_task(device.watch())
        await until(lambda: device.health.state == UP)
        assert worker.asked == [name for name in names or (SMALL,) for _ in range(2)]
        worker.asked.clear()
        await story(worker, device)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    run(main())


async def hang(worker, device, model, images=IMAGE):
    """A request that the device does not answer."""
    worker.hanging = {model}
    request = device.infer(model, images, 3600)
    await asyncio.sleep(0)
    return request


async def cancel(request):
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


async def fail(device, model=SMALL):
    await asyncio.gather(device.infer(model, IMAGE, 60), return_exceptions=True)


def test_no_exception_ends_the_watch():
    async def story(worker, device):
        worker.error = ValueError("an odd one")
        await until(lambda: device.health.state == DOWN)
        assert device.health.reason == "device a at http://h:1: ValueError while looking at it."
        worker.error = None
        await until(lambda: device.health.state == UP)

    tell(story)


def test_a_device_that_is_gone_is_tried_again_with_growing_pauses():
    async def story(worker, device):
        worker.error = gone()
        await until(lambda: device.health.state == DOWN)
        first = len(worker.looks) - 1
        await asyncio.sleep(100)
        pauses = np.diff(worker.looks[first:])
        for i, pause in enumerate(pauses):
            expected = min(0.2 * 2**i, 10.0)
            assert 0.499 * expected <= pause <= 1.501 * expected
        assert len(pauses) > 9

    tell(story)


@pytest.mark.parametrize(
    ("errors", "stays"),
    [([refusal(504)], True), ([refusal(504)] * 2, False), ([refusal(504), gone()], False), ([gone()], False)],
)
def test_a_device_is_asked_twice_before_it_is_too_slow_to_be_there(errors, stays):
    async def story(worker, device):
        before, left = device.health, list(errors)

        async def alive(timeout_s):
            if left:
                raise left.pop(0)
            return worker.instance

        worker.alive = alive
        await until(lambda: not left)
        await asyncio.sleep(0)
        assert (device.health is before) == stays

    tell(story)


def test_a_failed_request_has_the_device_looked_at_at_once():
    async def story(worker, device):
        worker.refused = gone()
        await fail(device)
        assert (device.health.state, device.health.reason) == (DOWN, "device a is gone.")
        worker.refused = None
        # The next look would have come a second after the last.
        await until(lambda: device.health.state == UP, within_s=0.1)

    tell(story)


def test_a_doubt_is_settled_soon_and_measures_nothing_else():
    """Measuring everything would keep a device from its requests, which would doubt it again."""

    async def story(worker, device):
        device.doubt(SMALL)
        await until(lambda: worker.asked, within_s=0.4)
        await asyncio.sleep(10)
        assert worker.asked == [SMALL]

    tell(story, SMALL, WIDE)


def test_an_idle_device_is_measured_anew_twice_a_minute():
    async def story(worker, device):
        worker.ms = 40.0
        await asyncio.sleep(20)
        assert worker.asked == [] and device.latencies[SMALL] == pytest.approx(1)
        await asyncio.sleep(20)
        assert worker.asked == [SMALL] and device.latencies[SMALL] == pytest.approx(40)

    tell(story)


def test_answers_change_what_is_expected():
    """By the recurrences of Jacobson and Karels, the whole of an answer and the invocation in it apart."""

    async def story(worker, device):
        worker.ms, worker.wire_ms = 90.0, 5.0
        await device.infer(SMALL, IMAGE, 60)
        # From 15: the mean 80/8 more, the deviation 80/4, of which twice.
        assert device.latencies[SMALL] == pytest.approx(15 + 10 + 2 * 20)
        request = await hang(worker, device, SMALL)
        assert device.busy_ms == pytest.approx(10 + 10 + 2 * 20)
        await cancel(request)

    tell(story, ms=10.0, wire_ms=5.0)


def test_a_batch_is_expected_to_take_its_images_one_after_the_other():
    async def story(worker, device):
        await device.infer(SMALL, np.repeat(IMAGE, 4, axis=0), 60)
        assert device.latencies[SMALL] == pytest.approx(10)
        request = await hang(worker, device, SMALL, np.repeat(IMAGE, 3, axis=0))
        assert device.busy_ms == pytest.approx(30)
        await cancel(request)

    tell(story, ms=10.0)


def test_a_device_that_is_measured_is_busy():
    async def story(worker, device):
        device.doubt(SMALL)
        await until(lambda: worker.asked)
        begun = now()
        await asyncio.sleep(1)
        assert device.running == 1 and device.busy_ms == pytest.approx(5000 - (now() - begun) * 1e3, abs=2)
        await asyncio.sleep(5)
        assert (device.running, device.busy_ms) == (0, 0.0)

    tell(story, ms=5000.0)


def test_waiting_for_other_requests_is_no_slowness():
    """Else a queue makes a device look slow, which makes its queue look long, and nothing is sent to it any more."""

    async def story(worker, device):
        requests = [await hang(worker, device, SMALL) for _ in range(10)]
        assert device.busy_ms == pytest.approx(500)
        await asyncio.sleep(0.1)
        await cancel(requests[-1])
        assert device.latencies[SMALL] == pytest.approx(60)
        await cancel(requests[0])
        assert device.latencies[SMALL] == pytest.approx(100)
        for request in requests:
            await cancel(request)
        assert (device.running, device.busy_ms) == (0, 0.0)

    tell(story, ms=50.0, wire_ms=10.0)


def test_a_measurement_that_hangs_does_not_blind_the_watch():
    async def story(worker, device):
        worker.hanging = {SMALL}
        device.doubt(SMALL)
        await until(lambda: worker.asked)
        worker.error = gone()
        await until(lambda: device.health.state == DOWN, within_s=1.1)
        worker.error, worker.hanging = None, ()
        await until(lambda: device.health.state == UP)
        assert device.running == 0

    tell(story)


def test_a_device_that_is_never_idle_is_measured_where_it_is_doubted():
    async def story(worker, device):
        other = await hang(worker, device, WIDE)
        await asyncio.sleep(100)
        assert worker.asked == [WIDE]
        worker.ms = 3.0
        device.doubt(SMALL)
        await asyncio.sleep(4.9)
        assert worker.asked == [WIDE]
        await asyncio.sleep(1.2)
        assert worker.asked == [WIDE, SMALL] and device.latencies[SMALL] == pytest.approx(3)
        await cancel(other)

    tell(story, SMALL, WIDE)


def test_an_answer_that_nobody_waited_for_is_a_doubt():
    async def story(worker, device):
        other = await hang(worker, device, WIDE)
        request = await hang(worker, device, SMALL)
        await asyncio.sleep(0.1)
        await cancel(request)
        # All but the one millisecond that was expected of the other request.
        assert device.latencies[SMALL] == pytest.approx(99)
        await asyncio.sleep(3)
        # While it has other work it is not measured yet.
        assert worker.asked == [WIDE, SMALL]
        await cancel(other)
        worker.hanging = ()
        await until(lambda: device.latencies[SMALL] == pytest.approx(1))

    tell(story, SMALL, WIDE)


def test_an_answer_that_came_too_late_is_a_doubt_and_no_failure_of_the_device():
    async def story(worker, device):
        worker.ms, worker.refused = 400.0, refusal(504)
        await fail(device)
        assert (device.health.state, device.failures) == (UP, 1)
        assert device.latencies[SMALL] == pytest.approx(400)
        worker.ms, worker.refused = 1.0, None
        await until(lambda: device.latencies[SMALL] == pytest.approx(1), within_s=1.0)

    tell(story)


def test_a_full_queue_is_no_want_of_memory():
    """Nothing is learnt from it: the slice stays what it was, and is measured at the next look."""

    async def story(worker, device):
        worker.refused, worker.ms = refusal(busy=True), 7.0
        device.doubt(SMALL)
        await until(lambda: len(worker.asked) > 2)
        assert device.health.state == UP and device.latencies[SMALL] == pytest.approx(1)
        worker.refused = None
        await until(lambda: device.latencies[SMALL] == pytest.approx(7), within_s=1.1)

    tell(story)


def test_a_slice_without_room_is_not_planned_with():
    async def story(worker, device):
        worker.refused = refusal(unable=True)
        await fail(device, SMALL)
        assert (device.health.state, list(device.latencies)) == (UP, [WIDE])
        await fail(device, WIDE)
        assert (device.health.state, device.health.reason) == (DOWN, "device a refuses.")
        worker.refused = None
        await until(lambda: device.health.state == UP)
        assert list(device.latencies) == [SMALL, WIDE]

    tell(story, SMALL, WIDE)


def test_a_worker_that_comes_back_with_only_what_it_could_not_load_is_measured():
    async def story(worker, device):
        worker.refused, worker.only = refusal(unable=True), SMALL
        await fail(device, SMALL)
        worker.error = gone()
        await until(lambda: device.health.state == DOWN)
        worker.names, worker.error, worker.refused = [SMALL], None, None
        await until(lambda: device.health.state == UP)
        assert list(device.latencies) == [SMALL]

    tell(story, SMALL, WIDE)


def test_a_worker_that_was_restarted_between_two_looks_is_met_anew():
    async def story(worker, device):
        worker.names, worker.instance = [SMALL, WIDE], "another process"
        await until(lambda: list(device.latencies) == [SMALL, WIDE])

    tell(story)


def test_a_restarted_worker_that_is_busy_is_asked_again_what_it_serves():
    async def story(worker, device):
        busy = [refusal(busy=True)]

        async def served(timeout_s):
            if busy:
                raise busy.pop()
            return [WIDE]

        worker.served, worker.instance = served, "another process"
        await until(lambda: list(device.latencies) == [WIDE])
        assert not busy

    tell(story, SMALL, WIDE)


def test_a_worker_without_its_slices_is_refused():
    async def story(worker, device):
        worker.names, worker.instance = ["tiny-1.0-0", "tiny-2"], "another process"
        await until(lambda: device.health.state == DOWN)
        reason = "it serves none of the slices wanted of it; its models: tiny-1.0-0, tiny-2"
        assert device.health.reason == f"{reason} (asking which models it serves)."

    tell(story)


def test_the_worker_of_another_device_is_refused():
    others: list[str | None] = [None]

    async def story(worker, device):
        others[0] = "b"
        worker.error = gone()
        await until(lambda: device.health.state == DOWN)
        worker.error = None
        reason = "it is the worker of device b too; legal: a worker of its own for each device"
        await until(lambda: device.health.reason == f"{reason} (asking whether it is there).")
        # Also when it is refused again, it keeps nobody out.
        await asyncio.sleep(60)
        assert device.instance is None
        others[0] = None
        await until(lambda: device.health.state == UP)

    tell(story, same_worker=lambda device: others[0])


def test_a_slice_that_a_full_queue_kept_from_being_measured_is_known_soon():
    async def main():
        worker = FakeWorker(SMALL, WIDE)
        worker.refused, worker.only = refusal(busy=True), WIDE
        device = device_of(worker, ENTRIES)
        watch = asyncio.create_task(device.watch())
        await until(lambda: device.health.state == UP)
        assert list(device.latencies) == [SMALL]
        other = await hang(worker, device, SMALL)
        worker.refused = None
        await until(lambda: list(device.latencies) == [SMALL, WIDE], within_s=7)
        await cancel(other)
        watch.cancel()

    run(main())
