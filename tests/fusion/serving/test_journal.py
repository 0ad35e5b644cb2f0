"""The log: whole JSON lines in order, whatever happens to its file."""

import contextlib
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.serving import journal
from fusion.serving.journal import Journal

ROOT = Path(__file__).resolve().parents[3]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_line_per_event(tmp_path):
    path = tmp_path / "log.jsonl"
    with Journal(path) as log:
        log.write("started", devices=["pi-0", "pi-1"], port=8000)
        log.write("answered", ms=2.5, degraded=False, missing=None)
    first, second = lines(path)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("ts"))
    assert first == {"event": "started", "devices": ["pi-0", "pi-1"], "port": 8000}
    assert abs(time.mktime(time.strptime(second.pop("ts")[:19], "%Y-%m-%dT%H:%M:%S")) - time.mktime(time.gmtime())) < 60
    assert second == {"event": "answered", "ms": 2.5, "degraded": False, "missing": None}
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (float("nan"), None),
        ({"a": [float("inf"), 1], (1, 2): 3}, {"a": [None, 1], "(1, 2)": 3}),
        ([np.float64("nan"), np.float32("inf")], [None, None]),
        (Path("a") / "b", "a/b"),
        ("two\nlines \ud800 \u2028 ", "two\nlines \ud800 \u2028 "),
        ({"b", "a"}, ["a", "b"]),
        (ValueError("x"), "x"),
    ],
)
def test_any_value(tmp_path, value, written):
    path = tmp_path / "log"
    with Journal(path) as log:
        log.write("e", value=value)
    assert path.read_bytes().count(b"\n") == 1
    assert lines(path)[0]["value"] == written


def test_appends_and_mends_a_torn_line(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"event":"old"}\n{"eve')
    with Journal(path) as log:
        log.write("new")
    old, torn, new = path.read_text().splitlines()
    assert (old, torn, json.loads(new)["event"]) == ('{"event":"old"}', '{"eve', "new")


def test_many_threads(tmp_path):
    path = tmp_path / "log"
    with Journal(path) as log:

        def write(thread):
            for i in range(200):
                log.write("e", thread=thread, i=i)

        threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = lines(path)
    for number in range(8):
        assert [line["i"] for line in found if line["thread"] == number] == list(range(200))


@pytest.mark.parametrize("rotate", ["rename", "remove", "copytruncate"])
def test_follows_a_rotated_file(tmp_path, rotate):
    path = tmp_path / "log"
    with Journal(path) as log:
        log.write("first")
        wait_for(lambda: path.stat().st_size > 0)
        if rotate == "rename":
            path.rename(tmp_path / "log.1")
        elif rotate == "remove":
            path.unlink()
        else:
            os.truncate(path, 0)
        log.write("second")
    assert [line["event"] for line in lines(path)] == ["second"]
    if rotate == "rename":
        assert [line["event"] for line in lines(tmp_path / "log.1")] == ["first"]


def test_a_folder_that_goes_and_comes_back(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "log"
    with Journal(path) as log:
        log.write("first")
        wait_for(lambda: path.stat().st_size > 0)
        path.unlink()
        folder.rmdir()
        log.write("lost")
        wait_for(lambda: log.dropped == 1)
        folder.mkdir()
        log.write("found")
    told, found = lines(path)
    assert (told["event"], told["lines"], found["event"]) == ("journal_dropped", 1, "found")


FULL = """
import resource, signal, sys, time
from fusion.serving.journal import Journal
# A write beyond this size fails part of the way, as on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
with Journal(sys.argv[1]) as log:
    for i in range(10):
        log.write("e", i=i, filler="x" * 40)
    while log.dropped < 8:
        time.sleep(0.005)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.write("after")
    print(log.dropped)
"""


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path):
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (0, "8\n"), done.stderr
    assert [line.get("i") for line in lines(path)] == [0, 1, None, None]
    assert [line["event"] for line in lines(path)[2:]] == ["journal_dropped", "after"]
    assert lines(path)[2]["lines"] == 8


def test_a_disk_that_hangs_holds_nobody_up(tmp_path, monkeypatch):
    hang, path = threading.Event(), tmp_path / "log"
    monkeypatch.setattr(journal, "MAX_WAITING", 100)
    log = Journal(path)
    monkeypatch.setattr(log, "_append", lambda line: hang.wait())
    started = time.monotonic()
    for i in range(500):
        log.write("e", i=i)
    # One is being written.
    assert log.dropped in (399, 400)
    monkeypatch.setattr(journal, "_CLOSE_S", 0.05)
    log.close()
    assert time.monotonic() - started < 5
    hang.set()


def test_standard_output(tmp_path):
    code = "from fusion.serving.journal import Journal\nwith Journal('-') as log: log.write('e', a=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert json.loads(done.stdout) | {"ts": 0} == {"ts": 0, "event": "e", "a": 1}
    gone = subprocess.run(f'{sys.executable} -c "{code}" >&-', shell=True, cwd=ROOT, capture_output=True, timeout=60)
    assert (gone.returncode, gone.stderr) == (0, b"")


def test_none_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Journal(None) as log:
        log.write("e")
    assert log.dropped == 0 and not list(tmp_path.iterdir())


def test_after_close_nothing_is_written(tmp_path):
    path = tmp_path / "log"
    log = Journal(path)
    log.close()
    log.close()
    log.write("late")
    assert path.read_bytes() == b""


def test_refuses_what_is_no_file(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, tmp_path / "none" / "log", fifo):
        with pytest.raises(UserError, match="log file '.*' cannot be written: "):
            Journal(path)


def test_no_descriptor_is_left(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with Journal(tmp_path / "log") as log:
            log.write("e")
            with contextlib.suppress(FileNotFoundError):
                (tmp_path / "log").unlink()
            log.write("e")
    assert len(os.listdir("/proc/self/fd")) == before
