"""The figures of a cluster: phases that add up, placement on cores, counted outcomes, the program."""

import asyncio
import csv
import http.server
import itertools
import json
import threading

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.bench import measure
from fusion.bench.load import Attempt, Target, ask_all
from fusion.bench.measure import Alone
from fusion.bench.phases import PHASES, median_phases, phases, slowest_invoke_ms
from fusion.bundle import manifest
from fusion.local.cores import place
from fusion.runtime import choosing as runtime
from fusion.security.credentials import Credentials


def attempt(status=200, ms=100.0, **parameters):
    """Sent at 10 s, `ms` in all."""
    return Attempt(0, status, 10.0, 10 + ms / 1e3, 7, 9, {}, parameters, "")


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
    answered = attempt(timeline=json.dumps(LINE))
    by_phase = phases(answered)
    # By hand, of the device that answered last: 60 - 6 - 10 - 40 on the wire; 100 - 60 - 1 for the way there and back.
    expected = dict(zip(PHASES, (3, 3, 4, 10, 40, 1, 39), strict=True))
    assert by_phase == pytest.approx(expected)
    assert sum(by_phase.values()) == pytest.approx(answered.ms) == pytest.approx(100)
    assert slowest_invoke_ms(answered) == 44


def test_the_middle_is_near_the_median():
    attempts = [attempt(ms=ms, timeline=json.dumps(LINE)) for ms in (90, 1000, 100, 110, 5000)]
    assert sum(median_phases(attempts).values()) == pytest.approx(110)
    assert sum(median_phases(attempts[:1]).values()) == pytest.approx(90)


@pytest.mark.parametrize("line", [None, "[]", "{}", json.dumps(LINE | {"devices": []}), "nonsense"])
def test_a_timeline_that_is_none(line):
    answered = attempt() if line is None else attempt(timeline=line)
    for read in (phases, slowest_invoke_ms):
        with pytest.raises(UserError, match="no timeline that is understood"):
            read(answered)


@pytest.mark.parametrize(
    ("cores", "workers", "placed", "words"),
    [
        ((0, 1, 2, 3), 1, ((0,), (1,), (2, 3)), "cores of their own"),
        ((3, 1, 0, 2), 2, ((0, 1), (2,), (3,)), "cores of their own"),
        ((0, 1, 2, 3), 3, ((0, 1, 2), (3,), (3,)), "share one core"),
        ((0, 1, 2, 3), 4, ((0, 1, 2, 3),) * 3, "fewer cores"),
        ((5,), 2, ((5,),) * 3, "fewer cores"),
    ],
)
def test_placement(cores, workers, placed, words):
    placement = place(cores, workers)
    assert (placement.workers, placement.coordinator, placement.client) == placed
    assert words in placement.words


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (attempt(), "whole"),
        (attempt(ms=149), "whole"),
        (attempt(ms=151), "late"),
        (attempt(degraded=True), "degraded"),
        (attempt(early=True, degraded=False), "early"),
        (attempt(503), "refused"),
        (attempt(504, ms=500), "timed out"),
        (attempt(0), "lost"),
        (attempt(500), "failed 500"),
    ],
)
def test_outcomes(given, what):
    assert measure.outcome(given, 100) == what
    assert measure.outcome(attempt(ms=1e6), None) == "whole"


def test_alone_is_as_fast_as_its_slowest_slice(bundle, data):
    loaded = manifest.load(bundle)
    alone = Alone(loaded, loaded.find_switch("0.5+0.5"), "float32", runtime.choose("auto"), [])
    assert alone.invoke(data[0][3]) > 0
    assert alone.rate(data[0], 0.5) > 0


class Stub:
    """A coordinator that gives its first answer once, then the other, every second time with 503."""

    def __init__(self, metadata, first, answer):
        numbers = itertools.count()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.reply(200, metadata)

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path.endswith("index"):
                    self.reply(200, b'[{"name": "tiny"}]')
                    return
                number = next(numbers)
                self.reply(503 if number % 2 else 200, answer if number else first)

            def reply(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        class StubServer(http.server.ThreadingHTTPServer):
            # Connections of all clients may come at once.
            request_queue_size = 128

        self.server = StubServer(("127.0.0.1", 0), Handler)
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
        target = Target(stub.url, Credentials())
        assert target.deadline_ms is None
        side = measure.Side("stub", "int8", target)
        record = asyncio.run(measure.overload(side, data[0], 100, 1))
        assert record["outcomes"] == "refused 50, whole 50"
        attempts = asyncio.run(ask(target, data[0], 50, 0.2))
        assert sorted(attempt.image for attempt in attempts) == list(range(10))
        answered = next(attempt for attempt in attempts if attempt.status == 200)
        np.testing.assert_array_equal(answered.outputs["logits"], json.loads(answer)["outputs"][0]["data"])
    finally:
        stub.stop()
    # Nobody listens any more.
    attempts = asyncio.run(ask(target, data[0], 50, 0.1))
    assert [attempt.status for attempt in attempts] == [0] * 5 and all(attempt.error for attempt in attempts)


async def ask(target, images, rate, seconds):
    async with target.asking(images, {}) as send:
        return await ask_all(send, 2, seconds, rate)


def test_program(bundle, runner, tmp_path):
    options = ("--switches=0.5+0.5,1.0", "--runs=12", "--clients=1,3", "--seconds=0.3")
    done = runner("bench", f"--bundle={bundle}", *options, f"--json={tmp_path}/b.json", f"--csv={tmp_path}/b.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny: ") and "switch 1.0, 1 client\n" in done.stderr
    for text in ("one image at a time", "where the time of the median goes", "several clients", "more asked than"):
        assert text in done.stdout
    # So small a network gains nothing by a cluster.
    assert "slower than the whole network in one process: 0.5+0.5, 1.0." in done.stdout
    figures = json.loads((tmp_path / "b.json").read_text())
    kinds = ["latency", "throughput", "throughput", "overload"]
    assert [(row["precision"], row["switch"], row["measured"]) for row in figures["rows"]] == [
        ("int8", switch, kind) for switch in ("0.5+0.5", "1.0") for kind in kinds
    ]
    for row in figures["rows"]:
        if row["measured"] == "latency":
            assert row["p99_ms"] >= row["p50_ms"] > row["invoke_p50_ms"] > 0 and row["full_p50_ms"] > 0
            assert row["sent_bytes"] > 144
            assert all(row[f"{phase}_ms"] >= 0 for phase in PHASES)
        elif row["measured"] == "throughput":
            # On a busy machine some may be late.
            assert "whole " in row["outcomes"]
    assert [row["clients"] for row in figures["rows"][1:3]] == [1, 3]
    with (tmp_path / "b.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["measured"] for row in rows] == kinds * 2
    assert [float(row["images_per_s"] or 0) for row in rows] == pytest.approx(
        [row.get("images_per_s", 0) for row in figures["rows"]], abs=1e-3
    )


def test_program_with_a_url(coordinator, runner, tmp_path):
    options = ("--runs=5", "--clients=2", "--seconds=0.3", "--overload=0", f"--json={tmp_path}/b.json")
    done = runner("bench", f"--url={coordinator.url}", *options)
    assert done.returncode == 0, done.stderr
    latency, throughput = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert (latency["switch"], latency["precision"], latency["full_p50_ms"]) == ("0.5+0.5", "int8", None)
    assert throughput["measured"] == "throughput" and throughput["images_per_s"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
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
def test_one_sentence_on_bad_input(bundle, runner, options, sentence):
    done = runner("bench", *(option.format(bundle) for option in options))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert sentence in line
