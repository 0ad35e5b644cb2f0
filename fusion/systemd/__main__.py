r"""Writes a hardened systemd unit that starts the worker or the coordinator of this machine.

  python -m fusion.systemd --kind=worker --user=pi --target=/etc/systemd/system -- --host=0.0.0.0 --port=8001 \
      --token_file=token.txt
  python -m fusion.systemd --kind=coordinator --cluster=cluster.toml --memory_max_mb=400 -- --port=8000

What stands after -- goes to the program as it is. The unit is printed, or written to the folder --target; afterwards
`systemctl daemon-reload` and `systemctl enable --now NAME`. The service runs as a user made up by systemd, or as
--user; it can write to /var/log/NAME alone, and starts again after a failure, at longer and longer times up to a
minute (before systemd 254 every 2 seconds). The files of --token_file, --tls_cert, --tls_key and --tls_ca may belong to
root alone: systemd hands them over. Those that a cluster file names, and the bundle, the service's user must be able to
read: a warning says what it cannot. User and flags are tried before anything is written: the user has to be one of this
machine, and the program, run by that Python, has to take the flags.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from absl import flags

from ..base.files import write_text
from ..base.program import UserError, define_float, run
from ..bundle import manifest
from ..cluster import file as cluster
from .permissions import NOBODY, closed
from .units import unit

_KIND = flags.DEFINE_enum("kind", None, ("worker", "coordinator"), "Which program the service runs.")
_BUNDLE = flags.DEFINE_string("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_CLUSTER = flags.DEFINE_string("cluster", None, "The coordinator's cluster file.")
_PYTHON = flags.DEFINE_string("python", sys.executable, "The Python that runs it.")
_NAME = flags.DEFINE_string("name", None, "The unit's name; by default paradis-tf-worker or paradis-tf-coordinator.")
_USER = flags.DEFINE_string("user", None, "The user to run as; by default one that systemd makes up.")
_MEMORY_MAX_MB = define_float("memory_max_mb", None, "Ends the service when it takes more memory.", 16, 1e6)
_TARGET = flags.DEFINE_string("target", None, "Folder to write NAME.service to; by default it is printed.")

# How the program itself reads its flags, up to where it would open files.
_TRY = """
import sys
from fusion.{kind} import __main__
from fusion.serving import listening
from fusion.base.program import UserError, parse_command_line
try:
    parse_command_line(sys.argv)
    listening.credentials()
except UserError as error:
    sys.exit(f"refused: {{error}}")
"""
_TRY_S = 60


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
    user = _user(_USER.value)
    _check_flags(_KIND.value, arguments)
    _warn_of_unreadable(user)
    if _TARGET.value is None:
        print(text, end="")
        return 0
    path = Path(_TARGET.value) / f"{name}.service"
    write_text(path, text)
    print(f"{path} is written; next: systemctl daemon-reload && systemctl enable --now {name}")
    return 0


def _user(name: str | None) -> pwd.struct_passwd | None:
    """The user of this name or number. Raises `UserError` where this machine has no such user."""
    if name is None:
        return None
    try:
        # systemd takes numbers as well.
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError) as error:
        raise UserError(
            f"--user is {name!r}, and this machine has no such user; legal: one of it, such as yours, or no --user for "
            "one that systemd makes up."
        ) from error


def _warn_of_unreadable(user: pwd.struct_passwd | None) -> None:
    """Says on standard error which files, those that the cluster file names included, the service could not read."""
    names = [_BUNDLE.value, _PYTHON.value]
    if _CLUSTER.value is not None:
        found = cluster.load(_CLUSTER.value)
        credentials = [device.credentials for device in found.devices]
        credentials += [] if found.discovery is None else [found.discovery]
        names += [_CLUSTER.value, *filter(None, (name for one in credentials for name in astuple(one)))]
    number, groups = NOBODY, []
    if user is not None:
        number, groups = user.pw_uid, os.getgrouplist(user.pw_name, user.pw_gid)
    places = {name: closed(Path(os.path.abspath(name)), number, groups) for name in names}
    shut = [(name, place) for name, place in places.items() if place is not None]
    if shut:
        (name, place), more = shut[0], f" and {len(shut) - 1} more that it needs" if len(shut) > 1 else ""
        who = "the user that systemd makes up" if user is None else f"user {user.pw_name!r}"
        print(
            f"warning: {who} cannot read {name!r}{more}, as {str(place)!r} is closed to it; the {_KIND.value} will not "
            "start like this.",
            file=sys.stderr,
        )


def _check_flags(kind: str, options: Sequence[str]) -> None:
    """Raises `UserError` where the program, run by --python, would not take its flags."""
    code = _TRY.format(kind=kind)
    folder = Path(__file__).resolve().parents[2]
    # Not a path that is relative to this folder.
    python = Path(_PYTHON.value).absolute()
    try:
        done = subprocess.run(
            [python, "-c", code, *options], cwd=folder, capture_output=True, text=True, timeout=_TRY_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"--python={_PYTHON.value} cannot be run: {error}.") from error
    if done.returncode == 0:
        return
    said = (done.stderr.strip().splitlines() or ["it ends without a word"])[-1]
    if said.startswith("refused: "):
        raise UserError(f"the {kind} does not take what stands after --: {said.removeprefix('refused: ')}")
    raise UserError(
        f"--python={_PYTHON.value} cannot run the {kind}: {said}; legal: one with the packages of requirements.txt."
    )


if __name__ == "__main__":
    run(main, takes_arguments=True)
