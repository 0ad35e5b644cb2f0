"""Makes what a cluster needs for TLS and tokens: a private authority, and a folder for each device, the coordinator and
its users.

  python -m fusion.certificates --cluster=cluster.toml --target=certificates --coordinator=192.168.0.10 --tokens

The coordinator's folder gets a cluster file that uses them, and `start.txt` all commands that copy and start; they are
printed too. Run it again for new devices, and every now and then: what is valid stays, what is about to expire is made
anew. Keep `authority/` to yourself. Needs the `cryptography` package for certificates; `--nocertificates --tokens` does
without.
"""

from __future__ import annotations

import importlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from urllib.parse import SplitResult, urlsplit

from absl import flags

from ..base.columns import render
from ..base.files import PRIVATE, check_json_target, results, write_bytes, write_json
from ..base.paths import define_path
from ..base.program import UserError, run
from ..cluster.file import Device, check_url, load
from ..security.credentials import Credentials
from . import starting

_CLUSTER = define_path("cluster", None, "The cluster file (TOML) that names the devices.")
_TARGET = define_path("target", "certificates", "Folder to write to; what is there and valid is kept.")
_COORDINATOR = flags.DEFINE_list(
    "coordinator",
    None,
    "DNS names and IP addresses that users call the coordinator by, beside localhost and 127.0.0.1. Default: those of "
    "its certificate, if there is one. A port, as in hub.example:9000 or [2001:db8::1]:9000, is that of the commands; "
    f"without one it is {starting.COORDINATOR_PORT}.",
)
_USERS = flags.DEFINE_list("users", ["user"], "Who gets a client certificate for the coordinator, one folder each.")
_CERTIFICATES = flags.DEFINE_bool("certificates", True, "Makes certificates.")
_TOKENS = flags.DEFINE_bool("tokens", False, "Makes a bearer token for each device and one for the coordinator.")
_DAYS = flags.DEFINE_integer("days", 730, "Days that a new certificate is valid.", 1, 3650)
_RENEW = flags.DEFINE_bool("renew", False, "Makes certificates and tokens anew that are valid; the authority stays.")
_JSON = define_path("json", None, "Also writes the table to this file.")

_LOCAL = ("localhost", "127.0.0.1")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_TOKEN_BYTES = 32


_Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Place:
    """One folder to make: whose it is, the names that its certificate is for, and whether that is shown to servers that
    ask for one (`client`)."""

    title: str
    folder: Path
    names: tuple[str, ...]
    client: bool

    @property
    def is_user(self) -> bool:
        return self.folder.parent.name == "users"


def main(arguments: list[str]) -> int:
    """Makes the folders, tells what is in them and where they belong; returns the exit status."""
    check_json_target(_JSON.value)
    if _CLUSTER.value is None:
        raise UserError("--cluster is missing; legal: the path of a cluster file.")
    if not _CERTIFICATES.value and not _TOKENS.value:
        raise UserError("there is nothing to make; legal: --certificates, --tokens or both.")
    cluster = load(_CLUSTER.value)
    target = Path(_TARGET.value)
    urls = _coordinator_urls()
    names = _coordinator_names(urls, target / "coordinator" / "cert.pem")
    places = _places(target, cluster.devices, names)
    for folder in (target, *(place.folder for place in places)):
        _make_private(folder)
    rows = _make_certificates(target, places) if _CERTIFICATES.value else []
    rows += _make_tokens(target, places) if _TOKENS.value else []
    file = target / "coordinator" / "cluster.toml"
    rows.append((str(file), _write(file, starting.cluster_text(target, cluster)), "", "coordinator"))
    port = next((url.port for url in urls if url.port), starting.COORDINATOR_PORT)
    commands = starting.commands(target, cluster.devices, names[0], port)
    _write(target / "start.txt", commands)
    with results() as write:
        if _JSON.value:
            keys = ("file", "state", "valid_until", "for")
            write(write_json, _JSON.value, [dict(zip(keys, row, strict=True)) for row in rows])
        print(render(("file", "state", "valid until", "for"), rows))
        print(f"\n{commands}\nThe same commands are in {target / 'start.txt'}.")
        if _CERTIFICATES.value:
            print(f"{target}/authority/ stays here, or better offline: who has it can pass for every machine.")
    return 0


def _coordinator_urls() -> list[SplitResult]:
    """https://name[:port] of what stands in the flag."""
    urls = []
    for name in _COORDINATOR.value or ():
        # An address of IPv6 needs brackets only before a port.
        host = f"[{name}]" if name.count(":") > 1 and "[" not in name else name
        try:
            urls.append(urlsplit(check_url(f"https://{host}", "--coordinator")))
        except UserError as error:
            raise UserError(
                f"--coordinator has {name!r}; legal: DNS names and IP addresses, which :port may follow."
            ) from error
    return urls


