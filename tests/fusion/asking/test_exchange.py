"""The client of the coordinator's exchanges against servers that do what a test tells them to, byte by byte."""

import asyncio
import gzip
import http.client
import io
import random
import ssl
from typing import Any, cast

import pytest

from fusion.asking.exchange import (
    CONNECTING,
    READING,
    WAITING,
    ExchangeError,
    GoneError,
    HttpClient,
    SlowError,
    WrongAnswerError,
)
from tests.fusion.tls import Certificates

GOOD = b"HTTP/1.1 200 OK\r\nServer: some thing\r\nX-Odd:\t a, b \r\nContent-Length: 5\r\n\r\nhello"
WAIT_S = 180


class Script:
    """A server that reads each request whole and then acts: `act(writer, connection, request)`, numbered from 0.

    Attributes:
      requests: the bytes of each request, head and body.
      connections: how many were made.
      gone: how many of them the client has closed.
    """

    def __init__(self, act, context=None):
        self._act, self._context = act, context
        self.requests: list[bytes] = []
        self.connections = self.gone = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        connection, self.connections = self.connections, self.connections + 1
        try:
            for request in range(100):
                head = await reader.readuntil(b"\r\n\r\n")
                lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
                self.requests.append(head + await reader.readexactly(int(lines[b"Content-Length"])))
                if await self._act(writer, connection, request):
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            self.gone += 1
        finally:
            writer.close()


def says(*answers):
    """Answers each request with the next of these, the last one again and again."""

    async def act(writer, connection, request):
        writer.write(answers[min(request, len(answers) - 1)])

    return act


def run(act, work, context=None, client_context=None, connect_s=60.0):
    """What `work(script, client, ask)` returns, a coroutine; `ask(**changes)` is an exchange."""

    async def main():
        scheme = "https" if context else "http"
        async with Script(act, context) as script:
            url = f"{scheme}://127.0.0.1:{script.port}"
            client = HttpClient(url, client_context, {"Authorization": "Bearer x"}, connect_s)

            async def ask(body=None, timeout_s=60.0, most_bytes=100):
                pieces = body or (b"{}", memoryview(b"image"))
                return await client.exchange("POST", "/v2/infer", pieces, timeout_s, most_bytes, {"X-More": "1"})

            try:
                return await asyncio.wait_for(work(script, client, ask), WAIT_S)
            finally:
                await client.close()

    return asyncio.run(main())


async def until(check):
    while not check():
        await asyncio.sleep(0.005)


def outcome(act, **changes):
    """The answer or the error of one exchange; the server then finds its connection closed unless it answered."""

    async def work(script, client, ask):
        try:
            return await ask(**changes)
        except ExchangeError as error:
            await until(lambda: script.gone == script.connections or not script.requests)
            return error

    return run(act, work)


def test_an_exchange_and_the_next_on_the_same_connection():
    async def work(script, client, ask):
        answers = [await ask() for _ in range(3)]
        return answers, script.requests, script.connections, script.port

    answers, requests, connections, port = run(says(GOOD), work)
    fields = {"Server": "some thing", "X-Odd": "a, b", "Content-Length": "5"}
    assert [(answer.status, answer.fields, answer.body) for answer in answers] == [(200, fields, b"hello")] * 3
    # Nothing of aiohttp's own goes along, as a name of its version.
    head = f"POST /v2/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer x\r\nX-More: 1\r\n"
    assert requests == [head.encode() + b"Content-Length: 7\r\n\r\n{}image"] * 3 and connections == 1


def test_many_at_once_have_a_connection_each_and_keep_them():
    async def work(script, client, ask):
        for _ in range(2):
            await asyncio.gather(*(ask() for _ in range(5)))
        return script.connections

    assert run(says(GOOD), work) == 5


def test_closed_at_every_byte():
    for count in range(len(GOOD)):

        async def act(writer, connection, request, count=count):
            writer.write(GOOD[:count])
            return True

        async def work(script, client, ask):
            with pytest.raises(GoneError) as raised:
                await ask()
            # A new connection that fails is not tried again.
            return raised.value, script.connections

        error, connections = run(act, work)
        assert (error.phase, connections) == (READING if count >= GOOD.index(b"hello") else WAITING, 1)
        assert str(error) == "it closed the connection"


