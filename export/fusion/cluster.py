"""The cluster file: the devices that share the work, in order. Device i runs slice i of the switch.

    [[device]]
    name = "pi-1"
    url = "http://192.168.1.11:8001"
    token_file = "token.txt"     # optional: the worker's bearer token
    tls_ca = "ca.pem"            # optional, with https: the authority of the worker's certificate
    tls_cert = "me.pem"          # optional, with https: what to show a worker that asks (mutual TLS)
    tls_key = "me.key"

File names in it are relative to the cluster file.
"""

from __future__ import annotations

import importlib
import ipaddress
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .program import UserError
from .security import Credentials

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


def load(path: str | Path) -> tuple[Device, ...]:
    """The devices of a cluster file, in order.

    Raises `UserError` when the file cannot be read or is no TOML, has no device, an unknown or
    missing key, a value that is no string, a name or URL twice, or a URL that is not
    http(s)://host[:port]. Source: ours.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cluster file {str(path)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cluster file {str(path)!r} is not UTF-8 text.") from error
    try:
        tables = tomllib.loads(text)
    except RecursionError as error:
        raise UserError(f"cluster file {str(path)!r} is nested too deeply; legal: [[device]] tables.") from error
    except ValueError as error:
        # A number of too many digits is none of tomllib's own errors.
        raise UserError(f"cluster file {str(path)!r} is not TOML: {error}.") from error
    for key in tables:
        if key != "device":
            raise UserError(f"cluster file {str(path)!r} has the key {key!r}; legal: [[device]] tables.")
    entries = tables.get("device", [])
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise UserError(f"cluster file {str(path)!r} names no device; legal: one [[device]] table each.")
    devices = tuple(_device(Path(path), i, entry) for i, entry in enumerate(entries))
    for key in ("name", "url"):
        values = [getattr(device, key) for device in devices]
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"cluster file {str(path)!r} has the {key} {value!r} twice; legal: one device each.")
    return devices


def _device(path: Path, index: int, entry: dict[str, Any]) -> Device:
    where = f"device {index} of cluster file {str(path)!r}"
    for key, value in entry.items():
        if key not in _KEYS:
            raise UserError(f"{where} has the key {key!r}; legal: {', '.join(_KEYS)}.")
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: {key} is {value!r}; legal: a string.")
    for key in ("name", "url"):
        if key not in entry:
            raise UserError(f"{where} has no {key}.")
    if not _NAME.fullmatch(entry["name"]):
        raise UserError(f"{where}: name is {entry['name']!r}; legal: letters, digits, '.', '_' and '-'.")
    files = {key: str(path.parent / entry[key]) for key in _FILES if key in entry}
    return Device(entry["name"], check_url(entry["url"], where), Credentials(**files))


def check_url(url: str, where: str) -> str:
    """`url` in lower case and without a trailing slash, if it is http(s)://host[:port]; else raises `UserError`, naming
    `where`."""
    try:
        parts = urlsplit(url)
        # urlsplit drops tabs and line ends without a word.
        plain = url.isprintable() and parts.scheme in ("http", "https") and _is_host(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise UserError(f"{where}: url is {url!r}; legal: http(s)://host[:port].")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _is_host(host: str | None) -> bool:
    """Whether a connection can be asked for to `host`; may raise `ValueError` where it cannot."""
    if not host:
        return False
    if ":" in host:
        return ipaddress.ip_address(host).version == 6
    # Refuses labels that are empty or longer than 63 letters.
    plain = host.encode("idna").decode("ascii")
    return len(plain) <= _LONGEST_HOST and _NAME.fullmatch(plain) is not None
