"""Clients that are slow, too many, or not speaking HTTP: each gets its answer, and nobody else notices."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time

import pytest
from aiohttp import web

from fusion.serving import connections

SLICE = "tiny-1.0-0"
WAIT_S = 60
INFER = f"POST /v2/models/{SLICE}/infer HTTP/1.1\r\nHost: x\r\n".encode()
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
BODY = json.dumps({"inputs": [IMAGE]}).encode()
REQUEST = INFER + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def connect(program):
    host, port = program.url.split("/")[-1].split(":")
    return socket.create_connection((host, int(port)), WAIT_S)


def read(connection):
    """All until the server closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def one_answer(received):
    """(status, error) of the only answer in these bytes."""
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    assert length and int(length[1]) == len(body), received
    return int(head.split()[1]), json.loads(body)["error"]


def answers(connection):
    """Whether a valid request on this connection is answered 200."""
    connection.sendall(REQUEST)
    return connection.recv(65536).startswith(b"HTTP/1.1 200")


def begin(connection, body=BODY):
    """Sends the head of a request with this body, and returns once the server waits for that."""
    connection.sendall(INFER + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
    assert connection.recv(65536) == CONTINUE


@pytest.fixture(scope="module")
def small(bundle, start_for_module):
    """A worker that takes eight connections."""
    limits = ("--max_connections=8", "--max_body_mb=1", "--threads=1")
    program = start_for_module("worker", f"--bundle={bundle}", *limits)
    with connect(program) as connection:
        # The model is loaded by the first request.
        answers(connection)
    return program


@pytest.fixture(scope="module")
def hasty(bundle, start_for_module):
    """A worker that gives a request three seconds."""
    return start_for_module("worker", f"--bundle={bundle}", "--request_timeout_s=3", "--threads=1")


LATE = 408, "the request body did not arrive within 3 s."


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"\x16\x03\x01\x02garbage\r\n\r\n", 400, "is not HTTP/1.1: Received HTTPS traffic on an HTTP port."),
        (b"hello\r\n\r\n", 400, "is not HTTP/1.1: "),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "is not HTTP/1.1: "),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400, "is not HTTP/1.1: Missing 'Host' header in request."),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "Got more than 8190 bytes"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 431, "Got more than 8190 bytes"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 400, "Too many headers"),
        (INFER + b"Content-Length: -1\r\n\r\n", 400, "Invalid character in Content-Length"),
        (INFER + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "can't be present with"),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "Invalid character in chunk size."),
        (INFER + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400, "Chunk size overflow."),
    ],
)
def test_what_is_no_http_is_a_4xx_and_the_end(small, sent, status, said):
    with connect(small) as connection:
        connection.sendall(sent)
        got, error = one_answer(read(connection))
    assert got == status and said in error