def _coordinator_names(urls: Sequence[SplitResult], certificate: Path) -> Sequence[str]:
    """What users call the coordinator by: what the flag says, or else its certificate."""
    if urls:
        return list(dict.fromkeys((*(url.hostname or "" for url in urls), *_LOCAL)))
    if _CERTIFICATES.value and certificate.exists():
        authority = _authority()
        return authority.names_of(authority.read(certificate)) or _LOCAL
    return _LOCAL


def _places(target: Path, devices: Sequence[Device], coordinator: Sequence[str]) -> list[_Place]:
    """Every folder: the devices', the coordinator's, and those of users, new and old."""
    users = target / "users"
    present = sorted(entry.name for entry in users.iterdir() if entry.is_dir()) if users.is_dir() else []
    names = dict.fromkeys([*_USERS.value, *filter(_NAME.fullmatch, present)])
    for name in [*(device.name for device in devices), *names]:
        if not _NAME.fullmatch(name):
            raise UserError(
                f"name {name!r} cannot be a folder's here; legal: letters, digits, '_', '-', and '.' but in front."
            )
        # Where two are on one machine, their folders lie beside each other.
        if name == "coordinator":
            raise UserError(f"name {name!r} is the coordinator's; legal: another one for devices and users.")
    places = []
    for device in devices:
        host = urlsplit(device.url).hostname or ""
        places.append(_Place(f"device {device.name}", target / "devices" / device.name, (host,), client=False))
    # One certificate for both its sides: to users a server, to workers a client.
    places.append(_Place("coordinator", target / "coordinator", tuple(coordinator), client=True))
    return places + [_Place(f"user {name}", users / name, (), client=True) for name in names]


def _authority() -> ModuleType:
    try:
        return importlib.import_module(".authority", __package__)
    except ImportError as error:
        raise UserError(
            f"certificates need the Python package 'cryptography', which cannot be imported ({error}); legal: install "
            "it, or --nocertificates --tokens."
        ) from error


def _make_certificates(target: Path, places: Sequence[_Place]) -> list[_Row]:
    """Makes what is missing or about to expire; returns a row for each certificate."""
    module = _authority()
    now = datetime.now(timezone.utc).replace(microsecond=0)  # noqa: UP017 - Python 3.10 has no datetime.UTC.
    _make_private(target / "authority")
    authority = module.Authority(target / "authority", now)
    rows = [(str(target / "authority" / "ca.pem"), "the authority", f"{authority.until:%Y-%m-%d}", "")]
    for place in places:
        cert, key, ca = (place.folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
        subject = module.Subject(place.title, place.names, place.client)
        reason = "new" if _RENEW.value else authority.reason_to_renew(cert, key, subject)
        if reason is not None:
            pem, private = authority.issue(subject, _DAYS.value)
            # Whoever stops this program in between finds a pair that does not fit, which the next run makes anew.
            write_bytes(key, private, PRIVATE)
            write_bytes(cert, pem)
        if not ca.exists() or ca.read_bytes() != authority.pem:
            write_bytes(ca, authority.pem)
        certificate = module.read(cert)
        names = ", ".join(module.names_of(certificate)) or place.folder.name
        rows.append((str(cert), reason or "kept", f"{certificate.not_valid_after_utc:%Y-%m-%d}", names))
    return rows


def _make_tokens(target: Path, places: Sequence[_Place]) -> list[_Row]:
    """One token per device, which the coordinator gets too, and one that users show to the coordinator."""
    tokens = target / "coordinator" / "tokens"
    _make_private(tokens)
    rows = []
    for place in places:
        if place.is_user:
            continue
        path = place.folder / "token.txt"
        keep = path.exists() and not _RENEW.value
        token = Credentials(token_file=str(path)).token() if keep else secrets.token_urlsafe(_TOKEN_BYTES)
        copies = [tokens / f"{place.folder.name}.txt"]
        if place.title == "coordinator":
            copies = [user.folder / "token.txt" for user in places if user.is_user]
        for file in (path, *copies):
            write_bytes(file, f"{token}\n".encode(), PRIVATE)
        rows.append((str(path), "kept" if keep else "new", "", place.title))
    return rows


def _make_private(folder: Path) -> None:
    """A folder that only this user can enter; one that is there keeps its permissions."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {str(folder)!r} cannot be made: {error.strerror}.") from error


def _write(file: Path, text: str) -> str:
    """Writes a file that is not secret, and returns what became of it."""
    data = text.encode()
    before = file.read_bytes() if file.is_file() else None
    if before != data:
        write_bytes(file, data)
    return "new" if before is None else "kept" if before == data else "new, as devices or files have changed"


if __name__ == "__main__":
    run(main)
