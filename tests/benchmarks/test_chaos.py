"""The chaos run: its parts one by one, and a minute of it."""

import http.client
import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos import proxies, resources, schedule, verdicts
from benchmarks.chaos.injector import Incident, servable
from benchmarks.chaos.oracle import Oracle
from benchmarks.chaos.proxies import Proxies
from benchmarks.chaos.resources import ResourceSample
from benchmarks.chaos.schedule import Event
from fusion.bench.load import Attempt
from fusion.bundle import manifest
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import SliceInterpreter

ROOT = Path(__file__).resolve().parents[2]


def test_a_minute_of_chaos(bundle, tmp_path):
    command = [sys.executable, "-m", "benchmarks.chaos", f"--bundle={bundle}", "--minutes=1", "--every_s=2"]
    # The slices of one switch, so that every event strikes requests.
    options = ["--coordinator=--switch=0.5+0.5", f"--target={tmp_path}/chaos", "--seed=1"]
    # Easy on machines that do other work beside it.
    options += ["--rate=10", "--deadline_ms=3000"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, (done.stdout, done.stderr[-3000:])
    assert done.stdout.splitlines()[-1] == "good"
    for kind in (*schedule.OF_PROCESSES, *schedule.OF_PROXIES):
        assert f"\n{kind} " in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"chaos.csv", "chaos_events.csv", "chaos.png", "chaos.svg"}
    rows = (tmp_path / "chaos.csv").read_text().splitlines()
    assert sum(int(row.split(",")[1]) for row in rows[1:]) == 600


@pytest.mark.parametrize("workers", [2, 4])
def test_schedule_leaves_a_worker_alone(workers):
    events = schedule.make(7, 10, 610, workers, 3)
    assert events == schedule.make(7, 10, 610, workers, 3) != schedule.make(8, 10, 610, workers, 3)
    kinds = {event.kind for event in events}
    assert kinds == {*schedule.OF_PROCESSES, *schedule.OF_PROXIES, schedule.BLACKOUT}
    assert all(event.at >= 10 and event.at + event.lasts <= 610 for event in events)
    for event in events:
        during = {one.worker for one in events if one.at <= event.at < one.at + one.lasts}
        assert (len(during) < workers) if event.worker >= 0 else during == {-1}


def attempt(status, ms, **parameters):
    return Attempt(0, status, 100.0, 100 + ms / 1e3, 1, 1, {}, parameters, "said")


def stopped(worker, began, ended, skipped=False):
    return Incident(Event(began, worker, schedule.STOP, ended - began), began, ended, skipped)


ALL_DOWN = [stopped(0, 4, 6), stopped(1, 3, 5.5)]


@pytest.mark.parametrize(
    ("given", "fault", "incidents", "what"),
    [
        (attempt(200, 100), None, [], verdicts.ANSWERED),
        (attempt(200, 549, degraded=True), None, [], verdicts.DEGRADED),
        (attempt(200, 551), None, [], verdicts.LATE),
        (attempt(503, 551), None, ALL_DOWN, verdicts.LATE),
        (attempt(200, 100), "its output is another", [], verdicts.WRONG),
        (attempt(503, 100), None, ALL_DOWN, verdicts.REFUSED),
        (attempt(504, 100), None, [stopped(-1, 4, 6)], verdicts.REFUSED),
        (attempt(503, 100), None, ALL_DOWN[:1], verdicts.FAILED),
        (attempt(503, 100), None, [ALL_DOWN[0], stopped(1, 3, 3, skipped=True)], verdicts.FAILED),
        (attempt(503, 100), None, [], verdicts.FAILED),
        (attempt(500, 100), None, ALL_DOWN, verdicts.FAILED),
        (attempt(0, 100), None, ALL_DOWN, verdicts.LOST),
    ],
)
def test_verdicts(given, fault, incidents, what):
    verdict = verdicts.judge(given, fault, 95.0, 500.0, incidents, 2)
    assert verdict.what == what and verdict.at == 5.0
    assert (verdict.what in verdicts.GOOD) == (not verdict.why)


def test_servable_needs_one_worker_that_was_well_all_the_time():
    assert servable([stopped(0, 1, 2), stopped(1, 3, 4)], 2, 1.5, 2.5)
    assert not servable([stopped(0, 1, 2), stopped(1, 2.2, 4)], 2, 1.5, 2.5)
    assert not servable([stopped(-1, 1, 2)], 4, 2, 3)


def test_resources_that_grow():
    def samples(memory, descriptors):
        return [ResourceSample(at, memory(at), descriptors(at), 5) for at in range(1, 101)]

    flat = resources.compare(samples(lambda at: 50 << 20, lambda at: 20), 10, 95)
    assert flat.faults == () and flat.memory == (50 << 20, 50 << 20) and flat.threads == (5, 5)
    grown = resources.compare(samples(lambda at: at << 18, lambda at: at), 10, 95)
    assert [fault.split("'s ")[1].split(" ")[0] for fault in grown.faults] == ["memory", "descriptors"]


