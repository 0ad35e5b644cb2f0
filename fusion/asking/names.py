"""Names of hosts, looked up so that a name server which hangs holds up nobody else."""

from __future__ import annotations

import asyncio
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
        loop = asyncio.get_running_loop()
        addresses: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def look_up() -> None:
            results, failure = [], None
            try:
                results = _addresses(host, port, family)
            except (OSError, UnicodeError) as error:
                failure = error if isinstance(error, OSError) else OSError(str(error))
            # The loop is closed when the program has ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, results, failure)

        def settle(results: list[ResolveResult], failure: OSError | None) -> None:
            if addresses.done():
                return
            if failure is None:
                addresses.set_result(results)
            else:
                addresses.set_exception(failure)

        threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
        return await addresses

    async def close(self) -> None:
        """Nothing is kept."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    results = []
    for kind, _, protocol, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        # A link-local address of IPv6 counts on one network interface alone.
        scope = f"%{address[3]}" if len(address) == 4 and address[3] else ""
        results.append(
            ResolveResult(
                hostname=host,
                host=f"{address[0]}{scope}",
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
        )
    return results
