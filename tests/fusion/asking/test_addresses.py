"""Hosts that are looked up, by a stand-in for the machine's resolver."""

import asyncio
import socket
import threading
import time

import pytest

from fusion.asking.addresses import Addresses
from fusion.asking.exchange import CONNECTING, GoneError, HttpClient, SlowError


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
        return [(family, type, proto, "", one) for one in self.names[host]]


@pytest.fixture
def resolver(monkeypatch):
    made = Resolver({"two.test": [("10.0.0.1", 80), ("fe80::1", 80, 0, 3)], "here.test": [("127.0.0.1", 80)]})
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.released.set()


def test_addresses_in_their_order(resolver):
    assert asyncio.run(Addresses("two.test", 80).found()) == ["10.0.0.1", "fe80::1%3"]


@pytest.mark.parametrize("host", ["10.0.0.7", "::1"])
def test_an_address_is_not_looked_up(resolver, host):
    assert asyncio.run(Addresses(host, 80).found()) == [host] and resolver.asked == []


def test_names_that_hang_hold_up_no_other_and_not_the_end(resolver):
    async def main():
        hung = [asyncio.create_task(Addresses(f"h{i}.test", 80).found()) for i in range(60)]
        await asyncio.sleep(0)
        found = await asyncio.wait_for(Addresses("here.test", 80).found(), 20)
        for task in hung:
            task.cancel()
        return found

    began = time.monotonic()
    assert asyncio.run(main()) == ["127.0.0.1"]
    assert time.monotonic() - began < 25


def test_a_host_is_looked_up_once_at_a_time(resolver):
    async def main():
        addresses = Addresses("hung.test", 80)
        for _ in range(3):
            with pytest.raises(asyncio.exceptions.TimeoutError):
                await asyncio.wait_for(addresses.found(), 0.02)
        resolver.released.set()
        with pytest.raises(socket.gaierror):
            await addresses.found()
        assert resolver.asked == ["hung.test"]
        with pytest.raises(socket.gaierror):
            await addresses.found()
        assert resolver.asked == ["hung.test"] * 2

    asyncio.run(main())


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
        client = HttpClient(f"http://here.test:{port}", None, {}, 5)
        assert (await client.exchange(client.head("GET", "/"), (), 5, 10)).body == b"ok"
        server.close()
        await server.wait_closed()
        with pytest.raises(GoneError) as gone:
            await HttpClient(f"http://here.test:{port}", None, {}, 5).exchange(b"GET / HTTP/1.1\r\n", (), 5, 10)
        assert isinstance(gone.value.__cause__, ConnectionRefusedError)
        with pytest.raises(SlowError) as slow:
            await HttpClient("http://hung.test", None, {}, 0.05).exchange(b"GET / HTTP/1.1\r\n", (), 5, 10)
        assert slow.value.phase == CONNECTING

    asyncio.run(main())
