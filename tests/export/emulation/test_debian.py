"""What apt is asked, by an apt that only pretends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from export.emulation import debian
from fusion.base.program import UserError

Stub = Callable[[str, str], None]

# As apt does, it puts what it downloads into the archives of its configuration, or here.
APT = """
for argument in "$@"; do
  case "$argument" in --config-file=*) conf="${argument#--config-file=}";; esac
done
folder="$(dirname "$conf")"
cat "$conf" "$folder/sources.list" > "$LOG.conf"
echo "$*" >> "$LOG"
case "$*" in
  *install*) touch "$folder/cache/archives/one.deb" "$folder/cache/archives/two.deb";;
  *download*) touch three.deb;;
esac
"""


@pytest.mark.parametrize(
    ("targets", "mirror"),
    [
        ("bookworm main http://a/debian/\nbookworm-security main http://s/", "http://a/debian/"),
        ("trixie contrib http://c/\ntrixie main http://t/\n", "http://t/"),
        ("trixie main http://t/\nbookworm main http://b/\nbookworm main http://c/", "http://b/"),
        ("bookworm main cdrom:[Debian 12]/\nbookworm main file:/mirror/", "file:/mirror/"),
    ],
)
def test_the_mirror_is_the_hosts(stub_command: Stub, targets: str, mirror: str) -> None:
    stub_command("dpkg-deb", "")
    stub_command("apt-get", f"cat <<EOF\n{targets}\nEOF")
    assert debian.find_mirror() == mirror
    assert debian.find_mirror("http://given/") == "http://given/"


def test_a_host_of_another_distribution_is_told_to_name_one(stub_command: Stub) -> None:
    stub_command("dpkg-deb", "")
    stub_command("apt-get", "echo jammy main http://u/ubuntu/")
    with pytest.raises(UserError, match=r"name no mirror of Debian; name one by --mirror=URL\.$"):
        debian.find_mirror()


def test_a_host_without_apt_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="^apt-get is not installed"):
        debian.find_mirror("http://given/")


def test_packages_are_unpacked_by_a_private_apt(
    stub_command: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("LOG", str(log))
    stub_command("apt-get", APT)
    stub_command("dpkg-deb", 'mkdir -p "$3" && touch "$3/$(basename "$2" .deb)"')
    debian.unpack(tmp_path / "root", "armhf", ["python3.11", "python3-numpy"], "http://m/")
    assert {path.name for path in (tmp_path / "root").iterdir()} == {"one", "two"}
    update, install = log.read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith("install --yes --download-only python3.11 python3-numpy")
    written = (tmp_path / "log.conf").read_text()
    assert 'APT::Architecture "armhf";' in written
    assert written.endswith(" http://m/ bookworm main\n")
    places = [line.split('"')[1] for line in written.splitlines() if line.startswith("Dir::")]
    private = update.split("--config-file=")[1].split("/apt.conf")[0]
    assert len(places) == 7
    assert all(place == "/dev/null" or place.startswith(f"{private}/") for place in places)
    assert not Path(private).exists()


def test_single_files_lose_their_folders(stub_command: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    stub_command("apt-get", APT)
    stub_command("dpkg-deb", 'mkdir -p "$3/usr/bin" && touch "$3/usr/bin/tool" "$3/usr/bin/other"')
    target = tmp_path / "target"
    target.mkdir()
    debian.unpack_files(target, "amd64", "tools", ["usr/bin/tool"], "http://m/")
    assert [path.name for path in target.iterdir()] == ["tool"]
    with pytest.raises(UserError, match="^Debian package tools of http://m/ lacks usr/bin/none"):
        debian.unpack_files(target, "amd64", "tools", ["usr/bin/none"], "http://m/")


def test_a_mirror_out_of_reach_is_named(stub_command: Stub, tmp_path: Path) -> None:
    stub_command("apt-get", "echo 'E: Failed to fetch http://m/  Could not resolve m' >&2; exit 100")
    with pytest.raises(UserError) as error:
        debian.unpack(tmp_path, "arm64", ["x"], "http://m/")
    assert str(error.value) == (
        "Debian mirror http://m/ cannot be used; see the network, or name one by --mirror=URL "
        "(E: Failed to fetch http://m/  Could not resolve m)."
    )
