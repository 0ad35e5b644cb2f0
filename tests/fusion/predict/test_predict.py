"""Predict beyond single images, against a coordinator that answers, degrades, is busy or ends as a test tells it."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusion.asking.client import FusionClient, RefusedError, UnreachableError
from fusion.protocol import oip
from fusion.protocol.oip import TensorSpec
from fusion.security.credentials import Credentials

ROOT = Path(__file__).resolve().parents[3]
IMAGE = (TensorSpec("image", "UINT8", (-1, 8, 6, 3)),)
CLASSES = (
    TensorSpec("logits", "FP32", (-1, 3)),
    TensorSpec("class", "INT64", (-1,)),
    TensorSpec("label", "BYTES", (-1,)),
)
PIXELS = (TensorSpec("pixels", "UINT8", (-1, 16, 12, 3)),)
COMPLETE = {"switch": "0.5+0.5", "devices": "pi-0,pi-1", "missing": "", "degraded": False, "expected_accuracy": 0.9}
DEGRADED = COMPLETE | {"devices": "pi-0,", "missing": "1", "degraded": True, "expected_accuracy": 0.5}


class Coordinator:
    """A server whose class is an image's first pixel, or which doubles images.

    `statuses` are given to the next inference requests before they are answered; a status of 0 cuts the connection.
    `images` are those that it was asked about.
    """

    def __init__(self, outputs=CLASSES, inputs=IMAGE, port=0):
        self.outputs, self.inputs, self._port = outputs, inputs, port
        self.images: list[np.ndarray] = []
        self.parameters: list[dict[str, Any]] = [COMPLETE]
        self.statuses: list[tuple[int, dict[str, str]]] = []
        self.asked: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __enter__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.endswith("/infer"):
                    return outer.infer(self, body)
                described = {"inputs": outer.inputs, "outputs": outer.outputs}
                metadata = {key: [spec.metadata() for spec in specs] for key, specs in described.items()}
                said = [{"name": "m"}] if self.path.endswith("index") else metadata | {"parameters": {"model_id": "x"}}
                outer.send(self, 200, json.dumps(said).encode(), {})

            do_GET = do_POST = answer  # noqa: N815  http.server wants these names

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @staticmethod
    def send(handler, status, body, headers):
        handler.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def infer(self, handler, body):
        statuses = self.statuses
        if statuses:
            status, headers = statuses.pop(0)
            if not status:
                handler.close_connection = True
                return
            return self.send(handler, status, b'{"error": "no time."}', headers)
        request = oip.decode_request(body, handler.headers[oip.HEADER], "m", "1", self.inputs, self.outputs, 1)
        with self._lock:
            parameters = self.parameters[len(self.asked) % len(self.parameters)]
            self.asked.append(dict(request.parameters))
            self.images.append(request.inputs["image"][0])
        image = request.inputs["image"]
        if self.outputs[0].name == PIXELS[0].name:
            arrays: list[np.ndarray] = [image.repeat(2, 1).repeat(2, 2)]
        else:
            index = int(image[0, 0, 0, 0]) % 3
            arrays = [
                np.eye(3, dtype=np.float32)[[index]],
                np.array([index]),
                np.array([b"abc"[index : index + 1]], object),
            ]
        sent, length = oip.encode_response("m", "1", request, list(zip(self.outputs, arrays, strict=True)), parameters)
        self.send(handler, 200, sent, {oip.HEADER: str(length)})


@pytest.fixture
def coordinator():
    with Coordinator() as found:
        yield found


def image(path, first=0, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (first, 0, 0)).save(path)
    return path


@contextlib.contextmanager
def predicting(coordinator, *options, **more):
    """The program, running, from whose `stdout` and `stderr` lines can be read."""
    command = [sys.executable, "-m", "fusion.predict", f"--url={coordinator.url}", *map(str, options)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more
    process: Any = subprocess.Popen(command, cwd=ROOT, **pipes)
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_of_anything(coordinator, runner, tmp_path):
    folder, out, lines = tmp_path / "in", tmp_path / "out.json", tmp_path / "out.jsonl"
    good = [image(folder / "0.png"), image(folder / "below" / "1.png", 1), image(folder / "below" / "2.png", 2)]
    image(folder / "large.jpg", size=(60, 80))
    (folder / "broken.png").write_bytes(good[0].read_bytes()[:45])
    for other in ("notes.txt", "below/notes.TXT", ".notes.txt"):
        (folder / other).write_text("x")
    coordinator.parameters = [COMPLETE, DEGRADED]
    options = (f"--url={coordinator.url}", f"--json={out}", f"--jsonl={lines}", "--deadline_ms=12.5", "--parallel=2")
    done = runner("predict", *options, folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in said] == [[str(path), letter] for path, letter in zip(good, "abc", strict=True)]
    assert coordinator.asked == [{"timeout": 12_500}] * 3
    phrase = "degraded: without slice 1 of 0.5+0.5, expected accuracy 50.00 %"
    assert sum(line.endswith(phrase) for line in done.stdout.splitlines()) == 1
    *errors, totals = done.stderr.splitlines()
    assert len(errors) == 2 and "broken.png" in errors[0] and "large.jpg" in errors[1]
    assert totals.startswith("5 images in ")
    assert ": 3 answered (1 degraded), 2 unfit, left out 2 .txt and 1 hidden; " in totals
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png", "broken.png", "large.jpg"]
    assert [row["label"] for row in rows if "error" not in row] == ["a", "b", "c"]
    times = [datetime.fromisoformat(row["time"].replace("Z", "+00:00")) for row in rows]
    assert times == sorted(times) and times[0].utcoffset() == timedelta(0)
    complete, worse = (next(row for row in rows if row.get("degraded") is flag) for flag in (False, True))
    assert (complete["switch"], complete["devices"], complete["missing"]) == ("0.5+0.5", ["pi-0", "pi-1"], [])
    assert (worse["devices"], worse["missing"], worse["expected_accuracy"]) == (["pi-0", ""], [1], 0.5)
    assert len(json.loads(out.read_text())["images"]) == 3


def test_images_of_any_size_with_resize(coordinator, runner, tmp_path):
    Image.new("RGBA", (50, 40), (2, 0, 0, 255)).save(tmp_path / "a.png")
    done = runner("predict", f"--url={coordinator.url}", "--resize=crop", tmp_path)
    assert (done.returncode, done.stdout.split()[1]) == (0, "c"), done.stderr
    Image.new("1", (9000, 9000)).save(tmp_path / "vast.png")
    done = runner("predict", f"--url={coordinator.url}", "--resize=crop", tmp_path)
    assert (done.returncode, done.stdout.split()[1]) == (2, "c"), done.stderr
    assert "vast.png' is 9000 x 9000 pixels; legal: 64 million in all." in done.stderr
    assert ": 1 answered, 1 unfit; " in done.stderr


def test_paths_on_standard_input_are_answered_as_they_come(coordinator, tmp_path):
    with predicting(coordinator, "--jsonl=-", "-") as program:
        for index in (2, 1):
            print(image(tmp_path / f"{index}.png", index), file=program.stdin, flush=True)
            assert json.loads(program.stdout.readline())["class"] == index
        print(tmp_path / "none.png", file=program.stdin, flush=True)
        assert "does not exist" in json.loads(program.stdout.readline())["error"]
        out, err = program.communicate(timeout=300)
    assert (program.returncode, out) == (2, "")
    assert "3 images in" in err.splitlines()[-1]


@pytest.mark.parametrize("lines", ["", "\n\n"])
def test_no_name_on_standard_input(coordinator, lines):
    with predicting(coordinator, "-") as program:
        out, err = program.communicate(lines, timeout=300)
    assert (program.returncode, out) == (2, "")
    assert err == "error: standard input names no image; legal: the name of a file on each line.\n"


def test_an_image_on_standard_input(coordinator, tmp_path):
    path = image(tmp_path / "x.png", 1)
    with path.open("rb") as stream, predicting(coordinator, "--stdin=image", "-", stdin=stream) as program:
        out, err = program.communicate(timeout=300)
    assert (program.returncode, out.split()[:2], err) == (0, ["-", "b"], "")
    assert out.endswith(" ms  0.5+0.5\n")


def test_an_image_in_place_of_names(coordinator, tmp_path):
    with image(tmp_path / "x.png", 1).open("rb") as stream, predicting(coordinator, "-", stdin=stream) as program:
        out, err = program.communicate(timeout=300)
    said = "error: standard input holds no file names; legal: one per line, or an image's own bytes with --stdin=image."
    assert (program.returncode, out, err) == (2, "", said + "\n")


def test_watch(coordinator, tmp_path):
    folder = tmp_path / "in"
    image(folder / "old.png")
    with predicting(coordinator, f"--watch={folder}") as program:
        assert program.stderr.readline() == f"watching {folder}\n"
        image(tmp_path / "aside.png", 1).rename(folder / "new.png")
        assert program.stdout.readline().split()[:2] == [str(folder / "new.png"), "b"]
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=300)
    assert program.returncode == 130
    totals, end = err.splitlines()
    assert totals.startswith("1 image in ") and end == "interrupted"


def test_a_camera_outlives_its_coordinator(tmp_path):
    path = image(tmp_path / "snapshot.png")
    with Coordinator() as coordinator, predicting(coordinator, "--loop", "--every_s=0.02", path) as program:
        assert program.stdout.readline().split()[1] == "a"
        image(tmp_path / "next.png", 2).rename(path)
        while program.stdout.readline().split()[1] != "c":
            pass
        coordinator.statuses = [(502, {})]
        assert "it answered 502: no time" in program.stderr.readline()
        coordinator.statuses = [(0, {})] * 2
        assert "error: " in program.stderr.readline()
        assert program.stdout.readline().split()[1] == "c"
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=300)
    assert program.returncode == 143 and " failed; " in err


def test_a_coordinator_that_starts_is_waited_for(tmp_path, free_port):
    path, coordinator = image(tmp_path / "a.png"), Coordinator(port=free_port)
    coordinator.url = f"http://127.0.0.1:{free_port}"
    with predicting(coordinator, path) as program:
        assert program.stderr.readline() == f"waiting, up to 30 s: nothing listens at {coordinator.url} yet\n"
        with coordinator:
            out, _ = program.communicate(timeout=300)
    assert program.returncode == 0 and out.startswith(str(path))


def test_other_images_stop_when_nobody_is_there(coordinator, runner, tmp_path):
    paths = [image(tmp_path / f"{i}.png") for i in range(9)]
    coordinator.statuses = [(400, {}), (0, {}), (0, {})]
    done = runner("predict", f"--url={coordinator.url}", *paths)
    assert done.returncode == 2 and done.stdout == ""
    refused, totals, end = done.stderr.splitlines()
    assert "0.png': server " in refused and "it answered 400: no time" in refused
    assert "2 failed" in totals and end.startswith(f"error: server {coordinator.url}, while ")


def test_other_images_stop_when_one_waited_in_vain(coordinator, runner, tmp_path):
    paths = [image(tmp_path / f"{i}.png") for i in range(9)]
    coordinator.statuses = [(503, {"Retry-After": "1"})] * 1000
    done = runner("predict", f"--url={coordinator.url}", "--timeout_s=3.5", *paths)
    assert (done.returncode, done.stdout) == (2, "")
    waiting, totals, end = done.stderr.splitlines()
    assert waiting == "waiting, up to 3.5 s: no time"
    assert totals.endswith(": 0 answered, 1 failed, 8 not done") and "it answered 503: no time" in end
    # Four times about the first image, fewer on a busy machine; the next one may have been begun.
    assert len(coordinator.statuses) >= 995


def test_a_camera_waits_again(coordinator, tmp_path):
    path = image(tmp_path / "snapshot.png")
    coordinator.statuses = [(503, {"Retry-After": "1"})] * 1000
    with predicting(coordinator, "--loop", "--timeout_s=3.5", path) as program:
        assert program.stderr.readline() == "waiting, up to 3.5 s: no time\n"
        assert program.stderr.readline().startswith(f"error: '{path}': server ")
        coordinator.statuses = []
        assert program.stdout.readline().split()[1] == "a"


def test_enlarging_a_watched_folder_into_itself_is_refused(runner, tmp_path):
    with Coordinator(PIXELS) as coordinator:
        (below := tmp_path / "below").mkdir()
        for target in (tmp_path, below):
            done = runner("predict", f"--url={coordinator.url}", f"--watch={tmp_path}", f"--target={target}")
            assert done.returncode == 2 and "answers would be enlarged again" in done.stderr
        source = image(tmp_path / "x.png", 7, size=(20, 10))
        coordinator.parameters = [COMPLETE, DEGRADED, COMPLETE]
        done = runner("predict", f"--url={coordinator.url}", f"--target={tmp_path}", "--overlap=2", source)
    assert done.returncode == 0 and "degraded: without slice 1" in done.stdout, done.stderr
    with Image.open(tmp_path / "x_x2.png") as made:
        assert made.size == (40, 20) and np.asarray(made)[..., 0].min() == 7


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--loop", "-"], "--loop reads files again; legal: "),
        (["--loop", "--json=x.json", "x.png"], "--loop has none; legal: --jsonl"),
        (["--watch=none"], "folder 'none' cannot be read"),
        (["-", "-"], "stands twice"),
        (["--jsonl=none/x", "x.png"], "'none' is no folder"),
    ],
)
def test_one_sentence_on_bad_options(coordinator, runner, options, said):
    done = runner("predict", f"--url={coordinator.url}", *options)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_enough(coordinator, tmp_path):
    for i in range(20):
        image(tmp_path / f"{i}.png")
    read, write = os.pipe()
    with predicting(coordinator, tmp_path, stdout=write) as program:
        os.close(write)
        os.close(read)
        _, err = program.communicate(timeout=300)
    assert program.returncode == 1 and "Traceback" not in err and "Exception" not in err


@pytest.mark.parametrize("full", ["stdout", "stderr"])
def test_answers_are_on_the_disk_when_an_output_is_full(coordinator, tmp_path, full):
    image(tmp_path / "in" / "0.png")
    image(tmp_path / "in" / "1.png", size=(60, 80))
    out = tmp_path / "out.json"
    with (
        open("/dev/full", "w") as device,
        predicting(coordinator, f"--json={out}", tmp_path / "in", **{full: device}) as p,
    ):
        p.communicate(timeout=300)
    assert p.returncode == 2
    assert [Path(row["file"]).name for row in json.loads(out.read_text())["images"]] == ["0.png"]


@pytest.fixture
def client(coordinator):
    with FusionClient(coordinator.url, Credentials(), 1.0) as found:
        yield found


PICTURE = np.zeros((8, 6, 3), np.uint8)


def test_a_busy_coordinator_is_asked_again(coordinator, client):
    coordinator.statuses = [(503, {"Retry-After": "0"})] * 3
    assert client.infer(PICTURE).label == "a"
    assert len(coordinator.asked) == 1


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "5"}, {"Retry-After": "soon"}, {"Retry-After": "9" * 400}])
def test_but_not_beyond_the_time(coordinator, client, headers):
    coordinator.statuses = [(503, headers), (500, {})]
    with pytest.raises(RefusedError, match="while asking /v2/models/m/infer: it answered 503: no time\\."):
        client.infer(PICTURE)
    # It was asked once.
    assert coordinator.statuses.pop() == (500, {}) and not coordinator.statuses
    assert client.infer(PICTURE).label == "a"


def test_a_busy_coordinator_is_given_up_at_last(coordinator, client):
    coordinator.statuses = [(503, {"Retry-After": "0"})] * 1000
    with pytest.raises(RefusedError):
        client.infer(PICTURE)
    assert len(coordinator.statuses) > 900


def test_a_closed_connection_is_opened_again(coordinator, client):
    coordinator.statuses = [(0, {})]
    assert client.infer(PICTURE).label == "a"
    coordinator.statuses = [(0, {}), (0, {})]
    with pytest.raises(UnreachableError):
        client.infer(PICTURE)


def test_answers_tell_what_they_lack(coordinator, client):
    coordinator.parameters = [DEGRADED, COMPLETE, {"missing": 3, "degraded": "yes"}]
    found = [client.infer(PICTURE) for _ in range(3)]
    assert [(one.degraded, one.missing) for one in found] == [(True, ("1",)), (False, ()), (False, ("3",))]
