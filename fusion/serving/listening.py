"""Where and how a server listens: the flags worker and coordinator share, start, readiness line and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from ..base import streams
from ..base.paths import define_path
from ..base.program import LONGEST_S, UserError, define_float
from ..security.credentials import Credentials, is_loopback
from .connections import Connections
from .server import Server

HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on. Any but a loopback one needs --token_file, TLS or --insecure."
)
PORT = flags.DEFINE_integer("port", 0, "TCP port to listen on; 0 takes a free one.", 0, 65535)
TOKEN_FILE = define_path(
    "token_file", None, "File with a bearer token that every request but /v2/health/live must show."
)
TLS_CERT = define_path("tls_cert", None, "PEM certificate of this server: listens with TLS.")
TLS_KEY = define_path("tls_key", None, "Unencrypted PEM private key of --tls_cert.")
TLS_CA = define_path("tls_ca", None, "PEM certificates that a client's must come from: mutual TLS.")
INSECURE = flags.DEFINE_bool(
    "insecure", False, "Listens beyond loopback with neither token nor TLS: anyone can send images."
)
MAX_BODY_MB = define_float("max_body_mb", 64, "Largest request body in MB, decompressed.", 0.001, 100_000)
MAX_BATCH = flags.DEFINE_integer("max_batch", 32, "Largest batch of a request, in images.", 1)
REQUEST_TIMEOUT_S = define_float(
    "request_timeout_s", 10, "Seconds that one request may take before it is answered 504.", 0.001, LONGEST_S
)
MAX_CONNECTIONS = flags.DEFINE_integer(
    "max_connections", 256, "Most connections at a time; one more takes the place of one that is idle, or gets 503.", 1
)
STOP_AT_STDIN_END = flags.DEFINE_bool(
    "stop_at_stdin_end",
    False,
    "Stops when standard input ends, so that the server never outlives the program that started it.",
)

_HANDSHAKE_S = 10.0
_BACKLOG = 128


def credentials() -> Credentials:
    """The listening side's credentials, from the flags.

    Raises `UserError` when the host is no address, and when it is not a loopback one and nothing protects it.
    """
    if not _is_host(HOST.value):
        raise UserError(_no_address())
    own = Credentials(TOKEN_FILE.value, TLS_CA.value, TLS_CERT.value, TLS_KEY.value)
    open_ = own.token_file is None and own.tls_cert is None
    if open_ and not INSECURE.value and not is_loopback(HOST.value):
        raise UserError(
            f"host {HOST.value!r} is reachable from other machines; legal: with --token_file, "
            "with --tls_cert and --tls_key, or with --insecure."
        )
    return own


def say(text: str) -> None:
    """A line of the log, on standard error: the local time, HH:MM:SS, and the text. A full disk does not end a
    server."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def at_hangup(call: Callable[[], None]) -> None:
    """Has the running loop call this at SIGHUP, in place of what it called before."""
    # Windows has neither the signal nor such handlers.
    with contextlib.suppress(NotImplementedError, AttributeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, call)


def watch_stdin() -> None:
    """With --stop_at_stdin_end, ends this process as SIGTERM does once standard input ends."""
    if STOP_AT_STDIN_END.value:
        threading.Thread(target=_wait_for_stdin_end, daemon=True).start()


def bind() -> list[socket.socket]:
    """Takes the address to listen on, before any long work; `serve` listens on it.

    Until then a client is refused, as it is where no program is. Raises `UserError` when the address
    is in use or not of this machine.
    """
    sockets: list[socket.socket] = []
    port, failed = PORT.value, None
    for family, address in _addresses():
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failed = error
            continue
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A port just left by another process is free; a free one to choose must be nobody else's.
            if os.name == "posix" and port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address[0], port, *address[2:]))
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError as error:
            listener.close()
            failed = error
            # A name may have an address that this machine lacks, as localhost without IPv6.
            if error.errno == errno.EADDRNOTAVAIL:
                continue
            break
        port = listener.getsockname()[1]
        sockets.append(listener)
    if failed is not None and (not sockets or failed.errno == errno.EADDRINUSE):
        _close(sockets)
        raise UserError(_cannot_listen(failed)) from failed
    return sockets


