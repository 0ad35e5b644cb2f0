r"""Writes a hardened systemd unit that starts the worker or the coordinator of this machine.

  python -m fusion.systemd --kind=worker --user=pi --target=/etc/systemd/system -- --host=0.0.0.0 --port=8001 \
      --token_file=token.txt
  python -m fusion.systemd --kind=coordinator --cluster=cluster.toml --memory_max_mb=400 -- --port=8000

What stands after -- goes to the program as it is. The unit is printed, or written to the folder --target; afterwards
`systemctl daemon-reload` and `systemctl enable --now NAME`. The service runs as a user made up by systemd, or as
--user; it can write to /var/log/NAME alone, and starts again after a failure, at longer and longer times up to a
minute (before systemd 254 every 2 seconds). The files of --token_file, --tls_cert, --tls_key and --tls_ca may belong to
root alone: systemd hands them over. Those that a cluster file names, and the bundle, the service's user must be able to
read.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from . import manifest
from .files import write_text
from .program import UserError, define_float, run

_KIND = flags.DEFINE_enum("kind", None, ("worker", "coordinator"), "Which program the service runs.")
_BUNDLE = flags.DEFINE_string("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_CLUSTER = flags.DEFINE_string("cluster", None, "The coordinator's cluster file.")
_PYTHON = flags.DEFINE_string("python", sys.executable, "The Python that runs it.")
_NAME = flags.DEFINE_string("name", None, "The unit's name; by default paradis-tf-worker or paradis-tf-coordinator.")
_USER = flags.DEFINE_string("user", None, "The user to run as; by default one that systemd makes up.")
_MEMORY_MAX_MB = define_float("memory_max_mb", None, "Ends the service when it takes more memory.", 16, 1e6)
_TARGET = flags.DEFINE_string("target", None, "Folder to write NAME.service to; by default it is printed.")

_SECRETS = ("token_file", "tls_cert", "tls_key", "tls_ca")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")

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
{who}
{more}LogsDirectory={name}
Environment=PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec=2
RestartSteps=5
RestartMaxDelaySec=60
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
    Source: ours.
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
    package = str(__package__)
    command = [str(files["python"]), "-m", f"{package}.{kind}"]
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
        folder=_plain(Path(__file__).resolve().parents[len(package.split("."))]),
        command=" ".join(map(_quoted, command)),
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
    for place in (path, *path.parents):
        mode = place.stat().st_mode
        needed = 0o005 if place == path and path.is_dir() else 0o001 if place != path else 0o004
        if mode & needed != needed:
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


def main(arguments: list[str]) -> int:
    """Prints or writes the unit; returns the exit status."""
    if _KIND.value is None:
        raise UserError("--kind is missing; legal: worker, coordinator.")
    if _BUNDLE.value is None:
        raise UserError("--bundle is missing; legal: the folder of a bundle.")
    manifest.load(_BUNDLE.value)
    name = _NAME.value or f"paradis-tf-{_KIND.value}"
    text = unit(
        _KIND.value,
        name,
        _BUNDLE.value,
        _CLUSTER.value,
        _PYTHON.value,
        _USER.value,
        _MEMORY_MAX_MB.value,
        arguments,
    )
    if _TARGET.value is None:
        print(text, end="")
        return 0
    path = Path(_TARGET.value) / f"{name}.service"
    write_text(path, text)
    print(f"{path} is written; next: systemctl daemon-reload && systemctl enable --now {name}")
    return 0


if __name__ == "__main__":
    run(main, takes_arguments=True)
