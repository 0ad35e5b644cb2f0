"""A coordinator whose workers are absent, foreign, slow or talk nonsense: answered all the same, or said why not."""

import http.server
import json
import signal
import socket
import struct
import threading
import time
from typing import Any

import numpy as np
import pytest

from tests.fusion.conftest import cluster_text

IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
REQUEST = json.dumps({"inputs": [IMAGE]}).encode()
SLICE = "tiny-1.0-0"
WAIT_S = 60


@pytest.fixture
def infer(curl):
    """infer(program) -> (status, answer)."""

    def ask(program, **parameters):
        body = json.dumps({"inputs": [IMAGE], "parameters": parameters}).encode()
        status, _, body = curl(f"{program.url}/v2/models/tiny/infer", body=body)
        return status, json.loads(body)

    return ask


@pytest.fixture
def logits(bundle, data, worker, curl):
    """logits(switch): what the slices of a switch sum up to for the image, asked one by one."""

    def ask(switch, slices):
        total = np.zeros(4)
        for number in slices:
            name = f"tiny-{switch.replace('+', '_')}-{number}"
            answer = json.loads(curl(f"{worker.url}/v2/models/{name}/infer", body=REQUEST)[2])
            said = json.loads(curl(f"{worker.url}/v2/models/{name}")[2])["parameters"]
            total += said["output_scale"] * (np.array(answer["outputs"][0]["data"]) - said["output_zero_point"])
        return total

    return ask


def until(check):
    """Waits until `check()` is true, and returns that."""
    deadline = time.monotonic() + WAIT_S
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def ready(curl, program):
    status, _, body = curl(f"{program.url}/v2/health/ready")
    return status, json.loads(body)


def status_of(curl, program):
    return json.loads(curl(f"{program.url}/status")[2])


def device(curl, program, name):
    return next(one for one in status_of(curl, program)["devices"] if one["name"] == name)


def metric(curl, program, line):
    text = curl(f"{program.url}/metrics")[2].decode()
    return float(text.split(line)[1].split()[0])


class Pair:
    """A coordinator of 0.5+0.5 whose two workers have all slices; the second one is to be harmed."""

    def __init__(self, bundle, start, worker, cluster):
        self._bundle, self._start = bundle, start
        self.second = start("worker", f"--bundle={bundle}", "--threads=1")
        cluster.write_text(cluster_text(worker.url, self.second.url))
        options = (f"--bundle={bundle}", "--switch=0.5+0.5", f"--cluster={cluster}")
        self.coordinator = start("coordinator", *options, "--connect_timeout_s=1")

    def replace_second(self, bundle=None):
        """Another worker in the place of the second, which has ended."""
        port = self.second.url.rsplit(":", 1)[1]
        self.second = self._start("worker", f"--bundle={bundle or self._bundle}", f"--port={port}")


@pytest.fixture(scope="module")
def shared_pair(bundle, start_for_module, worker, tmp_path_factory):
    return Pair(bundle, start_for_module, worker, tmp_path_factory.mktemp("pair") / "cluster.toml")


@pytest.fixture
def pair(shared_pair, curl):
    """A `Pair` whose devices are both up. It is shared, so each test ends with a second worker that will be."""
    until(lambda: [one["state"] for one in status_of(curl, shared_pair.coordinator)["devices"]] == ["up", "up"])
    return shared_pair


def check(answer, logits):
    """That an answer is the sum of the slices that it says it is of."""
    said = answer["parameters"]
    missing = [int(number) for number in said["missing"].split(",") if number]
    slices = [i for i in range(len(said["devices"].split(","))) if i not in missing]
    found = next(one["data"] for one in answer["outputs"] if one["name"] == "logits")
    np.testing.assert_allclose(found, logits(said["switch"], slices), rtol=1e-5, atol=1e-6)
    return said


