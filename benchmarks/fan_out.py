"""A bare fan-out over HTTP, to compare the runner with: aiohttp on both sides, and nothing else that the runner does.

    python -m benchmarks.fan_out --bundle=build/mobilenet_224 --switch=0.5+0.5 --device=0
    python -m benchmarks.fan_out --worker=http://127.0.0.1:8001 --worker=http://127.0.0.1:8002

The first serves a slice: it answers the bytes of an image with its output, float32. The second sends every worker what
it is asked, and answers with the sum of their outputs. No protocol, no plan, no limits, no deadline, no failover.
`benchmarks.http` starts both, and they end with their standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import flags
from aiohttp import ClientSession, TCPConnector, web

from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.rules.sum import Sum
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import SliceInterpreter
from paradis_tf.base import program

_BUNDLE = define_path("bundle", None, "The bundle of the slice to serve.")
_SWITCH = flags.DEFINE_string("switch", "1.0", "The slice's switch.")
_DEVICE = flags.DEFINE_integer("device", 0, "The slice's device.", 0)
_WORKERS = flags.DEFINE_multi_string("worker", [], "Address of a worker; given once or more, this is a coordinator.")

# Of an answer: the milliseconds of the (slowest) invocation, for `benchmarks.http`.
_INVOKE_HEADER = "Invoke-Ms"


def main(argv: list[str]) -> None:
    if bool(_WORKERS.value) == bool(_BUNDLE.value):
        raise UserError("it takes either --bundle or --worker.")
    asyncio.run(_serve(_coordinator(_WORKERS.value) if _WORKERS.value else _worker()))


async def _serve(app: web.Application) -> None:
    """Serves on any free port of loopback until standard input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    print(f"ready: http://127.0.0.1:{server.addresses[0][1]}", flush=True)
    await ended.wait()
    await server.cleanup()


def _worker() -> web.Application:
    bundle = manifest.load(_BUNDLE.value)
    slices = bundle.find_switch(_SWITCH.value).slices
    if _DEVICE.value >= len(slices):
        raise UserError(f"--device={_DEVICE.value}; switch {_SWITCH.value} has the devices 0 to {len(slices) - 1}.")
    file = slices[_DEVICE.value].files[bundle.check_precision("int8")]
    interpreter = SliceInterpreter(bundle, file, runtime.choose("auto"), 1)
    thread = ThreadPoolExecutor(1)

    def invoke(image: np.ndarray) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        stored = interpreter(image)
        return stored, time.perf_counter() - started

    async def answer(request: web.Request) -> web.Response:
        image = np.frombuffer(await request.read(), np.uint8).reshape(bundle.shape)
        stored, seconds = await asyncio.get_running_loop().run_in_executor(thread, invoke, image)
        output = Sum().contribution(file.output, stored).astype(np.float32)
        return web.Response(body=output.tobytes(), headers={_INVOKE_HEADER: f"{seconds * 1e3:.4f}"})

    return _application(answer)


def _coordinator(workers: Sequence[str]) -> web.Application:
    sessions: list[ClientSession] = []

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for _ in workers:
                sessions.append(await stack.enter_async_context(ClientSession(connector=TCPConnector(limit=0))))
            yield

    async def ask(session: ClientSession, url: str, image: bytes) -> tuple[np.ndarray, float]:
        async with session.post(url, data=image) as response:
            response.raise_for_status()
            return np.frombuffer(await response.read(), np.float32), float(response.headers[_INVOKE_HEADER])

    async def answer(request: web.Request) -> web.Response:
        image = await request.read()
        pairs = zip(sessions, workers, strict=True)
        answers = await asyncio.gather(*(ask(session, url, image) for session, url in pairs))
        summed = np.sum([output for output, _ in answers], axis=0, dtype=np.float32)
        return web.Response(body=summed.tobytes(), headers={_INVOKE_HEADER: f"{max(ms for _, ms in answers):.4f}"})

    app = _application(answer)
    app.cleanup_ctx.append(opened)
    return app


def _application(answer: Callable[[web.Request], Awaitable[web.Response]]) -> web.Application:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/", answer)
    return app


if __name__ == "__main__":
    program.run(main)
