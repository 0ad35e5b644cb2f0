"""Hosts that are looked up, by a stand-in for the machine's resolver."""

import asyncio
import socket
import threading

import pytest

from fusion.asking.exchange import CONNECTING, GoneError, HttpClient, SlowError
from fusion.asking.names import ThreadResolver


class Resolver:
    """Answers `names`; all others hang until `released`."""

    def __init__(self, names):
        self.names, self.asked = names, []
        self.released = threading.Event()

    def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        self.asked.append(host)
        if host not in self.names:
            self.released.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        kinds = {2: socket.AF_INET, 4: socket.AF_INET6}
        return [(kinds[len(address)], type, proto, "", address) for address in self.names[host]]


@pytest.fixture
def resolver(monkeypatch):
    made = Resolver({"two.test": [("10.0.0.1", 80), ("fe80::1", 80, 0, 3)], "here.test": [("127.0.0.1", 80)]})
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.released.set()


async def addresses(host):
    return [result["host"] for result in await ThreadResolver().resolve(host, 80)]


def test_addresses_in_their_order(resolver):
    assert asyncio.run(addresses("two.test")) == ["10.0.0.1", "fe80::1%3"]


def test_names_that_hang_hold_up_no_other_and_not_the_end(resolver):
    async def main():
        hung = [asyncio.create_task(addresses(f"h{i}.test")) for i in range(60)]
        await asyncio.sleep(0)
        found = await addresses("here.test")
        for task in hung:
            task.cancel()
        return found

    # The resolver lets go of the others in 30 s, or when this test has ended.
    assert asyncio.run(main()) == ["127.0.0.1"] and not resolver.released.is_set()


async def ask(url, connect_s=5.0):
    client = HttpClient(url, None, {}, connect_s)
    try:
        return await client.exchange("GET", "/", (), 5, 10)
    finally:
        await client.close()


def test_a_host_is_looked_up_once_at_a_time(resolver):
    async def main():
        client = HttpClient("http://hung.test", None, {}, 0.02)
        for _ in range(3):
            with pytest.raises(SlowError) as slow:
                await client.exchange("GET", "/", (), 5, 10)
            assert slow.value.phase == CONNECTING
        assert resolver.asked == ["hung.test"]
        await client.close()

    asyncio.run(main())


def test_a_name_that_is_unknown(resolver):
    resolver.released.set()
    with pytest.raises(GoneError, match="Temporary failure in name resolution") as gone:
        asyncio.run(ask("http://hung.test"))
    assert gone.value.phase == CONNECTING


def test_connections_by_name(resolver):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        # The first of its addresses refuses.
        resolver.names["here.test"] = [("127.0.0.2", port), ("127.0.0.1", port)]
        assert (await ask(f"http://here.test:{port}")).body == b"ok"
        assert (await ask(f"http://127.0.0.1:{port}")).body == b"ok" and resolver.asked == ["here.test"]
        server.close()
        await server.wait_closed()
        with pytest.raises(GoneError, match="connection refused"):
            await ask(f"http://here.test:{port}")

    asyncio.run(main())