def test_a_killed_worker_fails_no_request_and_comes_back(pair, infer, curl, logits):
    coordinator, second = pair.coordinator, pair.second
    assert set(check(infer(coordinator)[1], logits)["devices"].split(",")) <= {"pi-0", "pi-1"}
    second.stop(signal.SIGKILL)
    for _ in range(3):
        status, answer = infer(coordinator)
        assert (status, check(answer, logits)["devices"]) == (200, "pi-0,pi-0")
        assert (answer["parameters"]["missing"], answer["parameters"]["degraded"]) == ("", False)

    def is_refused():
        """As soon as it was looked at, whatever it was at when it was killed."""
        found = device(curl, coordinator, "pi-1")
        begins, ends = f"device pi-1 at {second.url}, while connecting (", "): connection refused."
        return found["state"] == "down" and found["reason"].startswith(begins) and found["reason"].endswith(ends)

    until(is_refused)
    assert metric(curl, coordinator, 'fusion_device_up{device="pi-1"}') == 0
    assert ready(curl, coordinator) == (200, {"ready": True})
    pair.replace_second()
    until(lambda: device(curl, coordinator, "pi-1")["state"] == "up")
    check(infer(coordinator)[1], logits)


def test_a_hung_worker_fails_no_request(pair, infer, curl, logits):
    coordinator, second = pair.coordinator, pair.second
    assert infer(coordinator)[0] == 200
    second.process.send_signal(signal.SIGSTOP)
    for _ in range(3):
        status, answer = infer(coordinator)
        assert (status, check(answer, logits)["missing"]) == (200, "")
    until(lambda: device(curl, coordinator, "pi-1")["state"] == "down")
    second.process.send_signal(signal.SIGCONT)
    until(lambda: device(curl, coordinator, "pi-1")["state"] == "up")


def test_what_has_arrived_is_fused_at_the_deadline(bundle, start, cluster_file, infer, curl, logits):
    """With nobody else to run it, the slice of a hung worker is missing, and the answer says so."""
    options = [f"--bundle={bundle}", "--switch=0.5+0.5"]
    workers = [start("worker", *options, f"--device={i}") for i in (0, 1)]
    cluster = cluster_file(*(one.url for one in workers))
    coordinator = start("coordinator", *options, f"--cluster={cluster}")
    assert check(infer(coordinator)[1], logits)["degraded"] is False
    workers[1].process.send_signal(signal.SIGSTOP)
    status, answer = infer(coordinator, timeout=5_000_000)
    said = check(answer, logits)
    assert (status, said["devices"], said["missing"], said["degraded"]) == (200, "pi-0,", "1", True)
    assert metric(curl, coordinator, 'fusion_answers_total{kind="degraded",switch="0.5+0.5"}') == 1
    # Once it is known to be away, the other answers alone.
    until(lambda: device(curl, coordinator, "pi-1")["state"] == "down")
    status, answer = infer(coordinator)
    said = check(answer, logits)
    assert (status, said["devices"], said["missing"], said["degraded"]) == (200, "pi-0,", "1", True)
    assert ready(curl, coordinator)[0] == 200
    plan = status_of(curl, coordinator)["plan"]
    assert (plan["assignment"], plan["lacks"]) == (["pi-0", ""], "though no living device serves slice 1")
    # Without both the switch cannot be run.
    workers[0].process.send_signal(signal.SIGSTOP)
    status, answer = until(lambda: (got := infer(coordinator, timeout=1_000_000))[0] == 503 and got)
    assert answer["error"].split(".")[0] == "no switch can be run"
    assert ready(curl, coordinator)[0] == 503
    index = json.loads(curl(f"{coordinator.url}/v2/repository/index")[2])
    assert index[0]["state"] == "UNAVAILABLE"
    workers[0].process.send_signal(signal.SIGCONT)
    workers[1].process.send_signal(signal.SIGCONT)
    until(lambda: infer(coordinator)[0] == 200)


