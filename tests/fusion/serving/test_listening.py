"""What listens is replaced while clients come: at a renewal, none of them is lost."""

import asyncio
import os
import socket
import threading
from typing import Any

from fusion.serving.listening import _Listeners

WAIT_S = 60


class Greeter(asyncio.Protocol):
    """Says a word to each client."""

    def connection_made(self, transport):
        transport.write(b"x")
        transport.close()


GREETERS: Any = Greeter


def bound():
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def test_no_client_is_lost_when_listeners_are_replaced():
    heard: list[Any] = []
    over = threading.Event()

    def come(address):
        while not over.is_set():
            with socket.create_connection(address, WAIT_S) as client:
                try:
                    heard.append(client.recv(1))
                except OSError as error:
                    heard.append(error)

    async def main():
        sockets = [bound()]
        listeners = _Listeners(GREETERS, sockets)
        await listeners.listen(None)
        clients = [threading.Thread(target=come, args=(sockets[0].getsockname(),)) for _ in range(2)]
        for client in clients:
            client.start()
        renewals = 0
        while renewals < 300 or len(heard) <= 100:
            await listeners.listen(None)
            await asyncio.sleep(0.001)
            renewals += 1
        over.set()
        while any(client.is_alive() for client in clients):
            await asyncio.sleep(0.01)
        listeners.close()

    asyncio.run(main())
    assert set(heard) == {b"x"}


def test_nothing_that_listens_ever_blocks():
    modes: list[bool] = []

    async def main():
        sockets = [bound(), bound()]
        listeners = _Listeners(GREETERS, sockets)
        await listeners.listen(None)
        renewed = asyncio.create_task(listeners.listen(None))
        while not renewed.done():
            await asyncio.sleep(0)
            modes.extend(os.get_blocking(one.fileno()) for one in sockets)
        listeners.close()

    asyncio.run(main())
    assert modes and not any(modes)
