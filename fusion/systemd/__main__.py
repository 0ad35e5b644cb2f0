r"""Writes a hardened systemd unit that starts the worker or the coordinator of this machine.

  python -m fusion.systemd --kind=worker --user=pi --target=/etc/systemd/system -- --host=0.0.0.0 --port=8001 \
      --token_file=token.txt
  python -m fusion.systemd --kind=coordinator --cluster=cluster.toml --memory_max_mb=400 -- --port=8000

What stands after -- goes to the program as it is. The unit is printed, or written to the folder --target; afterwards
`systemctl daemon-reload` and `systemctl enable --now NAME`. The service can write to /var/log/NAME alone, and starts
again after a failure, at longer and longer times up to a minute (before systemd 254 every 2 seconds). The files of
--token_file, --tls_cert, --tls_key and --tls_ca may belong to root alone: systemd hands them over. The service's user
must be able to read the bundle, the Python and what a cluster file names: --user is one of this machine; without it
systemd makes one up, who can read only what all may read, so keep the bundle in a place like /opt then.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from ..base.files import write_text
from ..base.paths import define_path
from ..base.program import UserError, define_float, run
from ..bundle import manifest
from .units import unit

_KIND = flags.DEFINE_enum("kind", None, ("worker", "coordinator"), "Which program the service runs.")
_BUNDLE = define_path("bundle", manifest.default_folder(), "The bundle's folder; inside a bundle, that bundle.")
_CLUSTER = define_path("cluster", None, "The coordinator's cluster file.")
_PYTHON = define_path("python", sys.executable, "The Python that runs it.")
_NAME = flags.DEFINE_string("name", None, "The unit's name; by default paradis-tf-worker or paradis-tf-coordinator.")
_USER = flags.DEFINE_string("user", None, "The user to run as; by default one that systemd makes up.")
_MEMORY_MAX_MB = define_float("memory_max_mb", None, "Ends the service when it takes more memory.", 16, 1e6)
_TARGET = define_path("target", None, "Folder to write NAME.service to; by default it is printed.")


def main(arguments: list[str]) -> int:
    """Prints or writes the unit; returns the exit status."""
    if _KIND.value is None:
        raise UserError("--kind is missing; legal: worker, coordinator.")
    manifest.load(_BUNDLE.value)
    name = _NAME.value or f"paradis-tf-{_KIND.value}"
    files = {"python": _PYTHON.value, "bundle": _BUNDLE.value}
    files |= {} if _CLUSTER.value is None else {"cluster": _CLUSTER.value}
    text = unit(_KIND.value, name, files, _USER.value, _MEMORY_MAX_MB.value, arguments)
    if _TARGET.value is None:
        print(text, end="")
        return 0
    path = Path(_TARGET.value) / f"{name}.service"
    write_text(path, text)
    print(f"{path} is written; next: systemctl daemon-reload && systemctl enable --now {name}")
    return 0


if __name__ == "__main__":
    run(main, takes_arguments=True)