def test_a_start_without_a_device(bundle, start, cluster_file, infer, logits, free_port):
    """A whole switch is waited for; then the half that is there has to do."""
    options = [f"--bundle={bundle}", "--switch=0.5+0.5"]
    worker = start("worker", *options, "--device=0")
    cluster = cluster_file(worker.url, f"http://127.0.0.1:{free_port}")
    coordinator = start("coordinator", *options, f"--cluster={cluster}", "--startup_timeout_s=2")
    assert check(infer(coordinator)[1], logits)["devices"] == "pi-0,"
    said = coordinator.stop()[2]
    waited, plan = said.index("waiting up to 2 s"), said.index("plan: switch 0.5+0.5 on pi-0, ")
    assert waited < plan and "though no living device serves slice 1" in said[plan:]


def foreign(data):
    data["model_id"] = "0" * 64


def test_another_model_on_the_port_is_not_mixed_in(altered, pair, infer, curl, logits):
    coordinator = pair.coordinator
    pair.second.stop(signal.SIGKILL)
    pair.replace_second(altered(foreign))
    status, answer = infer(coordinator)
    assert (status, check(answer, logits)["devices"]) == (200, "pi-0,pi-0")
    reason = until(lambda: "model_id" in (said := device(curl, coordinator, "pi-1")["reason"]) and said)
    assert f"its model_id is {'0' * 64}; legal: " in reason
    pair.second.stop(signal.SIGKILL)
    pair.replace_second()


def reads(program, text):
    """Reads what a program says on standard error up to a line with this text."""
    guard = threading.Timer(WAIT_S, program.process.kill)
    guard.start()
    assert any(text in line for line in program.process.stderr)
    guard.cancel()


def test_devices_that_come_and_go_by_the_cluster_file(bundle, start, worker, cluster_file, infer, curl):
    second = start("worker", f"--bundle={bundle}", "--threads=1")
    path = cluster_file(worker.url)
    coordinator = start("coordinator", f"--bundle={bundle}", f"--cluster={path}", "--switch=0.5+0.5")
    assert infer(coordinator)[1]["parameters"]["devices"] == "pi-0,pi-0"
    cluster_file(worker.url, second.url)
    coordinator.process.send_signal(signal.SIGHUP)
    reads(coordinator, "coordinator: no accuracy is known, so more multiply-adds count as better; export.verify puts")
    reads(coordinator, "the cluster was looked at anew; new: pi-1; gone: none")
    until(lambda: [one["state"] for one in status_of(curl, coordinator)["devices"]] == ["up", "up"])
    # A file that is no cluster changes nothing.
    for text, error in (
        ("x = " + "[" * 20_000, "cluster file"),
        ("[[device]]\nname = 1\n", "device 0 of cluster file"),
    ):
        path.write_text(text)
        coordinator.process.send_signal(signal.SIGHUP)
        reads(coordinator, f"the cluster stays as it was: {error}")
    assert [one["name"] for one in status_of(curl, coordinator)["devices"]] == ["pi-0", "pi-1"]
    cluster_file(second.url)
    until(lambda: [one["name"] for one in status_of(curl, coordinator)["devices"]] == ["pi-0"])
    until(lambda: device(curl, coordinator, "pi-0")["state"] == "up")
    assert infer(coordinator)[0] == 200


@pytest.mark.parametrize("value", [0, -1, 1.5, "soon", True])
def test_deadlines_that_are_none(coordinator, infer, value):
    status, answer = infer(coordinator, timeout=value)
    assert status == 400
    assert "parameter 'timeout' is" in answer["error"] and "legal: a number of micro" in answer["error"]


def refusal(runner, bundle, cluster, *more):
    """The last line and all of what a coordinator that does not start says."""
    options = (f"--bundle={bundle}", f"--cluster={cluster}", "--startup_timeout_s=0", *more)
    done = runner("coordinator", *options)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in done.stderr
    return last, done.stderr


