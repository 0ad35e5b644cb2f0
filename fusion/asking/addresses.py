"""The addresses of hosts, looked up so that a name server which hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading


class Addresses:
    """Looks up one host, at most once at a time.

    Args:
      host: a name, or an address, which needs no looking up.
      port: where it is to be connected to.

    The event loop looks up names in the threads that it has for all slow work, so a few names that nobody answers for
    would keep all others waiting, and the program from ending. Here each host has a thread of its own, while it is
    looked up, that nobody waits for at the end.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._pending: asyncio.Future[list[str]] | None = None
        self._is_address = False
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(host)
            self._is_address = True

    async def found(self) -> list[str]:
        """The host's addresses in the order to try them. Raises `OSError` where it has none."""
        if self._is_address:
            return [self._host]
        if self._pending is None or self._pending.done():
            loop = asyncio.get_running_loop()
            self._pending = loop.create_future()
            # Perhaps nobody waits for it any more.
            self._pending.add_done_callback(asyncio.Future.exception)
            work = (loop, self._pending)
            threading.Thread(target=self._look_up, args=work, name=f"look up {self._host}", daemon=True).start()
        return await asyncio.shield(self._pending)

    def _look_up(self, loop: asyncio.AbstractEventLoop, pending: asyncio.Future[list[str]]) -> None:
        found, failed = [], None
        try:
            for *_, address in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM):
                # A link-local address of IPv6 counts on one network interface alone.
                scope = f"%{address[3]}" if len(address) == 4 and address[3] else ""
                found.append(f"{address[0]}{scope}")
        except (OSError, UnicodeError) as error:
            failed = error if isinstance(error, OSError) else OSError(str(error))
        # The loop is closed when the program has ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, pending, found, failed)


def _settle(pending: asyncio.Future[list[str]], found: list[str], failed: OSError | None) -> None:
    if pending.done():
        return
    if failed is None:
        pending.set_result(found)
    else:
        pending.set_exception(failed)
