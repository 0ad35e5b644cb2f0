"""Requests that are answered without aiohttp: which they are, and that nobody can tell."""

import asyncio
import http.client
import io
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_parser import HttpRequestParser

from fusion.serving import express
from fusion.serving.connections import Connections
from fusion.serving.express import Reply

PATH = "/v2/models/m/infer"
POST = f"POST {PATH} HTTP/1.1\r\nHost: h\r\n".encode()


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (POST + b"Content-Length: 12\r\n\r\nabc", 12),
        (POST + b"\r\n", 0),
        (POST + b"Connection: Keep-Alive\r\ncontent-length:\t3 \r\nX-Empty:\r\n\r\n", 3),
        (POST + b'Authorization: Bearer t:u\r\nA: "b, c"\r\nContent-Length: 0\r\n\r\n', 0),
        (b"GET /v2/health/live HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\n\r\n", 0),
    ],
)
def test_a_common_head_is_read_as_aiohttp_reads_it(data, length):
    head = express.read_head(data)
    assert head is not None

    async def read():
        loop = asyncio.get_running_loop()
        protocol: Any = SimpleNamespace(_reading_paused=False)
        return HttpRequestParser(protocol, loop, 2**16).feed_data(data)[0][0][0]

    expected = asyncio.run(read())
    assert (head.method, head.path, head.length) == (expected.method, expected.path, length)
    assert head.fields == {name.lower(): value for name, value in expected.headers.items()}
    assert head.size == data.index(b"\r\n\r\n") + 4


@pytest.mark.parametrize(
    "data",
    [
        b"",
        POST,
        POST + b"Content-Length: 3\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Host: h\r\n\r\n",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: 3, 3\r\n\r\nabc",
        POST + b"Content-Length: \r\n\r\n",
        POST + b"Content-Length: 1000000000000\r\n\r\n",
        POST + b"Content-Length : 3\r\n\r\nabc",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Encoding: gzip\r\n\r\n",
        POST + b"Expect: 100-continue\r\n\r\n",
        POST + b"Upgrade: websocket\r\n\r\n",
        POST + b"Connection: close\r\n\r\n",
        POST + b"Proxy-Connection: close\r\n\r\n",
        POST + b"A: b\r\n c\r\n\r\n",
        POST + b"A: \x00\r\n\r\n",
        POST + b"A: \xe4\r\n\r\n",
        POST + b"A: b\nContent-Length: 3\r\n\r\nabc",
        POST + b"A: " + b"b" * 5000 + b"\r\n\r\n",
        POST + b"A: b\r\n" * 70 + b"\r\n",
        f"POST {PATH} HTTP/1.0\r\nHost: h\r\n\r\n".encode(),
        f"POST {PATH} HTTP/1.1\r\nA: b\r\n\r\n".encode(),
        f"POST {PATH}\r\nHost: h\r\n\r\n".encode(),
        b"POST http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\r\n" + POST + b"\r\n",
    ],
)
def test_any_other_head_is_left(data):
    assert express.read_head(data) is None


@pytest.mark.parametrize("closes", [False, True])
def test_an_answer_as_another_reads_it(closes):
    fields = {"Content-Type": "application/json", "Retry-After": "1"}
    sent = express.message(Reply(503, b'{"error": "busy"}', fields), closes)
    connection: Any = SimpleNamespace(makefile=lambda mode: io.BytesIO(sent))
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert (answer.status, answer.reason, answer.version) == (503, "Service Unavailable", 11)
    assert answer.read() == b'{"error": "busy"}' and answer.will_close is closes
    assert answer.headers["Retry-After"] == "1" and answer.headers["Date"].endswith(" GMT")


async def echo(body, arrived):
    await asyncio.sleep(0.05)
    return Reply(200, b"express " + bytes(body), {"Content-Type": "text/plain"})


def visit(*steps, answering=lambda head: echo if head.path == PATH else None):
    """What a server answers to these steps on one connection, each the bytes to send and the bodies to read after them;
    of a number in place of bytes, it is waited so many seconds."""

    async def handle(request):
        return web.Response(body=b"aiohttp " + await request.read())

    async def read(reader):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        return (await reader.readexactly(int(length.split(b":")[1]))).decode()

    async def main():
        runner = web.AppRunner(app := web.Application(), handler_cancellation=True)
        app.router.add_route("*", "/{path:.*}", handle)
        await runner.setup()
        assert runner.server is not None
        connections = Connections(runner.server, 9, answering)
        listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        bodies = []
        try:
            for send, answers in steps:
                if isinstance(send, bytes):
                    writer.write(send)
                else:
                    await asyncio.sleep(send)
                bodies += [await asyncio.wait_for(read(reader), 30) for _ in range(answers)]
        finally:
            writer.close()
            listener.close()
            await runner.cleanup()
        return bodies

    return asyncio.run(main())


def request(body, fields=b""):
    return POST + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


GET = b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("steps", "bodies"),
    [
        ([(request(b"a"), 1), (request(b""), 1), (GET, 1), (request(b"b"), 1)],
         ["express a", "express ", "aiohttp ", "express b"]),
        # What does not wait for its turn.
        ([(request(b"a") + request(b"b") + GET + request(b"c"), 4)],
         ["express a", "aiohttp b", "aiohttp ", "aiohttp c"]),
        ([(request(b"a"), 0), (0.01, 0), (request(b"b")[:40], 0), (0.01, 0), (request(b"b")[40:], 2)],
         ["express a", "aiohttp b"]),
        ([(GET + request(b"a"), 2), (request(b"b"), 1)], ["aiohttp ", "aiohttp a", "aiohttp b"]),
        # A body in parts, and one that takes too long for it.
        ([(request(b"abc")[:-2], 0), (0.02, 0), (b"b", 0), (0.02, 0), (b"c" + request(b"d"), 2)],
         ["express abc", "aiohttp d"]),
        ([(request(b"abc")[:-2], 0), (0.3, 0), (b"bc", 1), (request(b"d"), 1)], ["aiohttp abc", "aiohttp d"]),
        # A head in parts, and one that is not of the common kind: where the next begins is aiohttp's affair.
        ([(request(b"a")[:9], 0), (0.05, 0), (request(b"a")[9:], 1), (request(b"b"), 1)], ["aiohttp a", "aiohttp b"]),
        ([(CHUNKED, 1), (request(b"b"), 1)], ["aiohttp a", "aiohttp b"]),
        ([(request(b"x" * 600_000, b"A: b\r\n"), 1), (GET, 1)], ["aiohttp " + "x" * 600_000, "aiohttp "]),
    ],
)  # fmt: skip
def test_which_requests_are_taken(steps, bodies):
    # Not before aiohttp waits for the first.
    assert visit((0.05, 0), *steps) == bodies


def test_a_client_that_goes_is_not_worked_for():
    given_up = []

    async def work(body, arrived):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            given_up.append(bytes(body))
            raise
        return Reply(200, b"", {})

    assert visit((0.05, 0), (request(b"a"), 0), (0.1, 0), answering=lambda head: work) == []
    assert given_up == [b"a"]
