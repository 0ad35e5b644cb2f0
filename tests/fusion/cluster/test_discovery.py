"""mDNS on the loopback interface alone, where the package zeroconf is installed."""

import queue
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fusion.base.program import UserError
from fusion.cluster import discovery
from fusion.cluster.discovery import Browser, Found, announce, discover

ROOT = Path(__file__).resolve().parents[3]
HERE = ["127.0.0.1"]
MODEL = "9f2c41d7ab0e"


def test_says_what_is_missing():
    code = """
import sys
sys.modules["zeroconf"] = None
from fusion.cluster import discovery
for call in (lambda: discovery.discover(0), lambda: discovery.announce("a", 1, "b").__enter__()):
    try:
        call()
    except discovery.UserError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    said = "finding devices by mDNS needs the package zeroconf; legal: pip install zeroconf."
    assert done.stdout.splitlines() == [said, said], done.stderr


@pytest.mark.parametrize("name", ["", "a b", "dög", "a/b", "x" * 201])
def test_refuses_names(name):
    for given in ((name, MODEL), ("pi-1", name)):
        with pytest.raises(UserError, match="cannot be announced; legal: letters"), announce(given[0], 1, given[1]):
            pass


def heard(port=8001, addresses=("192.168.0.11",), **said):
    properties = {"name": "pi-1", "model_id": MODEL, "tls": "0"} | said
    encoded = {key.encode(): None if value is None else value.encode() for key, value in properties.items()}
    return SimpleNamespace(properties=encoded, port=port, parsed_addresses=lambda: list(addresses))


def test_what_an_announcement_says():
    check = discovery._checked
    assert check(heard()) == Found("pi-1", "http://192.168.0.11:8001", MODEL)
    assert check(heard(tls="1", addresses=("fe80::1", "10.0.0.2"))) == Found("pi-1", "https://10.0.0.2:8001", MODEL)
    assert check(heard(addresses=("2001:db8::1",))) == Found("pi-1", "http://[2001:db8::1]:8001", MODEL)


@pytest.mark.parametrize(
    "odd",
    [
        heard(name="<img>"),
        heard(name=None),
        heard(name="pi\n1"),
        heard(model_id=""),
        heard(tls="yes"),
        heard(addresses=()),
        heard(addresses=("evil.example/",)),
        heard(port=0),
        heard(port=70_000),
        SimpleNamespace(properties={b"\xff": b""}, port=1, parsed_addresses=lambda: []),
        SimpleNamespace(properties={}, port=1, parsed_addresses=lambda: ["10.0.0.1"]),
    ],
)
def test_announcements_of_another_form_are_passed_over(odd):
    assert discovery._checked(odd) is None


@pytest.fixture
def network():
    """Skips where mDNS cannot be used at all."""
    package = pytest.importorskip("zeroconf", reason="the package zeroconf is not installed")
    try:
        package.Zeroconf(interfaces=HERE).close()
    except OSError as error:
        pytest.skip(f"no multicast on the loopback interface: {error}")


def test_workers_are_found(network):
    with (
        announce("pi-1", 8001, MODEL, addresses=HERE, interfaces=HERE),
        announce("pi-1", 8002, MODEL, tls=True, addresses=HERE, interfaces=HERE),
    ):
        # On a busy machine one may be too late for two seconds.
        found: list[Found] = []
        for _ in range(10):
            found = discover(2, HERE)
            if len(found) == 2:
                break
    first, second = Found("pi-1", "http://127.0.0.1:8001", MODEL), Found("pi-1", "https://127.0.0.1:8002", MODEL)
    assert found == [first, second]


def test_a_browser_tells_of_coming_and_going(network):
    seen: queue.SimpleQueue[tuple[str, Found]] = queue.SimpleQueue()
    worker = Found("pi-2", "http://127.0.0.1:8003", MODEL)
    with Browser(lambda one: seen.put(("came", one)), lambda one: seen.put(("went", one)), HERE):
        with announce("pi-2", 8003, MODEL, addresses=HERE, interfaces=HERE):
            assert seen.get(timeout=10) == ("came", worker)
        assert seen.get(timeout=10) == ("went", worker)
    time.sleep(0.05)
    assert seen.empty()
