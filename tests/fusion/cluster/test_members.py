"""Who is in a cluster, by its file and by what a stand-in for mDNS announces."""

import os
from pathlib import Path

import pytest

from fusion.base.program import UserError
from fusion.cluster import members
from fusion.cluster.discovery import AnnouncedWorker
from fusion.cluster.members import Members

ONE = '[[device]]\nname = "a"\nurl = "http://10.0.0.1:1"\n'


class FakeBrowser:
    """Announces what a test tells it to."""

    latest: "FakeBrowser"

    def __init__(self, appeared, vanished):
        self.appeared, self.vanished = appeared, vanished
        FakeBrowser.latest = self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(members, "browse", FakeBrowser)
    return tmp_path / "cluster.toml"


def write(path: Path, text: str) -> None:
    path.write_text(text)
    # Also where the clock of the file system is coarse.
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def names(devices):
    return [(device.name, device.url) for device in devices]


def test_the_file_is_read_when_it_changes(path):
    path.write_text(ONE)
    with Members(path, "model") as cluster:
        assert cluster.changed() and names(cluster.read()) == [("a", "http://10.0.0.1:1")]
        assert not cluster.changed()
        write(path, ONE.replace('"a"', '"b"'))
        assert cluster.changed() and names(cluster.read()) == [("b", "http://10.0.0.1:1")]
        write(path, "garbage")
        with pytest.raises(UserError, match="is not TOML"):
            cluster.read()
        assert not cluster.changed()
        path.unlink()
        assert cluster.changed()
        with pytest.raises(UserError, match="cannot be read"):
            cluster.read()
        assert not cluster.changed()


def test_announced_devices_join_and_leave(path):
    path.write_text("[discovery]\n" + ONE)
    with Members(path, "model") as cluster:
        assert names(cluster.read()) == [("a", "http://10.0.0.1:1")]
        browser = FakeBrowser.latest
        first = AnnouncedWorker("b", "http://10.0.0.2:1", "model")
        for worker in (
            first,
            AnnouncedWorker("c", "http://10.0.0.3:1", "another"),
            AnnouncedWorker("a", "http://10.0.0.4:1", "model"),
            AnnouncedWorker("d", "http://10.0.0.1:1", "model"),
            AnnouncedWorker("b", "http://10.0.0.9:1", "model"),
        ):
            browser.appeared(worker)
        assert cluster.changed() and names(cluster.read())[1:] == [("b", "http://10.0.0.2:1")]
        browser.vanished(first)
        assert cluster.changed() and names(cluster.read())[1:] == [("b", "http://10.0.0.9:1")]


def test_a_token_is_not_for_whoever_announces_itself(path):
    token = path.parent / "token.txt"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    path.write_text('[discovery]\ntoken_file = "token.txt"\ntls_ca = "ca.pem"\n')
    with Members(path, "model") as cluster:
        FakeBrowser.latest.appeared(AnnouncedWorker("plain", "http://10.0.0.2:1", "model"))
        # Not even its name keeps the other one out.
        FakeBrowser.latest.appeared(AnnouncedWorker("tls", "http://10.0.0.4:1", "model"))
        FakeBrowser.latest.appeared(AnnouncedWorker("tls", "https://10.0.0.3:1", "model"))
        (only,) = cluster.read()
    assert (only.name, only.credentials.tls_ca) == ("tls", str(path.parent / "ca.pem"))


def test_nothing_is_discovered_unasked(path):
    path.write_text(ONE)
    with Members(path, "model") as cluster:
        cluster.read()
        write(path, "[discovery]\n" + ONE)
        assert names(cluster.read()) == [("a", "http://10.0.0.1:1")]