async def serve(
    server: Server,
    kind: str,
    own: Credentials,
    context: ssl.SSLContext | None,
    sockets: Sequence[socket.socket],
    on_hangup: Callable[[], None] = lambda: None,
) -> int:
    """Listens with `server` on `sockets`, from `bind`, until SIGINT or SIGTERM, then finishes the running requests.

    Prints one line on standard output when it accepts requests: `<kind> ready: <url>`. At SIGHUP the files of `own`
    are read anew, for the requests and connections from then on; where they are unfit, that is said, and the old ones
    stay. Returns the exit status, 130 after SIGINT and 143 after SIGTERM. Raises `UserError` when the address cannot
    be listened on.

    Args:
      own: where token and certificate come from.
      context: what its files gave at the start.
      on_hangup: is called at SIGHUP too.
    """
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Event loops on Windows have no signal handlers; there Ctrl-C ends the program at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, signals.put_nowait, number)
    connections = Connections(server.answer, MAX_CONNECTIONS.value)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(connections.stop, REQUEST_TIMEOUT_S.value)
        listeners = _Listeners(connections, sockets)
        stack.callback(listeners.close)
        try:
            await listeners.listen(context)
        except OSError as error:
            raise UserError(_cannot_listen(error)) from error
        renewal = asyncio.Event()

        def hang_up() -> None:
            renewal.set()
            on_hangup()

        at_hangup(hang_up)
        renewals = asyncio.create_task(_renew(server, kind, own, listeners, renewal))
        stack.callback(renewals.cancel)
        port = sockets[0].getsockname()[1]
        host = f"[{HOST.value}]" if ":" in HOST.value else HOST.value
        streams.say(f"{kind} ready: {'https' if context else 'http'}://{host}:{port}")
        status = 128 + await signals.get()
        say(f"{kind} stops: finishing the running requests")
        return status


class _Listeners:
    """What takes the connections of some sockets."""

    def __init__(self, connections: Connections, sockets: Sequence[socket.socket]) -> None:
        self._connections, self._sockets = connections, sockets
        self._servers: list[asyncio.Server] = []
        for listener in sockets:
            # A duplicate shares this, and would else make what listens block the loop when no client is left to take.
            listener.setblocking(False)

    async def listen(self, context: ssl.SSLContext | None) -> None:
        """Takes new connections with this TLS; those that are open keep theirs. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        handshake_s = None if context is None else _HANDSHAKE_S
        servers: list[asyncio.Server] = []
        # A server closes its socket; of a duplicate, no client is turned away meanwhile.
        duplicates = [listener.dup() for listener in self._sockets]
        try:
            for duplicate in duplicates:
                servers.append(
                    await loop.create_server(
                        self._connections,
                        sock=duplicate,
                        ssl=context,
                        ssl_handshake_timeout=handshake_s,
                        backlog=_BACKLOG,
                    )
                )
        except BaseException:
            _close(servers)
            _close(duplicates)
            raise
        old, self._servers = self._servers, servers
        for listener in itertools.chain.from_iterable(server.sockets for server in old):
            loop.remove_reader(listener.fileno())
        # Clients just taken begin with the loop's next turn, for which asyncio wants their server open.
        await asyncio.sleep(0)
        _close(old)

    def close(self) -> None:
        """Takes no more connections."""
        _close(self._servers)
        _close(self._sockets)


def _close(listening: Sequence[asyncio.Server | socket.socket]) -> None:
    for closable in listening:
        closable.close()


async def _renew(server: Server, kind: str, own: Credentials, listeners: _Listeners, renewal: asyncio.Event) -> None:
    """Reads token and certificate anew at each `renewal`."""
    while True:
        await renewal.wait()
        renewal.clear()
        if own == Credentials():
            continue
        try:
            # Both are read before either counts, beside the requests that run.
            context, token = await asyncio.to_thread(lambda: (own.server_context(), own.token()))
            if context is not None:
                await listeners.listen(context)
        except (UserError, OSError) as error:
            say(f"{kind}: token and certificate stay as they were: {error}")
            continue
        server.change_token(token)
        say(f"{kind}: token and certificate were read anew")


def _addresses() -> list[tuple[int, tuple[Any, ...]]]:
    """The families and socket addresses of the host; raises `UserError` where it has none."""
    try:
        results = socket.getaddrinfo(HOST.value, PORT.value, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(_no_address()) from error
    return list(dict.fromkeys((int(family), tuple(address)) for family, _, _, _, address in results))


def _no_address() -> str:
    return f"host {HOST.value!r} is no address; legal: an address of this machine."


def _is_host(host: str) -> bool:
    """Whether `host` is written as an address or a name; what ends in a number can only be an address."""
    try:
        if ":" in host or host.rpartition(".")[2].isdecimal():
            ipaddress.ip_address(host)
        return bool(host.encode("idna"))
    except ValueError:
        return False


def _cannot_listen(error: OSError) -> str:
    address = f"{HOST.value}:{PORT.value}"
    if error.errno == errno.EADDRINUSE:
        return f"port {PORT.value} of {HOST.value} is in use; legal: a free port, or 0 to take any."
    return f"cannot listen on {address}: {os.strerror(error.errno) if error.errno else error}."


def _wait_for_stdin_end() -> None:
    # os.read takes none of the locks that an interpreter shutting down would stumble over.
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
