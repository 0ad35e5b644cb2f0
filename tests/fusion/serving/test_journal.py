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
    end = time.monotonic() + 60
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
        (Path("a") / "b", "a/b"),
        ("two\nlines \ud800 \u2028 ", "two\nlines \ud800 \u2028 "),
        (ValueError("x"), "x"),
    ],
)
def test_any_value(tmp_path, value, written):
    path = tmp_path / "log"
    with Journal(path) as log:
        log.write("e", value=value)
    assert path.read_bytes().count(b"\n") == 1
    assert lines(path)[0]["value"] == written


def test_appends(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b'{"event":"old"}\n')
    with Journal(path) as log:
        log.write("new")
    assert [line["event"] for line in lines(path)] == ["old", "new"]


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


FULL = """
import resource, signal, sys
from fusion.serving.journal import Journal
# A write beyond this size fails part of the way, as on a full disk.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, resource.RLIM_INFINITY))
with Journal(sys.argv[1]) as log:
    for i in range(100):
        log.write("e", i=i, filler="x" * 40)
print("ended")
"""


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path):
    path = tmp_path / "log"
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
    assert [json.loads(line)["i"] for line in path.read_text().splitlines()[:2]] == [0, 1]


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
        folder.mkdir()
        # Written to whichever is there.
        log.write("again")
        wait_for(path.exists)
    assert lines(path)[-1]["event"] == "again"


def test_a_disk_that_hangs_holds_no_writer_up(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "MAX_WAITING", 100)
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = Journal(fifo)
    # Nobody reads, so it takes 64 KiB and hangs.
    for i in range(5000):
        log.write("e", i=i, filler="x" * 1000)
    os.set_blocking(reader, True)
    numbers: list[int] = []

    def read():
        with open(reader, encoding="utf-8") as stream:
            numbers.extend(json.loads(line)["i"] for line in stream)

    reading = threading.Thread(target=read)
    reading.start()
    log.close()
    reading.join()
    assert numbers == sorted(numbers) and 100 <= len(numbers) < 1000


def test_standard_output(tmp_path):
    code = "from fusion.serving.journal import Journal\nwith Journal('-') as log: log.write('e', a=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert json.loads(done.stdout) | {"ts": 0} == {"ts": 0, "event": "e", "a": 1}
    gone = subprocess.run(f'{sys.executable} -c "{code}" >&-', shell=True, cwd=ROOT, capture_output=True, timeout=300)
    assert (gone.returncode, gone.stderr) == (0, b"")


def test_none_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Journal(None) as log:
        log.write("e")
    assert not list(tmp_path.iterdir())


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


def test_an_empty_name_is_refused():
    with pytest.raises(UserError, match="^the log file's name is empty; legal: a file, or - for standard output.$"):
        Journal("")