def test_a_body_that_breaks_after_its_head_was_taken(hasty):
    """aiohttp tells nobody before the request has ended, so it is one that does not arrive."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(hasty)) for _ in range(2)]
        for connection, before in zip(connections, (b"", b"3\r\n{{{\r\n"), strict=True):
            connection.sendall(INFER + b"Transfer-Encoding: chunked\r\n\r\n" + before)
        assert answers(stack.enter_context(connect(hasty)))
        for connection in connections:
            connection.sendall(b"zz\r\n")
        for connection in connections:
            assert one_answer(read(connection)) == LATE


def test_garbage_after_a_request(small):
    with connect(small) as connection:
        assert answers(connection)
        connection.sendall(b"\0garbage\r\n\r\n")
        assert one_answer(read(connection))[0] == 400


def test_a_chunked_body_beyond_the_limit(small):
    with connect(small) as connection:
        connection.sendall(
            INFER + b"Transfer-Encoding: chunked\r\n\r\n" + b"2710\r\n%b\r\n" % (b"{" * 10_000) * 101 + b"0\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_huge_declared_body_is_refused_unread(small):
    declared = INFER + b"Content-Length: 10000000000\r\n"
    with connect(small) as connection:
        connection.sendall(declared + b"\r\n")
        received = connection.recv(65536)
    status, error = one_answer(received)
    assert (status, error) == (413, "the request body has 10000000000 bytes; legal: at most 1 MB, decompressed.")
    with connect(small) as connection:
        # Who asks first is told so in place of 100 Continue.
        connection.sendall(declared + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    with connect(small) as flood, connect(small) as other:
        flood.sendall(declared + b"\r\n")
        sender = threading.Thread(target=pour, args=(flood,))
        sender.start()
        # Nobody else notices, and it does not go on for ever.
        for _ in range(20):
            assert answers(other)
        sender.join(WAIT_S)
        assert not sender.is_alive()


def pour(connection):
    with contextlib.suppress(OSError):
        for _ in range(100_000):
            connection.sendall(b"x" * 100_000)


def test_expect(small):
    with connect(small) as connection:
        begin(connection)
        connection.sendall(BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    with connect(small) as connection:
        connection.sendall(INFER + b"Expect: wonders\r\nContent-Length: 0\r\n\r\n")
        assert one_answer(connection.recv(65536))[0] == 417


def test_slow_bodies_are_given_up_and_nobody_waits_for_them(hasty):
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(connect(hasty))
        assert answers(other)
        bodies = [stack.enter_context(connect(hasty)) for _ in range(30)]
        for connection in bodies:
            connection.sendall(INFER + b"Content-Length: 1000\r\n\r\n{")
        for _ in range(10):
            assert answers(other)
        for connection in bodies:
            assert one_answer(connection.recv(65536)) == LATE
        assert answers(other)


def test_a_body_that_is_late_when_the_server_stops(bundle, start):
    program = start("worker", f"--bundle={bundle}", "--threads=1")
    with connect(program) as connection:
        assert answers(connection)
        begin(connection)
        connection.sendall(BODY[:1])
        assert program.stop()[0] == 143
        assert one_answer(read(connection)) == (503, "the server stops, and the request's body was not there yet.")


def test_more_connections_than_allowed(small):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(small)) for _ in range(30)]
        for connection in idle:
            with contextlib.suppress(ConnectionError):
                connection.sendall(INFER)
        # It takes the place of one without a request.
        assert answers(stack.enter_context(connect(small)))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            begin(stack.enter_context(connect(small)))
        more = stack.enter_context(connect(small))
        assert one_answer(read(more)) == (503, "the server has 8 connections, which is all it takes.")

    def is_answered():
        with contextlib.suppress(ConnectionError), connect(small) as connection:
            return answers(connection)
        return False

    # Until it has seen that the others are gone, there are too many still.
    deadline = time.monotonic() + WAIT_S
    while not is_answered():
        assert time.monotonic() < deadline


def visit(handler, talk):
    """What `talk(reader, writer)` returns, on a connection to a server of this process."""

    async def main():
        made = connections.Connections(handler, 9)
        listener = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        # Its limit is how much is read ahead.
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), limit=1000)
        try:
            return await asyncio.wait_for(talk(reader, writer), WAIT_S)
        finally:
            writer.close()
            listener.close()
            await made.stop(1)

    return asyncio.run(main())


async def one_body(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return await reader.readexactly(int(length.split(b":")[1]))


@pytest.mark.parametrize("takes_it", [False, True])
def test_an_answer_that_nobody_takes_is_given_up(monkeypatch, takes_it):
    """One that is taken slowly is not."""
    monkeypatch.setattr(connections, "_IDLE_S", 1.0 if takes_it else 0.2)
    answer, seen = b"x" * 20_000_000, []

    async def handle(request):
        seen.append(request.protocol)
        return web.Response(body=answer)

    async def talk(reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        taken = 0
        for _ in range(12 if takes_it else 0):
            taken += len(await reader.readexactly(1_000_000))
            await asyncio.sleep(0.25)
        while not takes_it and not (seen and seen[0].transport is None):
            await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            while more := await asyncio.wait_for(reader.read(1 << 20), 30):
                taken += len(more)
        return taken

    taken = visit(handle, talk)
    assert taken > len(answer) if takes_it else taken < len(answer)


def test_slow_heads_are_given_up(monkeypatch):
    monkeypatch.setattr(connections, "_HEAD_S", 1.0)

    async def echo(request):
        return web.Response(body=await request.read())

    async def drip(reader, writer):
        for line in (b"GET / HTTP/1.1\r\n", b"Host: h\r\n", b"A: b\r\n", b"A: b\r\n"):
            writer.write(line)
            await asyncio.sleep(0.02)
        return await reader.read()

    async def be_silent(reader, writer):
        return await reader.read()

    async def ask_and_drip(reader, writer):
        """The time begins anew with each request."""
        writer.write(ONE)
        assert await one_body(reader) == b"a"
        return await drip(reader, writer)

    assert visit(echo, be_silent) == b""
    for talk in (drip, ask_and_drip):
        assert one_answer(visit(echo, talk)) == (408, "the request's head did not arrive within 1 s.")


def test_a_client_that_goes_is_not_worked_for():
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def work(request):
        begun.set()
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            given_up.set()
            raise

    async def talk(reader, writer):
        writer.write(POST % 0)
        await begun.wait()
        writer.close()
        await given_up.wait()

    visit(work, talk)


POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
ONE, LONG = POST % 1 + b"a", POST % 600_000 + b"x" * 600_000
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "bodies"),
    [
        ([ONE + POST % 0 + CHUNKED + ONE], [b"a", b"", b"b", b"a"]),
        ([ONE[:9], ONE[9:] + ONE[:30], ONE[30:]], [b"a", b"a"]),
        ([LONG[:70], LONG[70:100_000], LONG[100_000:] + ONE], [b"x" * 600_000, b"a"]),
    ],
)
def test_requests_however_they_are_cut(parts, bodies):
    async def echo(request):
        return web.Response(body=await request.read())

    async def talk(reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        return [await one_body(reader) for _ in bodies]

    assert visit(echo, talk) == bodies


def test_no_traceback_is_left(small):
    """Runs last: what the server said of all of the above."""
    lines = [line for line in small.stop()[2].splitlines() if not line.startswith("INFO: Created TensorFlow Lite")]
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines[1:]] == [
        "worker stops: finishing the running requests"
    ]
