"""The text of hardened systemd units for the runner's programs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..base.program import UserError
from .permissions import NOBODY, closed

_SECRETS = ("token_file", "tls_cert", "tls_key", "tls_ca")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")
# Why the coordinator is to be reloaded, which a worker has little use for: its files are copies.
_RELOAD = "# Reads the cluster file anew, and the files that this names.\n"

_UNIT = """\
[Unit]
Description=ParaDiS-TF {kind} of {bundle}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={folder}
ExecStart={command}
{reload}ExecReload=/bin/kill -HUP $MAINPID
{who}
{more}LogsDirectory={name}
Environment=PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec=2
RestartSteps=5
RestartMaxDelaySec=60
# A reload while it is still being loaded ends it.
RestartForceExitStatus=SIGHUP
# How it ends after SIGTERM and SIGINT.
SuccessExitStatus=143 130
TimeoutStopSec=30
OOMPolicy=stop
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit(
    kind: str,
    name: str,
    bundle: str,
    cluster: str | None,
    python: str,
    user: str | None,
    memory_max_mb: float | None,
    options: Sequence[str],
) -> str:
    """The text of a unit.

    Args:
      kind: `worker` or `coordinator`.
      name: the unit's name without `.service`.
      bundle, cluster, python: files and folders; relative ones are of the working directory.
      user: who runs it; None is a user that systemd makes up.
      memory_max_mb: the service's limit in MB, or None.
      options: flags of the program.

    Raises `UserError` for what is not there, what a unit cannot hold, and what the service's user could not read.
    """
    for what, value in (("name", name), ("user", user)):
        if value is not None and not _PLAIN.fullmatch(value):
            raise UserError(f"--{what} is {value!r}; legal: letters, digits, '.', '_' and '-'.")
    if (cluster is None) == (kind == "coordinator"):
        raise UserError("--cluster is of the coordinator; legal: with --kind=coordinator, and always there.")
    files = {"bundle": _path("bundle", bundle), "python": _path("python", python)}
    if cluster is not None:
        files["cluster"] = _path("cluster", cluster)
    if user is None:
        for what, path in files.items():
            _require_open(what, path)
    command = [str(files["python"]), "-m", f"fusion.{kind}"]
    command += [f"--{what}={files[what]}" for what in ("bundle", "cluster") if what in files]
    loaded, port = [], 0
    for option in options:
        flag, has_value, value = option.partition("=")
        if not re.fullmatch(r"--\w+", flag):
            raise UserError(f"{option!r} after -- is no flag of the program; legal: --FLAG=VALUE, or --FLAG.")
        if flag[2:] in files:
            raise UserError(f"{flag} stands after --; legal: before it.")
        if flag[2:] in _SECRETS and has_value:
            loaded.append(f"LoadCredential={flag[2:]}:{_plain(_path(flag[2:], value))}\n")
            command.append(f"{flag}=${{CREDENTIALS_DIRECTORY}}/{flag[2:]}")
            continue
        if flag == "--port" and value.isdecimal():
            port = int(value)
        command.append(option)
    more = "".join(loaded)
    if memory_max_mb is not None:
        more += f"MemoryMax={round(memory_max_mb * 1e6)}\n"
    at_home = any(path.parts[1:2] in (("home",), ("root",)) for path in (*files.values(), Path(__file__)))
    return _UNIT.format(
        kind=kind,
        bundle=_plain(files["bundle"].name),
        folder=_plain(Path(__file__).resolve().parents[2]),
        command=" ".join(map(_quoted, command)),
        reload=_RELOAD if kind == "coordinator" else "",
        who="DynamicUser=yes" if user is None else f"User={user}",
        more=more,
        name=name,
        capabilities="CAP_NET_BIND_SERVICE" if 0 < port < 1024 else "",
        home="read-only" if at_home else "yes",
    )


def _path(what: str, given: str) -> Path:
    """The absolute path of a file or folder that is there."""
    # A virtual environment's Python is a link, and another program than what it points to.
    path = Path(os.path.abspath(given))
    if not path.exists():
        raise UserError(f"--{what}: {given!r} does not exist; legal: a file or folder that the service will find.")
    return path


def _require_open(what: str, path: Path) -> None:
    """Raises `UserError` where a user that owns nothing could not reach or read `path`."""
    place = closed(path, NOBODY)
    if place is not None:
        raise UserError(
            f"--{what}: {str(place)!r} is closed to others, so a user that systemd makes up cannot read "
            f"{str(path)!r}; legal: --user={path.owner()}, or a place like /opt that all may read."
        )


def _plain(path: Path | str) -> str:
    """A path as a unit's value, where nothing needs quotes and % is escaped."""
    text = str(path)
    if not text.isprintable() or text != text.strip():
        raise UserError(f"path {text!r} cannot stand in a unit; legal: printable characters, no space at its ends.")
    return text.replace("%", "%%")


def _quoted(argument: str) -> str:
    """An argument of a unit's command; only `${CREDENTIALS_DIRECTORY}` is left to be filled in."""
    if not argument.isprintable():
        raise UserError(f"argument {argument!r} cannot stand in a unit; legal: printable characters.")
    directory = "${CREDENTIALS_DIRECTORY}"
    kept = [part.replace("$", "$$") for part in argument.split(directory)]
    escaped = directory.join(kept).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[\w@%+=:,./${}-]+", escaped, re.ASCII) else f'"{escaped}"'
