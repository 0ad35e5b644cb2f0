"""The figures of a cluster: phases that add up, placement on cores, counted outcomes, the program."""

import csv
import http.server
import json
import threading

import numpy as np
import pytest

from fusion.bench import cores as bench_cores
from fusion.bench import measure as bench_measure
from fusion.bench import phases as bench_phases
from fusion.bench import report as bench_report
from fusion.bench.load import Reply, Server, open_loop
from fusion.bench.reference import Alone
from fusion.bundle import manifest
from fusion.runtime import choosing as runtime
from fusion.security.credentials import Credentials


def reply(status=200, ms=100.0, **parameters):
    """Sent at 10 s, encoded in 1 ms, decoded in 2 ms, `ms` in all."""
    received = 10 + (ms - 2) / 1e3
    return Reply(0, status, 10.0, 10.0, 10.001, received, 10 + ms / 1e3, 7, 9, {}, parameters, "")


LINE = {
    "switch": "0.5+0.5",
    "decode_ms": 3.0,
    "fuse_ms": 1.0,
    "devices": [
        {"sent_ms": 4.0, "received_ms": 50.0, "queue_ms": 1.0, "invoke_ms": 44.0},
        {"sent_ms": 6.0, "received_ms": 60.0, "queue_ms": 10.0, "invoke_ms": 40.0},
        {"sent_ms": 6.0, "received_ms": None, "queue_ms": None, "invoke_ms": None},
    ],
}


def test_phases_add_up():
    one = reply(timeline=json.dumps(LINE))
    found = bench_phases.phases(one)
    # By hand, of the device that answered last: 60 - 6 - 10 - 40 on the wire; 97 - 60 - 1 for both ways of the answer.
    wanted = dict(zip(bench_phases.PHASES, (1, 3, 3, 4, 10, 40, 1, 36, 2), strict=True))
    assert found == pytest.approx(wanted)
    assert sum(found.values()) == pytest.approx(one.ms) == pytest.approx(100)
    assert bench_phases.slowest_invoke(one) == 44


def test_the_middle_is_near_the_median():
    replies = [reply(ms=ms, timeline=json.dumps(LINE)) for ms in (90, 1000, 100, 110, 5000)]
    assert sum(bench_phases.of_the_middle(replies).values()) == pytest.approx(110)
    assert sum(bench_phases.of_the_middle(replies[:1]).values()) == pytest.approx(90)


@pytest.mark.parametrize("line", [None, "[]", "{}", json.dumps(LINE | {"devices": []}), "nonsense"])
def test_a_timeline_that_is_none(line):
    one = reply() if line is None else reply(timeline=line)
    for read in (bench_phases.phases, bench_phases.slowest_invoke):
        with pytest.raises(Exception, match="no timeline that is understood"):
            read(one)


@pytest.mark.parametrize(
    ("cores", "workers", "placed", "said"),
    [
        ((0, 1, 2, 3), 1, ((0,), (1,), (2, 3)), "cores of their own"),
        ((3, 1, 0, 2), 2, ((0, 1), (2,), (3,)), "cores of their own"),
        ((0, 1, 2, 3), 3, ((0, 1, 2), (3,), (3,)), "share one core"),
        ((0, 1, 2, 3), 4, ((0, 1, 2, 3),) * 3, "fewer cores"),
        ((5,), 2, ((5,),) * 3, "fewer cores"),
    ],
)
def test_placement(cores, workers, placed, said):
    found = bench_cores.place(cores, workers)
    assert (found.workers, found.coordinator, found.client) == placed
    assert said in found.said


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (reply(), "whole"),
        (reply(ms=149), "whole"),
        (reply(ms=151), "late"),
        (reply(degraded=True), "degraded"),
        (reply(early=True, degraded=False), "early"),
        (reply(503), "refused"),
        (reply(504, ms=500), "timed out"),
        (reply(0), "lost"),
        (reply(500), "failed 500"),
    ],
)
def test_outcomes(given, what):
    assert bench_measure.outcome(given, 100) == what
    assert bench_measure.outcome(reply(ms=1e6), None) == "whole"


def test_alone_gives_what_numpy_gives(bundle, data, reference):
    loaded = manifest.load(bundle)
    images = data[0]
    with Alone(loaded, loaded.find_switch("0.5+0.5"), "float32", runtime.choose("auto"), []) as alone:
        found = alone.outputs(images[3])
        assert 0 < alone.invoke(images[3], 1) < 10
        assert alone.rate(images, 0.05) > 1
    np.testing.assert_allclose(found, [reference(0, 4)[3], reference(4, 8)[3]], atol=1e-5)


