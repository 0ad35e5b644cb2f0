"""Debian packages of any architecture, unpacked into a folder; the host's own packages and lists stay as they are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from export.emulation.installed import run
from fusion.base.program import UserError

# Its Python, 3.11, is the last one that tflite-runtime has wheels for.
SUITE = "bookworm"
# Suites whose mirror, since it is one of Debian's, has the suite above too.
_SUITES = (SUITE, "trixie", "bullseye", "stable", "oldstable", "testing", "sid", "unstable")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# The host's settings stay (a proxy, say), but what they would run on the host after an update does not. Whoever is
# root must not download as the user _apt, who may not write here.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""


def find_mirror(given: str = "") -> str:
    """`given`, or else the Debian mirror of the host's own apt sources.

    Raises:
      UserError: the host has no apt, or its sources name no such mirror.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(f"{tool} is not installed, and emulated boards come by it; take a host with Debian's apt.")
    if given:
        return given
    targets = run(
        ["apt-get", "indextargets", "--no-release-info", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"]
        + ["Created-By: Packages"],
        "the host's apt sources cannot be read; see that apt-get update works",
    )
    mirrors: dict[str, str] = {}
    for target in targets.splitlines():
        suite, _, rest = target.partition(" ")
        component, _, uri = rest.partition(" ")
        if component == "main" and suite in _SUITES and not uri.startswith("cdrom:"):
            mirrors.setdefault(suite, uri)
    if not mirrors:
        raise UserError("the host's apt sources name no mirror of Debian; name one by --mirror=URL.")
    return mirrors[min(mirrors, key=_SUITES.index)]


def unpack(folder: Path, architecture: str, packages: Sequence[str], mirror: str) -> None:
    """Unpacks packages, and those that they depend on, into a folder.

    They are not configured: no script of a package runs.

    Args:
      folder: where to, as if it were the root of a file system.
      architecture: Debian's name of it, such as "arm64".
      packages: their names.
      mirror: URI of a Debian mirror.

    Raises:
      UserError: the mirror cannot be reached or lacks a package.
    """
    with _private_apt(folder, architecture, mirror) as (apt, downloads):
        run(
            [*apt, "install", "--yes", "--download-only", *packages],
            f"Debian packages cannot be downloaded from {mirror}",
        )
        for file in (downloads / "cache" / "archives").glob("*.deb"):
            run(["dpkg-deb", "--extract", file, folder], f"Debian package {file.name} cannot be unpacked")


def unpack_files(folder: Path, architecture: str, package: str, files: Sequence[str], mirror: str) -> None:
    """Puts single files of a package into a folder; arguments and errors as of `unpack`.

    Args:
      files: as the package calls them, such as "usr/bin/true"; they lose their folders.
    """
    with _private_apt(folder, architecture, mirror) as (apt, downloads):
        run([*apt, "download", package], f"Debian package {package} cannot be downloaded from {mirror}", cwd=downloads)
        whole = downloads / "whole"
        for file in downloads.glob("*.deb"):
            run(["dpkg-deb", "--extract", file, whole], f"Debian package {file.name} cannot be unpacked")
        for name in files:
            if not (whole / name).is_file():
                raise UserError(f"Debian package {package} of {mirror} lacks {name}; name another by --mirror=URL.")
            shutil.move(whole / name, folder / Path(name).name)


@contextmanager
def _private_apt(place: Path, architecture: str, mirror: str) -> Iterator[tuple[list[str], Path]]:
    """An apt-get command with fresh lists and no package installed, and the folder of its state, below `place`."""
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        for path in ("state/lists/partial", "cache/archives/partial"):
            (folder / path).mkdir(parents=True)
        (folder / "status").touch()
        signed = f"[signed-by={_KEYRING}] " if _KEYRING.is_file() else ""
        (folder / "sources.list").write_text(f"deb {signed}{mirror} {SUITE} main\n", encoding="utf-8")
        (folder / "apt.conf").write_text(
            _CONFIGURATION.format(architecture=architecture, folder=folder), encoding="utf-8"
        )
        apt = ["apt-get", f"--config-file={folder / 'apt.conf'}", "--quiet"]
        run([*apt, "update"], f"Debian mirror {mirror} cannot be used; see the network, or name one by --mirror=URL")
        yield apt, folder