def test_split_at_every_byte():
    async def work(script, client, ask):
        return [(await ask()).body for _ in range(len(GOOD) + 1)]

    async def act(writer, connection, request):
        for part in (GOOD[:request], GOOD[request:]) if request < len(GOOD) else (GOOD[i : i + 1] for i in range(99)):
            writer.write(part)
            await asyncio.sleep(0.001)

    assert run(act, work) == [b"hello"] * (len(GOOD) + 1)


def head(*lines, first="HTTP/1.1 200 OK"):
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


LENGTH = "Content-Length: 5"
NO_HTTP = "its answer is not HTTP/1.1: "
WRONG = {
    "garbage": (bytes(range(128, 256)) + b"\r\n\r\n", NO_HTTP),
    "HTTP/2": (head(LENGTH, first="HTTP/2 200") + b"hello", NO_HTTP),
    "HTTP/2.0": (head(LENGTH, first="HTTP/2.0 200 OK") + b"hello", NO_HTTP + "it says HTTP/2.0"),
    "HTTP/0.9": (head(LENGTH, first="HTTP/0.9 200 OK") + b"hello", NO_HTTP + "it says HTTP/0.9"),
    "a refusal of HTTP/2.0": (head(first="HTTP/2.0 503 Busy"), NO_HTTP + "it says HTTP/2.0"),
    "HTTP/1.2": (head(LENGTH, first="HTTP/1.2 200 OK") + b"hello", NO_HTTP),
    "no status": (head(LENGTH, first="HTTP/1.1 OK") + b"hello", NO_HTTP),
    "a status of four": (head(LENGTH, first="HTTP/1.1 2000 OK") + b"hello", NO_HTTP),
    "no colon": (head("X 1", LENGTH) + b"hello", NO_HTTP),
    "no name": (head(": 1", LENGTH) + b"hello", NO_HTTP),
    "a zero byte": (head("X: \0", LENGTH) + b"hello", NO_HTTP),
    "no length": (head("X: 1") + b"hello", "its answer has no length"),
    "both": (head("Transfer-Encoding: chunked", LENGTH) + b"hello", NO_HTTP),
    "negative": (head("Content-Length: -5"), NO_HTTP),
    "signed": (head("Content-Length: +5") + b"hello", NO_HTTP),
    "twice": (head(LENGTH, LENGTH) + b"hello", NO_HTTP),
    "two lengths": (head(LENGTH, "Content-Length: 6") + b"hello", NO_HTTP),
    "not ASCII": (head("Content-Length: \xb2") + b"he", NO_HTTP),
    "endless digits": (head("Content-Length: " + "9" * 5000), NO_HTTP),
    "too long": (head("Content-Length: 101"), "its answer is longer than 100 bytes"),
    "a refusal too long": (
        head("Content-Length: 101", first="HTTP/1.1 400 Bad"),
        "its answer is longer than 100 bytes",
    ),
    "an endless head": (b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 6000, NO_HTTP + "Too many headers"),
    "an endless line": (b"HTTP/1.1 200 OK\r\nX: " + b"1" * 40000, NO_HTTP + "Got more than 8190 bytes"),
}


@pytest.mark.parametrize(("answer", "said"), WRONG.values(), ids=WRONG)
def test_wrong_answers(answer, said):
    error = outcome(says(answer))
    assert isinstance(error, WrongAnswerError) and str(error).startswith(said)


CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def test_an_answer_in_chunks_has_no_length():
    async def work(script, client, ask):
        with pytest.raises(WrongAnswerError, match="^its answer has no length$"):
            await ask()

    run(says(head("Transfer-Encoding: chunked") + CHUNKED), work)


@pytest.mark.parametrize(("fields", "connections"), [((), 2), (("Transfer-Encoding: chunked",), 1)])
def test_a_refusal_counts_without_its_body(fields, connections):
    async def work(script, client, ask):
        answers = [await ask(), await ask()]
        return [(answer.status, answer.body) for answer in answers], script.connections

    refusal = head(*fields, first="HTTP/1.1 503 Busy") + CHUNKED
    assert run(says(refusal), work) == ([(503, b"")] * 2, connections)


