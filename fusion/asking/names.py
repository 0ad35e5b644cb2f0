"""Names of hosts, looked up so that a name server which hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading

from aiohttp.abc import AbstractResolver, ResolveResult


class ThreadResolver(AbstractResolver):
    """Looks up each name in a thread of its own, which nobody waits for at the end.

    In the threads that an event loop has for all slow work, a few names that nobody answers for would keep all others
    waiting, and the program from ending.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host, in the order to try them. Raises `OSError` where it has none."""
        addresses: concurrent.futures.Future[list[ResolveResult]] = concurrent.futures.Future()

        def look_up() -> None:
            # Nobody waits for them any more where the future is cancelled, or the loop closed.
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                try:
                    addresses.set_result(_addresses(host, port, family))
                except OSError as error:
                    addresses.set_exception(error)
                except UnicodeError as error:
                    addresses.set_exception(OSError(str(error)))

        threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
        return await asyncio.wrap_future(addresses)

    async def close(self) -> None:
        """Nothing is kept."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    results = []
    for kind, _, protocol, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        # A link-local address of IPv6 counts on one network interface alone.
        scope = f"%{address[3]}" if len(address) == 4 and address[3] else ""
        address_text = f"{address[0]}{scope}"
        flags = socket.AI_NUMERICHOST
        results.append(
            ResolveResult(hostname=host, host=address_text, port=port, family=kind, proto=protocol, flags=flags)
        )
    return results
