"""A coordinator whose workers are absent, foreign, slow or talk nonsense."""

import http.server
import json
import signal
import socket
import struct
import threading
import time
from typing import Any

import pytest

IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
REQUEST = json.dumps({"inputs": [IMAGE]}).encode()
SLICE = "tiny-0.5_0.5-1"


@pytest.fixture
def infer(curl):
    """infer(program) -> (status, answer)."""

    def ask(program):
        status, _, body = curl(f"{program.url}/v2/models/tiny/infer", body=REQUEST)
        return status, json.loads(body)

    return ask


def ready(curl, program):
    status, _, body = curl(f"{program.url}/v2/health/ready")
    return status, json.loads(body)


@pytest.fixture
def pair(bundle, start, worker, cluster_file):
    """A coordinator of 0.5+0.5 with short limits, and its second worker."""
    options = (f"--bundle={bundle}", "--switch=0.5+0.5")
    second = start("worker", *options, "--device=1")
    cluster = cluster_file(worker.url, second.url)
    limits = ("--request_timeout_s=1", "--connect_timeout_s=1")
    return start("coordinator", *options, f"--cluster={cluster}", *limits), second


def metric(curl, program, line):
    text = curl(f"{program.url}/metrics")[2].decode()
    return float(text.split(line)[1].split()[0])


def test_killed_worker_is_named_and_comes_back(bundle, pair, start, infer, curl):
    coordinator, second = pair
    assert infer(coordinator)[0] == 200
    second.stop(signal.SIGKILL)
    status, answer = infer(coordinator)
    said = f"device pi-1 at {second.url}: connection refused while connecting (slice 1 of switch 0.5+0.5)."
    assert (status, answer) == (503, {"error": said})
    assert ready(curl, coordinator) == (503, {"error": said})
    index = json.loads(curl(f"{coordinator.url}/v2/repository/index")[2])
    assert (index[0]["state"], index[0]["reason"]) == ("UNAVAILABLE", said)
    assert curl(f"{coordinator.url}/v2/health/live")[0] == 200
    line = 'fusion_device_failures_total{device="pi-1",phase="connecting"}'
    assert metric(curl, coordinator, line) == 1
    port = second.url.rsplit(":", 1)[1]
    start("worker", f"--bundle={bundle}", f"--port={port}")
    assert infer(coordinator)[0] == 200
    assert ready(curl, coordinator) == (200, {"ready": True})


def test_hung_worker_is_named(pair, infer, curl):
    coordinator, second = pair
    assert infer(coordinator)[0] == 200
    second.process.send_signal(signal.SIGSTOP)
    said = f"device pi-1 at {second.url}: nothing within 1 s while waiting for the answer (slice 1 of switch 0.5+0.5)."
    assert infer(coordinator) == (504, {"error": said})
    assert ready(curl, coordinator) == (503, {"error": said})
    second.process.send_signal(signal.SIGCONT)
    assert infer(coordinator)[0] == 200


def foreign(data):
    data["model_id"] = "0" * 64


def test_another_model_on_the_port_is_refused(altered, pair, start, infer):
    coordinator, second = pair
    second.stop(signal.SIGKILL)
    port = second.url.rsplit(":", 1)[1]
    start("worker", f"--bundle={altered(foreign)}", f"--port={port}")
    status, answer = infer(coordinator)
    assert status == 502
    assert f"its model_id is {'0' * 64}; legal: " in answer["error"]
    assert "while checking the answer (slice 1 of switch 0.5+0.5)" in answer["error"]


def refusal(runner, bundle, cluster, *more):
    options = (f"--bundle={bundle}", f"--cluster={cluster}", "--startup_timeout_s=0", *more)
    done = runner("coordinator", *options)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in done.stderr
    return last


def test_absent_worker_at_start(bundle, worker, free_port, cluster_file, runner):
    url = f"http://127.0.0.1:{free_port}"
    said = refusal(runner, bundle, cluster_file(worker.url, url), "--switch=0.5+0.5")
    assert said == (f"error: device pi-1 at {url}: connection refused while connecting (slice 1 of switch 0.5+0.5).")


def test_foreign_workers_at_start(bundle, altered, worker, start, cluster_file, runner):
    other = start("worker", f"--bundle={altered(foreign)}")
    said = refusal(runner, bundle, cluster_file(other.url), "--switch=1.0")
    assert f"device pi-0 at {other.url}: its model_id is {'0' * 64}; legal: " in said
    floats = ("--switch=1.0", "--precision=float32")
    said = refusal(runner, bundle, cluster_file(worker.url), *floats)
    assert f"device pi-0 at {worker.url}: its file_sha256 is " in said


def test_worker_without_the_slice_at_start(bundle, start, cluster_file, runner):
    other = start("worker", f"--bundle={bundle}", "--switch=0.5+0.5", "--device=1")
    said = refusal(runner, bundle, cluster_file(other.url), "--switch=1.0")
    assert "it answered 404: model 'tiny-1.0-0' is not served here; served: " + SLICE in said