def test_mutated_answers_are_read_as_by_the_standard_library():
    drawn = random.Random(0)
    letters = [bytes([n]) for n in (0, 9, 10, 13, 32, 44, 48, 53, 57, 58, 65, 128, 255)] + [b"", b"\r\n", b"\r\n\r\n"]
    answers = []
    for _ in range(1500):
        mutated = GOOD
        for _ in range(drawn.randint(1, 3)):
            place = drawn.randrange(len(mutated))
            mutated = mutated[:place] + drawn.choice(letters) + mutated[place + drawn.randint(0, 2) :]
        answers.append(mutated)

    async def act(writer, connection, request):
        writer.write(answers[connection])
        return True

    async def work(script, client, ask):
        read = 0
        for number, answer in enumerate(answers):
            await until(lambda number=number: script.connections == number)
            try:
                mine = await ask()
            except ExchangeError:
                continue
            other = http.client.HTTPResponse(cast(Any, _Socket(answer)))
            try:
                other.begin()
            except http.client.HTTPException:
                # aiohttp skips empty lines before an answer, and leaves spaces out.
                continue
            assert (mine.status, mine.body) == (other.status, other.read()) or mine.status != 200, answer
            read += 1
        return read

    assert run(act, work) > 100


class _Socket:
    def __init__(self, data):
        self._data = data

    def makefile(self, mode):
        return io.BytesIO(self._data)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        GOOD.replace(b"Server: some thing", b"Connection: Close"),
        GOOD.replace(b"Server: some thing", b"Connection: x, close"),
        GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_a_connection_that_is_not_used_again(answer):
    async def work(script, client, ask):
        bodies = [(await ask()).body for _ in range(3)]
        await until(lambda: script.gone == 3)
        return bodies, script.connections

    assert run(says(answer), work) == ([b"hello"] * 3, 3)


def test_what_comes_unasked_is_nobodys_answer():
    unasked = asyncio.Event()

    async def act(writer, connection, request):
        writer.write(GOOD)
        if not connection:
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(GOOD.replace(b"hello", b"wrong"))
            await writer.drain()
            unasked.set()

    async def work(script, client, ask):
        first = await ask()
        await unasked.wait()
        # For the client to read it.
        await asyncio.sleep(0.02)
        return first.body, (await ask()).body, script.connections

    assert run(act, work) == (b"hello", b"hello", 2)


def test_a_kept_connection_that_closes_is_replaced_once():
    async def act(writer, connection, request):
        if request:
            return True
        writer.write(GOOD)

    async def work(script, client, ask):
        return [(await ask()).body for _ in range(3)], script.connections

    assert run(act, work) == ([b"hello"] * 3, 3)

    async def only_the_first(writer, connection, request):
        if (connection, request) != (0, 0):
            return True
        writer.write(GOOD)

    async def fails(script, client, ask):
        await ask()
        with pytest.raises(GoneError) as raised:
            await ask()
        return raised.value.phase, script.connections

    assert run(only_the_first, fails) == (WAITING, 2)

    async def breaks_off(writer, connection, request):
        writer.write(GOOD[: -1 if request else 999])
        return bool(request)

    assert run(breaks_off, fails) == (READING, 1)


@pytest.mark.parametrize(("sent", "phase"), [(0, WAITING), (20, WAITING), (len(GOOD) - 1, READING)])
def test_slow_answers(sent, phase):
    async def act(writer, connection, request):
        writer.write(GOOD[:sent])

    error = outcome(act, timeout_s=1.0)
    assert isinstance(error, SlowError) and (error.phase, str(error)) == (phase, "nothing within 1 s")


def test_slow_bytes_do_not_prolong_the_limit():
    async def act(writer, connection, request):
        for number in range(1000):
            writer.write(b"HTTP/1.1 200 OK\r\nX: "[number : number + 1] or b"1")
            await writer.drain()
            await asyncio.sleep(0.01)

    error = outcome(act, timeout_s=1.0)
    assert isinstance(error, SlowError) and error.phase == WAITING


def test_cancelling_closes_the_connection():
    async def act(writer, connection, request):
        pass

    async def work(script, client, ask):
        asking = asyncio.create_task(ask())
        await until(lambda: script.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: script.gone)

    run(act, work)


