"""The cluster file: the devices that share the work.

    [[device]]
    name = "pi-1"
    url = "http://192.168.1.11:8001"
    token_file = "token.txt"     # optional: the worker's bearer token
    tls_ca = "ca.pem"            # optional, with https: the authority of the worker's certificate
    tls_cert = "me.pem"          # optional, with https: what to show a worker that asks (mutual TLS)
    tls_key = "me.key"

With a table `[discovery]`, devices that announce themselves by mDNS join it, if they serve the same model; it may hold
the same file keys, for calling those. Anyone in the network can announce anything, so its token_file wants a tls_ca:
the token is shown to those alone whose certificate comes from there.

File names in it are relative to the cluster file, and `~` is a home. A worker that two addresses lead to is noticed
when the second device reaches it, and that device is told to be down.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..base.files import read_text
from ..base.paths import expand
from ..base.program import UserError
from ..security.credentials import Credentials

# tomli is the same module for the Python that does not bring it yet.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LONGEST_HOST = 253
_FILES = ("token_file", "tls_ca", "tls_cert", "tls_key")
_KEYS = ("name", "url", *_FILES)


@dataclass(frozen=True)
class Device:
    """One device: its name, its worker's URL without a trailing slash, and how to call it."""

    name: str
    url: str
    credentials: Credentials

    @property
    def named(self) -> str:
        """How sentences about it begin."""
        return f"device {self.name} at {self.url}"


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file as read: its devices, in order, and how devices that are discovered are called, None where none
    shall be discovered."""

    devices: tuple[Device, ...]
    discovery: Credentials | None


def load(path: str | Path) -> ClusterFile:
    """Reads a cluster file.

    Raises `UserError` when the file cannot be read or is no TOML, has neither device nor discovery, an unknown or
    missing key, a value that is no string, a name or URL twice, a URL that is not http(s)://host[:port], or a token for
    devices that anyone could announce.
    """
    path, where = Path(path), f"cluster file {str(path)!r}"
    tables = _tables(path, where)
    for key in tables:
        if key not in ("device", "discovery"):
            raise UserError(f"{where} has the key {key!r}; legal: [[device]] tables and one [discovery].")
    discovery = _discovery(path, tables["discovery"], f"[discovery] of {where}") if "discovery" in tables else None
    entries = tables.get("device", [])
    are_tables = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not are_tables or not (entries or discovery):
        raise UserError(f"{where} names no device; legal: one [[device]] table each.")
    devices = tuple(_device(path, entry, f"device {i} of {where}") for i, entry in enumerate(entries))
    for key in ("name", "url"):
        values = [getattr(device, key) for device in devices]
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{where} has the {key} {value!r} twice; legal: one device each.")
    return ClusterFile(devices, discovery)


def _tables(path: Path, where: str) -> dict[str, Any]:
    # A pipe in its place would be waited for.
    if path.exists() and not path.is_file():
        raise UserError(f"{where} is no file.")
    text = read_text(path, "cluster file")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply; legal: [[device]] tables.") from error
    except ValueError as error:
        # A number of too many digits is none of tomllib's own errors.
        raise UserError(f"{where} is not TOML: {error}.") from error


def _discovery(path: Path, table: Any, where: str) -> Credentials:
    if not isinstance(table, dict):
        raise UserError(f"{where} is {table!r}; legal: a table.")
    _check_keys(table, _FILES, where)
    credentials = _credentials(path, table)
    if credentials.token_file is not None and credentials.tls_ca is None:
        raise UserError(
            f"{where} has a token_file and no tls_ca; anyone could announce a device and be shown the token."
        )
    return credentials


def _check_keys(table: dict[str, Any], legal: Sequence[str], where: str) -> None:
    for key, value in table.items():
        if key not in legal:
            raise UserError(f"{where} has the key {key!r}; legal: {', '.join(legal)}.")
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {key} is {value!r}; legal: a string.")


def _credentials(path: Path, table: dict[str, Any]) -> Credentials:
    return Credentials(**{key: str(path.parent / expand(table[key])) for key in _FILES if key in table})


def _device(path: Path, entry: dict[str, Any], where: str) -> Device:
    _check_keys(entry, _KEYS, where)
    for key in ("name", "url"):
        if key not in entry:
            raise UserError(f"{where} has no {key}.")
    if not _NAME.fullmatch(entry["name"]):
        raise UserError(f"{where}: name is {entry['name']!r}; legal: letters, digits, '.', '_' and '-'.")
    return Device(entry["name"], check_url(entry["url"], where), _credentials(path, entry))


def check_url(url: str, where: str) -> str:
    """`url` in lower case and without a trailing slash, if it is http(s)://host[:port]; else raises `UserError`, naming
    `where`."""
    try:
        address = urlsplit(url)
        # urlsplit drops tabs and line ends without a word.
        plain = (
            url.isprintable()
            and address.scheme in ("http", "https")
            and _is_host(address.hostname)
            and address.port != 0
        )
    except ValueError:
        plain = False
    if not plain or address.path not in ("", "/") or address.query or address.fragment or "@" in address.netloc:
        raise UserError(f"{where}: url is {url!r}; legal: http(s)://host[:port].")
    return f"{address.scheme}://{address.netloc.lower()}"


def _is_host(host: str | None) -> bool:
    """Whether a connection can be asked for to `host`; may raise `ValueError` where it cannot."""
    if not host:
        return False
    if ":" in host:
        return ipaddress.ip_address(host).version == 6
    # Refuses labels that are empty or longer than 63 letters.
    plain = host.encode("idna").decode("ascii")
    return len(plain) <= _LONGEST_HOST and _NAME.fullmatch(plain) is not None