@pytest.fixture(scope="module")
def oracle(bundle):
    with np.load(bundle / "data.npz") as arrays:
        images = arrays["x_test"][:2]
    return Oracle(manifest.load(bundle), "float32", runtime.choose("auto"), images), images


def parts_by_numpy(bundle, images):
    """The logits of channels 0 to 4 and 4 to 8 by NumPy alone, (2, images, 4); see make_bundle.py."""
    with np.load(bundle / "weights.npz") as arrays:
        kernel, dense = arrays["kernel"], arrays["dense"]
    padded = np.pad(images / 255.0, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # type: ignore[call-overload]
    features = np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, kernel), 0).mean(axis=(1, 2))
    return features[:, :4] @ dense[:4], features[:, 4:] @ dense[4:]


def test_oracle_is_right_of_whole_and_of_missing_slices(bundle, oracle):
    judge, images = oracle
    first, second = parts_by_numpy(bundle, images)
    claim = {
        "model_id": manifest.load(bundle).model_id,
        "switch": "0.5+0.5",
        "devices": "a,b",
        "missing": "",
        "degraded": False,
    }
    partly = claim | {"devices": ",b", "missing": "0", "degraded": True}
    for said, wanted in ((claim, first + second), (partly, second)):
        # Within rounding of NumPy, so the oracle calls it another output, and says by how little.
        fault = judge.fault(1, {"logits": wanted[1].astype(np.float32)}, said)
        assert fault is None or float(fault.split(" ")[3]) < 1e-4
    loaded, chosen = manifest.load(bundle), runtime.choose("auto")
    files = [part.files["float32"] for part in loaded.find_switch("0.5+0.5").slices]
    true = [SliceInterpreter(loaded, file, chosen, 1)(images[1]).astype(np.float64) for file in files]
    logits = {"logits": (true[0] + true[1]).astype(np.float32)}
    assert judge.fault(1, logits, claim) is None
    assert judge.fault(1, {"logits": true[1].astype(np.float32)}, partly) is None
    assert judge.fault(1, {"logits": true[1].astype(np.float32)}, partly | {"degraded": False, "early": True}) is None
    for wrong, begins in (
        (claim | {"model_id": "x"}, "its model_id is 'x'"),
        (claim | {"switch": "4x0.25"}, "switch '4x0.25' is not in bundle"),
        (claim | {"switch": "0.75+0.25"}, "its output is "),
        (claim | {"devices": "a"}, "its devices are 'a'"),
        (claim | {"devices": ",b"}, "its devices are ',b'"),
        (claim | {"devices": ",", "missing": "0,1", "degraded": True}, "it is of no slice"),
        (claim | {"degraded": True}, "degraded is True"),
        (partly, "its output is "),
        (partly | {"degraded": False}, "degraded is False"),
    ):
        assert str(judge.fault(1, logits, wrong)).startswith(begins)
    assert "its output is " in str(judge.fault(0, logits, claim))


ANSWER = json.dumps({"parameters": {"model_id": "0123456789abcdef" * 4}}).encode()


@pytest.fixture(scope="module")
def proxied():
    """A server of one answer, and the proxy before it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(ANSWER)))
            self.send_header("X-Kept", self.headers["X-Sent"])
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with Proxies([f"http://127.0.0.1:{server.server_port}"]) as before:
        yield before
    server.shutdown()
    thread.join()
    server.server_close()


def ask(before, mode, delay_s=0.0):
    before.set(0, mode, delay_s)
    connection = http.client.HTTPConnection(before.urls[0].removeprefix("http://"), timeout=30)
    try:
        connection.request("POST", "/v2/models/x/infer", b"{}", {"X-Sent": "yes"})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_proxies_pass_on_and_spoil(proxied):
    # The mode is set by another process, so the first answers may still be of the mode before.
    for mode, fits in (
        (proxies.PASS, lambda status, headers, body: (status, body, headers["X-Kept"]) == (200, ANSWER, "yes")),
        (schedule.SLOW, lambda status, headers, body: (status, body) == (200, ANSWER)),
        (schedule.ERROR, lambda status, headers, body: status == 500),
        (schedule.NONSENSE, lambda status, headers, body: status == 200 and body == bytes(range(256))),
        (
            schedule.FOREIGN,
            lambda status, headers, body: json.loads(body)["parameters"]["model_id"] == "fedcba9876543210" * 4,
        ),
    ):
        assert any(fits(*ask(proxied, mode, 0.05)) for _ in range(20)), mode
    for mode, error in (
        (schedule.TRUNCATED, http.client.IncompleteRead),
        (schedule.RESET, (http.client.RemoteDisconnected, ConnectionResetError)),
    ):
        with pytest.raises(error):
            for _ in range(20):
                ask(proxied, mode)


def test_proxy_of_a_dead_worker_closes_connections():
    with Proxies(["http://127.0.0.1:1"]) as before, pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask(before, proxies.PASS)