def test_chooses_the_switch_by_the_cluster_file(bundle, worker, start, cluster_file, runner):
    others = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    one, two = cluster_file(worker.url), None
    program = start("coordinator", f"--bundle={bundle}", f"--cluster={one}")
    program.stop()
    two = cluster_file(worker.url, others[0])
    said = refusal(runner, bundle, two)
    assert "2 switches of the bundle have the cluster file's 2 devices" in said
    assert said.endswith("legal: 0.5+0.5, 0.75+0.25.")
    more = start("coordinator", f"--bundle={bundle}", f"--cluster={two}", "--switch=1.0")
    assert "switch 1.0 has 1 slices; not used: pi-1" in more.stop()[2]
    said = refusal(runner, bundle, cluster_file(worker.url), "--switch=0.5+0.5")
    assert "has 2 slices but cluster file" in said and "names 1 devices" in said
    said = refusal(runner, bundle, one, "--switch=4x0.25")
    assert said.endswith("legal: 1.0, 0.5+0.5, 0.75+0.25.")


class Impostor:
    """A server with a true worker's metadata and whatever answer a test gives it."""

    def __init__(self, metadata):
        self.answer: Any = (200, {}, b"")
        impostor = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(200, {}, metadata)

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                if impostor.answer is None:
                    self.close_connection = True
                    return
                self.reply(*impostor.answer)

            def reply(self, status, headers, body):
                self.send_response(status)
                for name, value in ({"Content-Length": len(body)} | headers).items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = "Content-Length" in headers

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def deceived(bundle, worker, curl, start_for_module, tmp_path_factory):
    """A coordinator and the impostor that it takes for its second worker."""
    impostor = Impostor(curl(f"{worker.url}/v2/models/{SLICE}")[2])
    path = tmp_path_factory.mktemp("deceived") / "cluster.toml"
    path.write_text(
        f'[[device]]\nname = "pi-0"\nurl = "{worker.url}"\n[[device]]\nname = "pi-1"\nurl = "{impostor.url}"\n'
    )
    options = (f"--bundle={bundle}", f"--cluster={path}", "--switch=0.5+0.5")
    yield start_for_module("coordinator", *options), impostor
    impostor.stop()


@pytest.fixture(scope="module")
def true_answer(worker, curl):
    return json.loads(curl(f"{worker.url}/v2/models/{SLICE}/infer", body=REQUEST)[2])


def without(answer, *keys):
    parameters = {k: v for k, v in answer["parameters"].items() if k not in keys}
    return answer | {"parameters": parameters}


ANSWERS = {
    "not JSON": (lambda good: b"garbage", "the response is not JSON"),
    "not an object": (lambda good: b"[]", "legal: a JSON object"),
    "no model id": (lambda good: without(good, "model_id"), "its model_id is null; legal: "),
    "no hash": (lambda good: without(good, "file_sha256"), "its file_sha256 is null; legal: "),
    "no outputs": (lambda good: good | {"outputs": []}, "it sent none of the logits"),
    "two images": (
        lambda good: good | {"outputs": [good["outputs"][0] | {"shape": [2, 4], "data": [1] * 8}]},
        "it sent those of 2 images of the logits; legal: those of 1 images",
    ),
    "wrong dtype": (
        lambda good: good | {"outputs": [good["outputs"][0] | {"datatype": "FP32"}]},
        'datatype "FP32"; legal: INT8',
    ),
    "endless": (lambda good: b" " * 100_000, "its answer is longer than"),
}


@pytest.mark.parametrize(("make", "said"), ANSWERS.values(), ids=ANSWERS)
def test_nonsense_is_a_502(deceived, true_answer, infer, make, said):
    coordinator, impostor = deceived
    answer = make(true_answer)
    impostor.answer = (200, {}, answer if isinstance(answer, bytes) else json.dumps(answer).encode())
    status, error = infer(coordinator)
    assert status == 502, error
    assert f"device pi-1 at {impostor.url}: " in error["error"] and said in error["error"]
    impostor.answer = (200, {}, json.dumps(true_answer).encode())
    assert infer(coordinator)[0] == 200


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (None, 503, "it closed the connection while waiting for the answer"),
        ((200, {"Content-Length": 50}, b"short"), 503, "while reading the answer"),
        ((500, {}, b"oops"), 502, "it answered 500: no reason given"),
        ((400, {}, b'{"error": "too odd"}'), 502, "it answered 400: too odd"),
        ((503, {}, b'{"error": "busy"}'), 503, "it answered 503: busy"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), 502, "it answered 302"),
    ],
)
def test_broken_exchanges(deceived, infer, answer, status, said):
    coordinator, impostor = deceived
    impostor.answer = answer
    got, error = infer(coordinator)
    assert got == status, error
    assert f"device pi-1 at {impostor.url}: " in error["error"] and said in error["error"]


def test_a_client_that_goes_in_the_middle_of_its_request_leaves_no_traceback(bundle, start):
    worker = start("worker", f"--bundle={bundle}", "--threads=1")
    host, port = worker.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /v2/models/tiny-1.0-0/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"half")
            time.sleep(0.2)
            # Closing with a reset, as a process that is killed does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.5)
    status, _, err = worker.stop()
    assert status in (0, 143)
    assert "Traceback" not in err