def test_absent_worker_at_start(bundle, free_port, cluster_file, runner):
    """It is waited for; the last line of the refusal says what is wrong with it."""
    url = f"http://127.0.0.1:{free_port}"
    last, errors = refusal(runner, bundle, cluster_file(url), "--startup_timeout_s=1")
    assert last.startswith("error: no switch can be run. device pi-0")
    assert f"device pi-0 at {url}, while connecting (asking whether it is there): connection refused." in last
    waits = "coordinator: waiting up to 1 s (--startup_timeout_s) for devices that can run a whole switch\n"
    assert errors.count(waits) == 1
    assert f":{free_port} is down, while connecting (asking whether it is there): connection refused.\n" in errors


def test_a_worker_of_other_files_at_start(bundle, worker, cluster_file, runner):
    last, _ = refusal(runner, bundle, cluster_file(worker.url), "--switch=1.0", "--precision=float32")
    assert f"device pi-0 at {worker.url}, while " in last and "): its file_sha256 is " in last


def test_a_deadline_that_no_request_may_have(bundle, worker, cluster_file, runner):
    last, _ = refusal(runner, bundle, cluster_file(worker.url), "--deadline_ms=20000")
    assert "--deadline_ms=20000 is more than --request_timeout_s=10" in last


def test_a_worker_that_the_cluster_file_names_twice_is_one_device(worker, bundle, start, cluster_file, curl, infer):
    port = worker.url.rsplit(":", 1)[1]
    cluster = cluster_file(worker.url, f"http://localhost:{port}")
    coordinator = start("coordinator", f"--bundle={bundle}", f"--cluster={cluster}", "--switch=0.5+0.5")

    def the_one_that_is_up():
        down, up = sorted(status_of(curl, coordinator)["devices"], key=lambda one: one["state"])
        said = f"it is the worker of device {up['name']} too; legal: a worker of its own for each device"
        return up["state"] == "up" and said in down["reason"] and up["name"]

    name = until(the_one_that_is_up)
    assert infer(coordinator)[1]["parameters"]["devices"] == f"{name},{name}"


class Impostor:
    """A server with a true worker's metadata and whatever answer a test gives it, once that is `released`."""

    def __init__(self, metadata):
        self.answer: Any = (200, {}, b"")
        self.released = threading.Event()
        self.released.set()
        impostor = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(200, {}, metadata)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/v2/repository/index":
                    self.reply(200, {}, json.dumps([{"name": SLICE}]).encode())
                    return
                impostor.released.wait()
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
def true_answer(worker, curl):
    return json.loads(curl(f"{worker.url}/v2/models/{SLICE}/infer", body=REQUEST)[2])


@pytest.fixture(scope="module")
def deceived(bundle, worker, curl, true_answer, start_for_module, tmp_path_factory):
    """A coordinator and the impostor that it takes for its only worker."""
    impostor = Impostor(curl(f"{worker.url}/v2/models/{SLICE}")[2])
    impostor.answer = well(true_answer)
    path = tmp_path_factory.mktemp("deceived") / "cluster.toml"
    path.write_text(f'[[device]]\nname = "pi-0"\nurl = "{impostor.url}"\n')
    options = (f"--bundle={bundle}", f"--cluster={path}", "--switch=1.0")
    yield start_for_module("coordinator", *options), impostor
    impostor.stop()


def well(true_answer):
    return 200, {}, json.dumps(true_answer).encode()


