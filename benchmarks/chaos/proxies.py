"""Proxies before workers, in one process of their own, that pass on, delay or spoil what the workers answer."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.chaos.schedule import ERROR, FOREIGN, NONSENSE, RESET, SLOW, TRUNCATED
from fusion.base.program import UserError

PASS = "pass"
_START_S = 60.0
_MOST_BYTES = 256 << 20
_DROPPED = ("host", "content-length", "transfer-encoding", "connection", "date", "server")


class Proxies:
    """A proxy for each of `targets`, http://host:port; a context manager.

    Attributes:
      urls: the proxies' addresses, in the order of the targets.

    The process ends with the block, and when this process is killed. Raises `UserError` when it does not come up.
    """

    def __init__(self, targets: Sequence[str]) -> None:
        # Not forked: this process has threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_main, args=(list(targets), theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._lock = threading.Lock()
        try:
            if not self._pipe.poll(_START_S):
                raise UserError(f"the proxies were not ready within {_START_S:g} s.")
            self.urls: list[str] = self._pipe.recv()
        except BaseException as error:
            self.close()
            if isinstance(error, EOFError):
                raise UserError("the proxies ended at the start.") from error
            raise

    def __enter__(self) -> Proxies:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()

    def set(self, place: int, mode: str, delay_s: float = 0.0) -> None:
        """From now on proxy `place` does what `mode` says: `pass`, or one of `schedule.OF_PROXIES`; `slow` delays
        answers by `delay_s`. Thread-safe."""
        with self._lock:
            self._pipe.send((place, mode, delay_s))


def _main(targets: list[str], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(targets, pipe))


async def _serve(targets: list[str], pipe: Connection) -> None:
    modes = {place: (PASS, 0.0) for place in range(len(targets))}
    # A connection that is kept would fail when its worker starts anew, and the worker is not to blame.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        urls = [await _listen(_Proxy(target, place, modes, session)) for place, target in enumerate(targets)]
        pipe.send(urls)
        loop = asyncio.get_running_loop()
        while True:
            try:
                place, mode, delay_s = await loop.run_in_executor(None, pipe.recv)
            except (EOFError, OSError):
                return
            modes[place] = (mode, delay_s)


async def _listen(proxy: _Proxy) -> str:
    app = web.Application(client_max_size=_MOST_BYTES)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


class _Proxy:
    def __init__(
        self, target: str, place: int, modes: dict[int, tuple[str, float]], session: aiohttp.ClientSession
    ) -> None:
        self._target, self._place, self._modes, self._session = target, place, modes, session

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        url = self._target + request.raw_path
        try:
            async with self._session.request(request.method, url, data=body or None, headers=headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError):
            return _abort(request)
        mode, delay_s = self._modes[self._place]
        kept = {name: value for name, value in response.headers.items() if name.lower() not in _DROPPED}
        of_inference = request.path.endswith("/infer")
        if mode == SLOW:
            await asyncio.sleep(delay_s)
        elif mode == RESET:
            return _abort(request)
        elif mode == ERROR:
            return web.json_response({"error": "the proxy says so."}, status=500)
        elif mode == NONSENSE and of_inference:
            return web.Response(body=bytes(range(256)), headers=kept)
        elif mode == FOREIGN and of_inference:
            answer = _renamed(answer)
        elif mode == TRUNCATED and of_inference:
            return await _cut_off(request, response.status, kept, answer)
        return web.Response(body=answer, status=response.status, headers=kept)


def _abort(request: web.Request) -> web.Response:
    transport: Any = request.transport
    if transport is not None:
        transport.abort()
    return web.Response()


async def _cut_off(request: web.Request, status: int, headers: dict[str, str], body: bytes) -> web.StreamResponse:
    """Sends half of the body that the head promises."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _abort(request)
    return response


def _renamed(body: bytes) -> bytes:
    """The body with another model id of the same length."""
    key = b'"model_id":'
    start = body.find(b'"', body.find(key) + len(key)) + 1
    if body.find(key) < 0 or start <= 0:
        return body
    return body[:start] + bytes(reversed(body[start : start + 64])) + body[start + 64 :]
