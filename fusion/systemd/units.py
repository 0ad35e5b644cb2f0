"""The text of hardened systemd units for the runner's programs; `unit.service` is what all of them share."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..base.paths import expand
from ..base.program import UserError

_TEMPLATE = Path(__file__).parent / "unit.service"
_FOLDER = Path(__file__).resolve().parents[2]
_CREDENTIALS = ("token_file", "tls_cert", "tls_key", "tls_ca")
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


def unit(
    kind: str,
    name: str,
    files: Mapping[str, str],
    user: str | None,
    memory_max_mb: float | None,
    options: Sequence[str],
) -> str:
    """The text of a unit.

    Args:
      kind: `worker` or `coordinator`.
      name: the unit's name without `.service`.
      files: the paths of `python` and `bundle`, and for a coordinator of `cluster`; relative ones are of the working
        directory.
      user: a name or number of this machine's; None is a user that systemd makes up.
      memory_max_mb: the service's limit in MB, or None.
      options: flags of the program.

    Raises `UserError` for what is not there, and for what a unit cannot hold.
    """
    _check_names(name, user)
    if ("cluster" in files) != (kind == "coordinator"):
        raise UserError("--cluster is of the coordinator; legal: with --kind=coordinator, and always there.")
    paths = {flag: _existing(flag, path) for flag, path in files.items()}
    command = [str(paths["python"]), "-m", f"fusion.{kind}"]
    command += [f"--{flag}={path}" for flag, path in paths.items() if flag != "python"]
    passed_on = [_passed_on(option, paths) for option in options]
    command += [argument for argument, _ in passed_on]
    lines = [line for _, line in passed_on]
    if memory_max_mb is not None:
        lines.append(f"MemoryMax={round(memory_max_mb * 1e6)}\n")
    in_home = any(path.parts[1:2] in (("home",), ("root",)) for path in (*paths.values(), _FOLDER))
    ports = [int(option[7:]) for option in options if re.fullmatch(r"--port=[0-9]{1,9}", option)]
    return _TEMPLATE.read_text(encoding="utf-8").format(
        kind=kind,
        bundle=_escaped(paths["bundle"].name),
        folder=_escaped(_FOLDER),
        command=" ".join(map(_quoted, command)),
        user="DynamicUser=yes" if user is None else f"User={user}",
        more="".join(lines),
        name=name,
        capabilities="CAP_NET_BIND_SERVICE" if ports and 0 < ports[-1] < 1024 else "",
        home="read-only" if in_home else "yes",
    )


def _check_names(name: str, user: str | None) -> None:
    for flag, value in (("name", name), ("user", user)):
        if value is not None and not _PLAIN.fullmatch(value):
            raise UserError(f"--{flag} is {value!r}; legal: letters, digits, '.', '_' and '-'.")
    if user is None:
        return
    try:
        # systemd takes numbers as well.
        pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError) as error:
        raise UserError(
            f"--user is {user!r}, and this machine has no such user; legal: one of it, such as yours, or no --user for "
            "one that systemd makes up."
        ) from error


def _passed_on(option: str, paths: Mapping[str, Path]) -> tuple[str, str]:
    """An option of the program as its command has it, and the line of the unit that it needs, or none."""
    flag, has_value, value = option.partition("=")
    if not re.fullmatch(r"--\w+", flag):
        raise UserError(f"{option!r} after -- is no flag of the program; legal: --FLAG=VALUE, or --FLAG.")
    if flag[2:] in paths:
        raise UserError(f"{flag} stands after --; legal: before it.")
    if flag[2:] not in _CREDENTIALS or not has_value:
        return option, ""
    line = f"LoadCredential={flag[2:]}:{_escaped(_existing(flag[2:], value))}\n"
    return f"{flag}=${{CREDENTIALS_DIRECTORY}}/{flag[2:]}", line


def _existing(flag: str, path: str) -> Path:
    # Made absolute but not resolved: a virtual environment's Python is a link, and another program than its target.
    absolute = Path(os.path.abspath(expand(path)))
    if not absolute.exists():
        raise UserError(f"--{flag}: {path!r} does not exist; legal: a file or folder that the service will find.")
    return absolute


def _escaped(path: Path | str) -> str:
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
    escaped = directory.join(text.replace("$", "$$") for text in argument.split(directory))
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if re.fullmatch(r"[\w@%+=:,./${}-]+", escaped, re.ASCII) else f'"{escaped}"'
