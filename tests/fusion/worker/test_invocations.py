"""The invocation thread and its queue, by themselves."""

import asyncio
import threading
import time

import pytest

from fusion.protocol.oip import OipError
from fusion.worker.invocations import Invocations
from tests.fusion.coordinator.fakes import now, run


def test_runs_run_in_order_one_at_a_time():
    running, order = [], []

    def work(number, invocation):
        running.append(number)
        time.sleep(0.001)
        order.append(number)
        assert running == order
        return number * 2

    async def main(invocations):
        runs = (invocations.run(lambda invocation, n=n: work(n, invocation), None) for n in range(9))
        return await asyncio.gather(*runs)

    with Invocations(9) as invocations:
        assert asyncio.run(main(invocations)) == [2 * n for n in range(9)]
    assert order == list(range(9))


def test_queue_deadline_and_cancelling():
    release, started = threading.Event(), []

    def hold(invocation):
        started.append("hold")
        release.wait(30)
        return invocation.abandoned

    def never(invocation):
        started.append("never")

    async def main(invocations):
        held = asyncio.ensure_future(invocations.run(hold, None))
        while not started:
            await asyncio.sleep(0.001)
        cancelled = asyncio.ensure_future(invocations.run(never, None))
        late = asyncio.ensure_future(invocations.run(never, now() + 5))
        await asyncio.sleep(0)
        assert invocations.depth() == 2
        with pytest.raises(OipError) as full:
            await invocations.run(never, None)
        assert (full.value.status, full.value.headers) == (503, {"Retry-After": "1"})
        cancelled.cancel()
        with pytest.raises(OipError) as error:
            await late
        assert error.value.status == 504 and invocations.depth() == 0
        # Its time is over before it comes.
        with pytest.raises(OipError, match="within its timeout"):
            await invocations.run(never, now() - 1)
        held.cancel()
        last = asyncio.ensure_future(invocations.run(lambda invocation: invocation.abandoned, None))
        await asyncio.sleep(0)
        release.set()
        assert await last is False
        assert cancelled.cancelled() and held.cancelled()

    with Invocations(2) as invocations:
        run(main(invocations))
    assert started == ["hold"]


def test_errors_come_back_and_the_thread_goes_on():
    def fail(invocation):
        raise KeyError("x")

    async def main(invocations):
        for _ in range(2):
            with pytest.raises(KeyError):
                await invocations.run(fail, None)
        return await invocations.run(lambda invocation: 5, asyncio.get_running_loop().time() + 30)

    with Invocations(1) as invocations:
        assert asyncio.run(main(invocations)) == 5