class Stub:
    """A coordinator that gives its first answer once, then the other, every second time with 503."""

    def __init__(self, metadata, first, answer):
        self.count = 0
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(200, metadata)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.endswith("index"):
                    self.reply(200, b'[{"name": "tiny"}]')
                    return
                stub.count += 1
                self.reply(200 if stub.count % 2 else 503, first if stub.count == 1 else answer)

            def reply(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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


def test_open_loop_counts_every_request(coordinator, curl, data):
    metadata = curl(f"{coordinator.url}/v2/models/tiny")[2]
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [0] * 144}
    first, answer = (
        curl(f"{coordinator.url}/v2/models/tiny/infer", body=json.dumps({"inputs": [image]} | more).encode())[2]
        for more in ({}, {"outputs": [{"name": "logits"}]})
    )
    stub = Stub(metadata, first, answer)
    try:
        server = Server(stub.url, Credentials(), 30)
        assert server.status() == json.loads(metadata)
        side = bench_measure.Side("stub", server, None, None)
        found = bench_measure.overload(side, data[0], 100, 1, None)
        assert found.outcomes == {"whole": 50, "refused": 50}
        assert 80 < found.offered_per_s < 120 and found.images_per_s < 60
        replies: list[Reply] = []
        open_loop(server, data[0], 50, 2, 0.2, replies.append)
        assert sorted(one.image for one in replies) == list(range(10))
        assert all(one.started >= one.due for one in replies)
        one = next(one for one in replies if one.status == 200)
        np.testing.assert_array_equal(one.outputs["logits"], json.loads(answer)["outputs"][0]["data"])
    finally:
        stub.stop()
    # Nobody listens any more.
    replies = []
    open_loop(server, data[0], 50, 1, 0.1, replies.append)
    assert [one.status for one in replies] == [0] * 5 and all(one.error for one in replies)


def test_program(bundle, runner, tmp_path):
    options = ("--switches=0.5+0.5,1.0", "--precision=float32,int8", "--runs=12", "--clients=1,3", "--seconds=0.4")
    done = runner("bench", f"--bundle={bundle}", *options, f"--json={tmp_path}/b.json", f"--csv={tmp_path}/b.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: ") and "switch 1.0, 1 client\n" in done.stderr
    for text in ("one image at a time", "where the time of the median goes", "several clients", "more asked than"):
        assert text in done.stdout
    # So small a network gains nothing by a cluster.
    assert "slower than the whole network in one process: 0.5+0.5, 1.0." in done.stdout
    figures = json.loads((tmp_path / "b.json").read_text())
    assert [(row["precision"], row["switch"]) for row in figures["rows"]] == [
        ("float32", "0.5+0.5"), ("float32", "1.0"), ("int8", "0.5+0.5"), ("int8", "1.0")
    ]  # fmt: skip
    for row in figures["rows"]:
        latency = row["latency"]
        assert latency["total"]["count"] == 12 and latency["total"]["p50"] > latency["invoke"]["p50"] > 0
        assert latency["sent_bytes"] > 144 and row["full_us"]["count"] == 12
        assert [rate["clients"] for rate in row["throughput"]] == [1, 3]
        assert all(set(rate["outcomes"]) == {"whole"} for rate in row["throughput"])
    with (tmp_path / "b.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["measured"] for row in rows[:4]] == ["latency", "throughput", "throughput", "overload"]
    phases = [float(rows[0][f"{phase}_ms"]) for phase in bench_phases.PHASES]
    assert sum(phases) == pytest.approx(float(rows[0]["p50_ms"]), rel=0.5)
    assert bench_report.csv_text(figures).count("\n") == len(rows) + 1 == 17


def test_program_with_a_url(coordinator, runner, tmp_path):
    options = ("--runs=5", "--clients=2", "--seconds=0.3", "--overload=0", f"--json={tmp_path}/b.json")
    done = runner("bench", f"--url={coordinator.url}", *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert (row["switch"], row["precision"], row["full_us"], row["overload"]) == ("0.5+0.5", "int8", None, None)
    assert row["throughput"][0]["images_per_s"] > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--bundle is missing; legal: the folder of a bundle, or --url."),
        (["--bundle={}", "--clients=1,0"], "--clients has '0'; legal: numbers from 1 to 256."),
        (["--bundle={}", "--clients=x"], "--clients has 'x'"),
        (["--bundle={}", "--switches=8x0.125"], "switch '8x0.125' is not in bundle"),
        (["--bundle={}", "--precision=int4"], "precision 'int4' is not in bundle"),
        (["--url=http://127.0.0.1:1"], "while connecting: connection refused"),
        (["--url=http://127.0.0.1:1", "--switches=1.0"], "--switches is of a cluster that this program starts"),
        (["--bundle={}", "--csv={}"], "it is a folder"),
    ],
)
def test_one_sentence_on_bad_input(bundle, runner, options, said):
    done = runner("bench", *(option.format(bundle) for option in options))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
