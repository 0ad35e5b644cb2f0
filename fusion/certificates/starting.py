"""What starts a cluster with the files that `certificates` made: the coordinator's cluster file, and the commands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ..cluster.file import ClusterFile, Device
from ..security.credentials import Credentials, is_loopback

_HEAD = "# Made by fusion.certificates, which writes it anew when devices have changed. File names are relative to it."
_FLAGS = {"tls_cert": "cert.pem", "tls_key": "key.pem", "tls_ca": "ca.pem", "token_file": "token.txt"}
_TLS = {flag: file for flag, file in _FLAGS.items() if flag != "token_file"}
# On every machine, in the bundle's folder there, which a person has to put in.
_KEPT = "secrets"
_BUNDLE = "BUNDLE"
COORDINATOR_PORT = 8000


def cluster_text(target: Path, cluster: ClusterFile) -> str:
    """The cluster file of the folder `coordinator`: the devices of `cluster`, called with what was made for them.

    Args:
      target: the folder that was written to.
      cluster: its devices. What was not made for a device (its certificate, its token) stays as it is there.
    """
    tables = [_HEAD]
    for device in cluster.devices:
        keys = {"name": device.name, "url": _url(target, device), **_own_files(device.credentials)}
        if _has_certificate(target, device):
            keys |= _TLS
        if (target / "coordinator" / "tokens" / f"{device.name}.txt").exists():
            keys["token_file"] = f"tokens/{device.name}.txt"
        tables.append(_table("[[device]]", keys))
    if cluster.discovery is not None:
        # Tokens are of one device each, so those that come by themselves are known by their certificates alone.
        made = _TLS if (target / "coordinator" / "cert.pem").exists() else {}
        tables.append(_table("[discovery]", _own_files(cluster.discovery) | made))
    return "\n\n".join(tables) + "\n"


def commands(target: Path, devices: Sequence[Device], coordinator: str, port: int) -> str:
    """Shell commands for every machine: what to copy there, and how to start there with it.

    Args:
      target: the folder that was written to.
      devices: the cluster's.
      coordinator, port: what users call the coordinator by, a name or an address, and where it listens.
    """
    own = target / "coordinator"
    hosts = [(target / "devices" / device.name, urlsplit(device.url).hostname or "") for device in devices]
    lines = _copying([*hosts, (own, coordinator)])
    for device, (folder, host) in zip(devices, hosts, strict=True):
        url = urlsplit(_url(target, device))
        device_port = url.port or (443 if url.scheme == "https" else 80)
        lines += [
            "",
            f"# On {device.name}, in the bundle's folder:",
            _command("worker", "--bundle=.", *_listen_flags(host, device_port), *_file_flags(folder)),
        ]
    files = ["--bundle=.", f"--cluster={_KEPT}/coordinator/cluster.toml"]
    lines += [
        "",
        "# On the coordinator's machine, in the bundle's folder:",
        _command("coordinator", *files, *_listen_flags(coordinator, port), *_file_flags(own)),
    ]
    scheme = "https" if (own / "cert.pem").exists() else "http"
    address = f"{scheme}://{_bracketed(coordinator)}:{port}"
    users = target / "users"
    for user in sorted(users.iterdir()) if users.is_dir() else ():
        lines += [
            "",
            f"# {user.name}, in a bundle's folder, with {user} copied into {_KEPT}/ there;",
            "# fusion.plan and fusion.bench take the same flags:",
            _command("predict", f"--url={address}", *_file_flags(user), "samples/0.png"),
            *_status_commands(address, user),
        ]
    return "\n".join(lines) + "\n"


def _copying(places: Sequence[tuple[Path, str]]) -> list[str]:
    """The commands that copy each folder to its host."""
    folders: dict[str, list[str]] = {}
    for folder, host in places:
        # A path as written could be an option of scp, or another machine.
        path = str(folder) if folder.is_absolute() else f"./{folder}"
        folders.setdefault("" if is_loopback(host) else host, []).append(shlex.quote(path))
    user = ", and for USER your name there" if any(folders) else ""
    lines = [
        "# Here: each folder goes to the machine it is for, and to no other, into the bundle's folder there. Put in",
        f"# for {_BUNDLE} all the path of that folder on that machine{user}.",
    ]
    for host, paths in folders.items():
        if host:
            lines.append(f"ssh USER@{host} mkdir -p {_BUNDLE}/{_KEPT}")
            lines.append(f"scp -rp {' '.join(paths)} USER@{_bracketed(host)}:{_BUNDLE}/{_KEPT}/")
        else:
            lines.append(f"mkdir -p {_BUNDLE}/{_KEPT}")
            lines.append(f"cp -rp {' '.join(paths)} {_BUNDLE}/{_KEPT}/")
    return lines


def _has_certificate(target: Path, device: Device) -> bool:
    return (target / "devices" / device.name / "cert.pem").exists()


def _url(target: Path, device: Device) -> str:
    return f"https://{urlsplit(device.url).netloc}" if _has_certificate(target, device) else device.url


def _own_files(credentials: Credentials) -> dict[str, str]:
    """The keys of files that the user named; absolute, as the text may be written anywhere."""
    named = {key: getattr(credentials, key) for key in _FLAGS}
    return {key: str(Path(name).absolute()) for key, name in named.items() if name is not None}


def _table(name: str, keys: dict[str, str]) -> str:
    # A string of JSON is one of TOML.
    return "\n".join([name, *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items())])


def _file_flags(folder: Path) -> list[str]:
    """The flags for the files that a folder has."""
    return [f"--{flag}={_KEPT}/{folder.name}/{file}" for flag, file in _FLAGS.items() if (folder / file).exists()]


def _status_commands(url: str, user: Path) -> list[str]:
    """How a user sees what the cluster does: by curl, and by a browser, which wants certificate and key as one file."""
    kept = shlex.quote(f"{_KEPT}/{user.name}")
    with_certificate, with_token = (user / "cert.pem").exists(), (user / "token.txt").exists()
    # By its standard input, as other users of the machine can see a command line.
    curl = f"sed 's/^/Authorization: Bearer /' {kept}/token.txt | curl -sS -H @-" if with_token else "curl -sS"
    if with_certificate:
        curl += f" \\\n    --cacert {kept}/ca.pem --cert {kept}/cert.pem --key {kept}/key.pem"
    lines = [f"# What the cluster does, as JSON; {url}/ is the same as a page for browsers:", f"{curl} {url}/status"]
    if with_certificate:
        lines += [
            "# A browser shows it once it has this file among its own certificates, by the password that openssl asks",
            f"# for here, and {kept}/ca.pem among the authorities that it trusts for web sites:",
            f"openssl pkcs12 -export -in {kept}/cert.pem -inkey {kept}/key.pem \\\n    -out {kept}/browser.p12",
        ]
    return lines


def _listen_flags(host: str, port: int) -> list[str]:
    """The flags to be reached at `host`."""
    address = "::" if ":" in host else "0.0.0.0"
    return [f"--host={host if is_loopback(host) else address}", f"--port={port}"]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _command(program: str, *flags: str) -> str:
    return " \\\n    ".join([f".venv/bin/python -m fusion.{program}", *map(shlex.quote, flags)])
