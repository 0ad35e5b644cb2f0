"""What starts a cluster with the files that `certificates` made: the coordinator's cluster file, and the commands."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .cluster import Cluster, Device
from .security import Credentials

_HEAD = "# Made by fusion.certificates, which writes it anew when devices have changed. File names are relative to it."
_FLAGS = {"tls_cert": "cert.pem", "tls_key": "key.pem", "tls_ca": "ca.pem", "token_file": "token.txt"}
_TLS = {flag: file for flag, file in _FLAGS.items() if flag != "token_file"}
# On every machine, in the bundle's folder there.
_KEPT = "secrets"
_COORDINATOR_PORT = 8000


def cluster_text(target: Path, given: Cluster) -> str:
    """The cluster file of the folder `coordinator`: the devices given, called with what was made for them.

    Args:
      target: the folder that was written to.
      given: the devices. What was not made for one (its certificate, its token) stays as it is given.

    Source: ours.
    """
    tables = [_HEAD]
    for device in given.devices:
        keys = {"name": device.name, "url": _url(target, device), **_given(device.credentials)}
        if _is_secured(target, device):
            keys |= _TLS
        if (target / "coordinator" / "tokens" / f"{device.name}.txt").exists():
            keys["token_file"] = f"tokens/{device.name}.txt"
        tables.append(_table("[[device]]", keys))
    if given.discovery is not None:
        # Tokens are of one device each, so those that come by themselves are known by their certificates alone.
        made = _TLS if (target / "coordinator" / "cert.pem").exists() else {}
        tables.append(_table("[discovery]", _given(given.discovery) | made))
    return "\n\n".join(tables) + "\n"


def commands(target: Path, devices: Sequence[Device], coordinator: str) -> str:
    """Shell commands for every machine: what to copy there, and how to start there with it.

    Args:
      target: the folder that was written to.
      devices: the cluster's.
      coordinator: what users call the coordinator by, a name or an address.

    Source: ours.
    """
    # A path as written could be an option of rsync, or another machine.
    here = "" if target.is_absolute() else "./"
    places = [(target / "devices" / device.name, urlsplit(device.url).hostname or "") for device in devices]
    places.append((target / "coordinator", coordinator))
    lines = [
        "# Here: each folder goes to the machine it is for, and to no other, into the bundle's folder there; USER is",
        "# your name on that machine.",
        *(f"rsync -a {shlex.quote(f'{here}{folder}')} {_bundle_at(host)}/{_KEPT}/" for folder, host in places),
    ]
    for device, (folder, host) in zip(devices, places, strict=False):
        parts = urlsplit(_url(target, device))
        port = parts.port or (443 if parts.scheme == "https" else 80)
        lines += [
            "",
            f"# On {device.name}, in the bundle's folder:",
            _command("worker", "--bundle=.", *_listening(host, port), *_shown(folder)),
        ]
    own = target / "coordinator"
    files = ["--bundle=.", f"--cluster={_KEPT}/coordinator/cluster.toml"]
    lines += [
        "",
        "# On the coordinator's machine, in the bundle's folder:",
        _command("coordinator", *files, *_listening(coordinator, _COORDINATOR_PORT), *_shown(own)),
    ]
    scheme = "https" if (own / "cert.pem").exists() else "http"
    url = f"--url={scheme}://{_bracketed(coordinator)}:{_COORDINATOR_PORT}"
    users = target / "users"
    for user in sorted(users.iterdir()) if users.is_dir() else ():
        lines += [
            "",
            f"# {user.name}, in a bundle's folder, with {user} copied into {_KEPT}/ there;",
            "# fusion.plan and fusion.bench take the same flags:",
            _command("predict", url, *_shown(user), "samples/0.png"),
        ]
    return "\n".join(lines) + "\n"


def _is_secured(target: Path, device: Device) -> bool:
    return (target / "devices" / device.name / "cert.pem").exists()


def _url(target: Path, device: Device) -> str:
    return f"https://{urlsplit(device.url).netloc}" if _is_secured(target, device) else device.url


def _given(credentials: Credentials) -> dict[str, str]:
    """The keys of files that the user named, wherever this is written."""
    named = {key: getattr(credentials, key) for key in _FLAGS}
    return {key: str(Path(name).absolute()) for key, name in named.items() if name is not None}


def _table(name: str, keys: dict[str, str]) -> str:
    # A string of JSON is one of TOML.
    return "\n".join([name, *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())])


def _shown(folder: Path) -> list[str]:
    """The flags for the files that a folder has."""
    return [f"--{flag}={_KEPT}/{folder.name}/{file}" for flag, file in _FLAGS.items() if (folder / file).exists()]


def _listening(host: str, port: int) -> list[str]:
    """The flags to be reached at `host`."""
    address = "::" if ":" in host else "0.0.0.0"
    return [f"--host={host if _is_loopback(host) else address}", f"--port={port}"]


def _bundle_at(host: str) -> str:
    return "bundle" if _is_loopback(host) else f"USER@{_bracketed(host)}:bundle"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _command(program: str, *flags: str) -> str:
    return " \\\n    ".join([f".venv/bin/python -m fusion.{program}", *map(shlex.quote, flags)])