@pytest.fixture
def answered(deceived, true_answer, infer):
    """answered(how) -> (status, answer) of a request whose only worker answers so; afterwards it is well again."""
    coordinator, impostor = deceived

    def ask(answer):
        def met_by_a_request():
            impostor.answer = answer
            got = infer(coordinator)
            impostor.answer = well(true_answer)
            until(lambda: infer(coordinator)[0] == 200)
            # Else a measurement has met it, and the worker was gone when the request came.
            return not got[1].get("error", "").startswith("no switch can be run") and got

        return until(met_by_a_request)

    return ask


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
def test_nonsense_is_a_502(deceived, true_answer, answered, make, said):
    answer = make(true_answer)
    status, error = answered((200, {}, answer if isinstance(answer, bytes) else json.dumps(answer).encode()))
    assert status == 502, error
    assert f"device pi-0 at {deceived[1].url}, while " in error["error"] and said in error["error"]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (None, 503, "while waiting for the answer (asking for slice 0 of switch 1.0): it closed the connection"),
        ((200, {"Content-Length": 50}, b"short"), 503, "while reading the answer"),
        ((500, {}, b"oops"), 502, "it answered 500: no reason given"),
        ((400, {}, b'{"error": "too odd"}'), 502, "it answered 400: too odd"),
        ((503, {}, b'{"error": "busy"}'), 503, "it answered 503: busy"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), 502, "it answered 302"),
    ],
)
def test_broken_exchanges(deceived, answered, answer, status, said):
    got, error = answered(answer)
    assert got == status, error
    assert f"device pi-0 at {deceived[1].url}, while " in error["error"] and said in error["error"]


@pytest.mark.parametrize(
    ("headers", "state", "reason"), [({}, "up", "busy"), ({"Model-Unable": "true"}, "down", "unable")]
)
def test_a_full_queue_and_a_slice_without_room(deceived, true_answer, answered, infer, curl, headers, state, reason):
    """Of its only slice, the one says nothing against a device, the other that it is of no use for now."""
    coordinator, impostor = deceived
    refusal = (503, headers, b'{"error": "later"}')
    assert answered(refusal)[0] == 503
    line = f'fusion_device_failures_total{{device="pi-0",phase="checking the answer",reason="{reason}"}}'
    assert metric(curl, coordinator, line) >= 1
    impostor.answer = refusal
    try:
        assert infer(coordinator)[0] == 503
        assert device(curl, coordinator, "pi-0")["state"] == state
    finally:
        impostor.answer = well(true_answer)
    until(lambda: infer(coordinator)[0] == 200)


@pytest.mark.parametrize("said", ["1e999", "-1e999", "1" + "0" * 400, "-5"])
def test_times_that_cannot_be_are_not_believed(deceived, true_answer, infer, curl, said):
    coordinator, impostor = deceived
    parameters = true_answer["parameters"] | {"queue_ms": "@", "invoke_ms": "@"}
    lie = json.dumps(true_answer | {"parameters": parameters}).replace('"@"', said).encode()
    impostor.answer = (200, {}, lie)
    assert infer(coordinator)[0] == 200
    (latency,) = device(curl, coordinator, "pi-0")["latency_ms"].values()
    assert 0 < latency < WAIT_S * 1e3
    impostor.answer = well(true_answer)


def test_a_device_that_hangs_at_the_start_is_not_waited_for(bundle, worker, curl, infer, start, cluster_file):
    hung = Impostor(curl(f"{worker.url}/v2/models/{SLICE}")[2])
    hung.released.clear()
    try:
        coordinator = start("coordinator", f"--bundle={bundle}", f"--cluster={cluster_file(hung.url, worker.url)}")
        assert set(infer(coordinator)[1]["parameters"]["devices"].split(",")) == {"pi-1"}
    finally:
        hung.released.set()
        hung.stop()


def test_a_client_that_goes_in_the_middle_of_its_request_leaves_no_traceback(bundle, start, curl):
    worker = start("worker", f"--bundle={bundle}", "--threads=1")
    host, port = worker.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            head = "POST /v2/models/tiny-1.0-0/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"half")
            time.sleep(0.2)
            # Closing with a reset, as a process that is killed does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert curl(f"{worker.url}/v2/health/ready")[0] == 200
    status, _, err = worker.stop()
    assert status in (0, 143)
    assert "Traceback" not in err