def test_closing_the_client_closes_what_it_keeps():
    async def work(script, client, ask):
        await ask()
        await client.close()
        await until(lambda: script.gone)
        return (await ask()).body

    assert run(says(GOOD), work) == b"hello"


def test_closing_the_client_lets_an_exchange_end():
    release = asyncio.Event()

    async def act(writer, connection, request):
        await release.wait()
        writer.write(GOOD)

    async def work(script, client, ask):
        asking = asyncio.create_task(ask())
        await until(lambda: script.requests)
        await client.close()
        release.set()
        body = (await asking).body
        await until(lambda: script.gone)
        return body

    assert run(act, work) == b"hello"


def test_no_redirect_is_followed_no_cookie_kept_and_nothing_unpacked():
    moved = head("Location: /other", "Set-Cookie: a=b", LENGTH, first="HTTP/1.1 307 Moved") + b"there"
    packed = gzip.compress(b"hello")
    gzipped = head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed

    async def work(script, client, ask):
        answers = [await ask(), await ask()]
        return [(answer.status, answer.body) for answer in answers], script.requests

    answers, requests = run(says(moved, gzipped), work)
    assert answers == [(307, b"there"), (200, packed)]
    assert requests[0] == requests[1] and b"ookie" not in requests[1]


def test_nobody_there(free_port):
    async def main():
        client = HttpClient(f"http://127.0.0.1:{free_port}", None, {}, 5.0)
        try:
            await client.exchange("GET", "/", (), 5.0, 100)
        finally:
            await client.close()

    with pytest.raises(GoneError, match="^connection refused$") as raised:
        asyncio.run(main())
    assert raised.value.phase == CONNECTING


def test_a_long_body_and_an_answer_to_half_of_it():
    long = memoryview(random.Random(1).randbytes(3_000_000))

    async def work(script, client, ask):
        await ask(body=(b"{}", long))
        return script.requests[0].endswith(b"\r\n\r\n{}" + long), len(script.requests)

    assert run(says(GOOD), work) == (True, 1)

    async def early():
        closed = asyncio.Event()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(GOOD.replace(b"200 OK", b"413 No"))
            # It reads no more than that, and sees the connection closed behind what was on its way.
            await asyncio.sleep(0.1)
            try:
                while await reader.read(1 << 20):
                    pass
            except ConnectionError:
                pass
            closed.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, {}, 5.0)
        answer = await client.exchange("POST", "/", [long] * 10, 5.0, 100)
        await asyncio.wait_for(closed.wait(), WAIT_S)
        await client.close()
        server.close()
        return answer.status

    assert asyncio.run(early()) == 413


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls"))


def contexts(certificates):
    mine = certificates.issue("127.0.0.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(mine.tls_cert, mine.tls_key)
    return server, ssl.create_default_context(cafile=certificates.ca)


def test_tls(certificates):
    body = (b"{}", memoryview(random.Random(1).randbytes(1_000_000)))

    async def work(script, client, ask):
        bodies = [(await ask(body=body)).body for _ in range(3)]
        return bodies, script.connections, {request[-1_000_002:] for request in script.requests}

    assert run(says(GOOD), work, *contexts(certificates)) == ([b"hello"] * 3, 1, {b"{}" + body[1]})


def test_tls_that_fails(certificates):
    server, client = contexts(certificates)

    async def work(script, client, ask):
        with pytest.raises(ExchangeError) as raised:
            await ask()
        return raised.value

    distrusted = run(says(GOOD), work, server, ssl.create_default_context())
    assert isinstance(distrusted, GoneError) and distrusted.phase == CONNECTING
    assert str(distrusted).startswith("its certificate is refused: ")

    async def silent():
        hold = asyncio.Event()

        async def serve(reader, writer):
            await hold.wait()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asking = HttpClient(f"https://127.0.0.1:{port}", client, {}, 0.1)
        with pytest.raises(SlowError) as raised:
            await asking.exchange("GET", "/", (), 5.0, 100)
        await asking.close()
        hold.set()
        server.close()
        return raised.value

    slow = asyncio.run(silent())
    assert (slow.phase, str(slow)) == (CONNECTING, "nothing within 0.1 s")
