"""mDNS on the loopback interface alone."""

import queue
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import zeroconf

from fusion.base.program import UserError
from fusion.cluster.discovery import AnnouncedWorker, announce, browse, read_announcement

HERE = ["127.0.0.1"]
MODEL = "9f2c41d7ab0e"
WAIT_S = 60


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    said = "finding devices by mDNS needs the package zeroconf; legal: pip install zeroconf."
    for block in (browse(print, print), announce("a", 1, "b")):
        with pytest.raises(UserError, match=said), block:
            pass


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
    for info, url in (
        (heard(), "http://192.168.0.11:8001"),
        (heard(tls="1", addresses=("fe80::1", "10.0.0.2")), "https://10.0.0.2:8001"),
        (heard(addresses=("2001:db8::1",)), "http://[2001:db8::1]:8001"),
    ):
        assert read_announcement(info) == AnnouncedWorker("pi-1", url, MODEL)


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
    assert read_announcement(odd) is None


def test_a_browser_tells_of_coming_and_going(monkeypatch):
    monkeypatch.setattr(zeroconf, "Zeroconf", partial(zeroconf.Zeroconf, interfaces=HERE))
    seen: queue.SimpleQueue[tuple[str, AnnouncedWorker]] = queue.SimpleQueue()
    first = AnnouncedWorker("pi-1", "http://127.0.0.1:8001", MODEL)
    second = AnnouncedWorker("pi-1", "https://127.0.0.1:8002", MODEL)
    with browse(lambda one: seen.put(("came", one)), lambda one: seen.put(("went", one))):
        with announce("pi-1", 8001, MODEL, addresses=HERE):
            assert seen.get(timeout=WAIT_S) == ("came", first)
            with announce("pi-1", 8002, MODEL, tls=True, addresses=HERE):
                assert seen.get(timeout=WAIT_S) == ("came", second)
            assert seen.get(timeout=WAIT_S) == ("went", second)
        assert seen.get(timeout=WAIT_S) == ("went", first)
