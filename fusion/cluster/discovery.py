"""Finds workers on the local network by mDNS, with the package `zeroconf`, which nothing else needs.

A worker announces the service `_paradis-fusion._tcp` with its port and, as text, `name`, `model_id` and `tls` (1 or 0).
Anyone on the network can announce anything: an announcement is checked for its form alone. So whoever connects to
such a worker has to check the model id there, and to show it no token that was not meant for it.
"""

from __future__ import annotations

import contextlib
import importlib
import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..base.program import UserError
from .file import check_url

SERVICE = "_paradis-fusion._tcp.local."
MOST = 256
"""Workers that are kept at most."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
# What mDNS allows for the first part of a service's name, in bytes.
_LONGEST_LABEL = 63
_ASK_MS = 3000
_Callback = Callable[["AnnouncedWorker"], None]


@dataclass(frozen=True)
class AnnouncedWorker:
    """A worker on the network: its name, the URL of its first IPv4 (else IPv6) address, its bundle's model id."""

    name: str
    url: str
    model_id: str


@contextlib.contextmanager
def announce(
    name: str, port: int, model_id: str, tls: bool = False, addresses: Sequence[str] | None = None
) -> Iterator[None]:
    """Announces a worker while the block runs, and takes it back at its end.

    Args:
      name: the device's name, of letters, digits, '.', '_' and '-', 200 at most.
      port: where it listens.
      model_id: its bundle's.
      tls: whether it listens with TLS.
      addresses: where it listens; None is every IPv4 address of this machine but the loopback ones.

    Takes about a second, and must not be entered in a thread that runs an event loop. Raises `UserError` without the
    package, without a network, and for a name or model id of another form. mDNS is RFC 6762 and 6763.
    """
    for what, value in (("name", name), ("model id", model_id)):
        if not _NAME.fullmatch(value):
            raise UserError(f"{what} {value!r} cannot be announced; legal: letters, digits, '.', '_' and '-'.")
    package = _zeroconf()
    if addresses is None:
        addresses = [text for text in package.get_all_addresses() if not ipaddress.ip_address(text).is_loopback]
    if not addresses:
        raise UserError("this machine has no address beyond loopback to announce; legal: with a network.")
    # The same after a restart, and another one than that of another worker of this name.
    label = f"{name[: _LONGEST_LABEL // 2]}-{port}-{_host()}"[:_LONGEST_LABEL]
    service_info = package.ServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=port,
        properties={"name": name, "model_id": model_id, "tls": "1" if tls else "0"},
        parsed_addresses=list(addresses),
        server=f"{_host()}.local.",
    )
    with _running(package) as service:
        service.register_service(service_info, allow_name_change=True)
        try:
            yield
        finally:
            service.unregister_service(service_info)


@contextlib.contextmanager
def browse(appeared: _Callback, vanished: _Callback) -> Iterator[None]:
    """Tells of workers as they appear and vanish, while the block runs.

    Args:
      appeared, vanished: called with each worker, in a thread of the package; a worker that changed first vanishes.
        What they raise is lost.

    Must not be entered in a thread that runs an event loop. Raises `UserError` as `announce`.
    """
    package = _zeroconf()
    known: dict[str, AnnouncedWorker] = {}

    # The package gives these by name.
    def changed(zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        worker = None
        if state_change is not package.ServiceStateChange.Removed:
            service_info = zeroconf.get_service_info(service_type, name, _ASK_MS)
            worker = None if service_info is None else read_announcement(service_info)
        before = known.get(name)
        if worker == before or (before is None and len(known) >= MOST):
            return
        if before is not None:
            del known[name]
            vanished(before)
        if worker is not None:
            known[name] = worker
            appeared(worker)

    with _running(package) as service:
        browser = package.ServiceBrowser(service, SERVICE, handlers=[changed])
        try:
            yield
        finally:
            browser.cancel()


def read_announcement(service_info: Any) -> AnnouncedWorker | None:
    """The worker of a `zeroconf.ServiceInfo`, or None where that is of another form."""
    try:
        texts = {key.decode("ascii"): (value or b"").decode("ascii") for key, value in service_info.properties.items()}
        name, model_id, scheme = texts["name"], texts["model_id"], {"0": "http", "1": "https"}[texts["tls"]]
        addresses = sorted(map(ipaddress.ip_address, service_info.parsed_addresses()), key=lambda ip: ip.version)
        if not addresses or not (_NAME.fullmatch(name) and _NAME.fullmatch(model_id)):
            return None
        host = f"[{addresses[0]}]" if addresses[0].version == 6 else str(addresses[0])
        return AnnouncedWorker(name, check_url(f"{scheme}://{host}:{service_info.port}", name), model_id)
    except (KeyError, ValueError):
        return None


@contextlib.contextmanager
def _running(package: Any) -> Iterator[Any]:
    try:
        service = package.Zeroconf()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"mDNS cannot be used on this machine: {reason}; legal: with a network.") from error
    try:
        yield service
    finally:
        service.close()


def _host() -> str:
    """This machine's name as mDNS takes it."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().split(".")[0])[:_LONGEST_LABEL].strip("-") or "board"


def _zeroconf() -> Any:
    try:
        return importlib.import_module("zeroconf")
    except ImportError as error:
        raise UserError("finding devices by mDNS needs the package zeroconf; legal: pip install zeroconf.") from error
