"""The plan of real processes: told by a coordinator, measured without one, and what they write and show beside it."""

import http.server
import json
import signal
import threading
import urllib.request

import pytest

LIVE: dict[str, dict[tuple[int, ...], float]] = {
    "1.0": {(0,): 0.9},
    "0.5+0.5": {(0,): 0.5, (1,): 0.4, (0, 1): 0.8},
    "0.75+0.25": {(0,): 0.6, (1,): 0.3, (0, 1): 0.7},
}


def verified(manifest):
    """As if the bundle had been verified."""
    for entry in manifest["switches"]:
        found = LIVE[entry["switch"]]
        whole = max(found.values())
        live = [
            {"devices": list(key), "float": value, "exported": {"int8": value, "float32": value}}
            for key, value in found.items()
        ]
        entry["accuracy"] = {
            "part": "test",
            "images": 100,
            "metric": "accuracy",
            "float": whole,
            "exported": {"int8": whole, "float32": whole},
            "live_subsets": live,
        }


@pytest.fixture
def verified_bundle(altered):
    return altered(verified)


def test_a_coordinator_tells_its_plan(verified_bundle, start, worker, cluster_file, runner, curl, tmp_path):
    """The goal is an accuracy that no switch has, so it is the most accurate one, and that is said."""
    log = tmp_path / "log.jsonl"
    options = (f"--bundle={verified_bundle}", f"--cluster={cluster_file(worker.url)}", "--min_accuracy=99")
    coordinator = start("coordinator", *options, f"--log={log}")
    out = tmp_path / "plan.json"
    told = runner("plan", f"--url={coordinator.url}", "--explain", f"--json={out}")
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    chosen, *others = [line.split() for line in lines[2:5]]
    assert (chosen[0], chosen[1], chosen[3:6]) == ("1.0", "pi-0", ["90.00", "%", "chosen:"])
    assert lines[2].endswith("chosen: the most accurate, though none reaches 99.00 %")
    assert {one[0] for one in others} == {"0.5+0.5", "0.75+0.25"}
    assert "its accuracy is 80.00 %, at least 99.00 % is wanted" in told.stdout and "export.verify" not in told.stdout
    assert f"pi-0    {worker.url}  up" in told.stdout
    status = json.loads(out.read_text())
    assert (status["plan"]["switch"], status["plan"]["accuracy"], status["early_answer"]) == ("1.0", 0.9, "off")

    image = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
    for body in ({"inputs": [image]}, {"inputs": [image], "parameters": {"timeout": 1}}):
        curl(f"{coordinator.url}/v2/models/tiny/infer", body=json.dumps(body).encode())
    said = ", accuracy 90.00 %, the most accurate, though none reaches 99.00 %\n"
    assert said in coordinator.stop(signal.SIGTERM)[2]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    by_kind = {one["event"]: one for one in events}
    assert by_kind["device"]["state"] == "up" and by_kind["plan"]["switch"] == "1.0"
    assert (by_kind["answer"]["switch"], by_kind["answer"]["expected_accuracy"]) == ("1.0", 0.9)
    assert by_kind["refusal"]["status"] == 504


def test_a_plan_without_a_coordinator(verified_bundle, worker, cluster_file, runner):
    options = (f"--bundle={verified_bundle}", f"--cluster={cluster_file(worker.url)}")
    told = runner("plan", *options, "--switch=0.5+0.5")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[2].split()[:3] == ["0.5+0.5", "pi-0,", "pi-0"]
    assert len(told.stdout.splitlines()) == 3 and told.stdout.endswith("chosen: the only switch\n")
    told = runner("plan", *options, "--min_accuracy=75", "--deadline_ms=10000")
    assert told.stdout.splitlines()[2].split()[0] in ("1.0", "0.5+0.5")
    assert told.stdout.splitlines()[2].endswith("chosen: the fastest that reaches 75.00 %")
    told = runner("plan", *options, "--min_accuracy=75", "--accuracy_loss=0")
    said = "--min_accuracy=75 and --accuracy_loss=0 are two rules; legal: one of them."
    assert (told.returncode, told.stdout) == (2, "") and said in told.stderr


@pytest.mark.parametrize(
    ("options", "rule", "loss", "lost"),
    [
        ([], "the fastest within 1 point of the most accurate", 0.01, ", at most 1 point may be lost"),
        (["--accuracy_loss=9.5"], "the fastest within 9.5 points of the most accurate", 0.095, ", at most 9.5 points"),
        (["--accuracy_loss=0"], "the most accurate", 0.0, ""),
    ],
)
def test_a_plan_says_which_rule_chose(
    verified_bundle, worker, cluster_file, runner, tmp_path, options, rule, loss, lost
):
    out = tmp_path / "plan.json"
    options = [*options, f"--bundle={verified_bundle}", f"--cluster={cluster_file(worker.url)}", f"--json={out}"]
    told = runner("plan", *options, "--explain", "--deadline_ms=10000")
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[2].startswith("1.0 ") and told.stdout.splitlines()[2].endswith(f"chosen: {rule}")
    assert f"is 20 points less accurate than 1.0{lost}" in told.stdout
    status = json.loads(out.read_text())
    assert (status["plan"]["rule"], status["accuracy_loss"]) == (rule, loss)


class Retold(http.server.ThreadingHTTPServer):
    """Passes on what a coordinator answers; its status as `change` makes it."""

    def __init__(self, url, change):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                length = int(self.headers.get("Content-Length", 0))
                asked = urllib.request.Request(url + self.path, self.rfile.read(length) or None, method=self.command)
                with urllib.request.urlopen(asked) as answer:
                    body = answer.read()
                if self.path == "/status":
                    status = json.loads(body)
                    change(status)
                    body = json.dumps(status).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.serve_forever)

    def __enter__(self):
        self._thread.start()
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *error):
        self.shutdown()
        self._thread.join()
        self.server_close()


def test_what_runs_meanwhile(coordinator, runner):
    meanwhile = {"switch": "0.5+0.5", "assignment": ["pi-2", "pi-3"], "latency_ms": 31.5, "accuracy": 0.5}
    with Retold(coordinator.url, lambda status: status.update(meanwhile=[meanwhile])) as url:
        told = runner("plan", f"--url={url}", "--explain").stdout.splitlines()
        assert len(runner("plan", f"--url={url}").stdout.splitlines()) == 3
    assert told[3].split()[:6] == ["0.5+0.5", "pi-2,", "pi-3", "31.5", "50.00", "%"]
    assert told[3].endswith("  for requests that come meanwhile")


def test_a_plan_without_a_slice(coordinator, runner):
    lacks = "though no living device serves slice 1"

    def without(status):
        status["plan"].update(switch="0.5+0.5", assignment=["pi-0", ""], rule="the only switch", lacks=lacks)

    with Retold(coordinator.url, without) as url:
        told = runner("plan", f"--url={url}", "--explain").stdout
    # Only of whole switches it is known that none was measured.
    assert "no accuracy is known" not in told
    line = told.splitlines()[2]
    assert line.startswith("0.5+0.5  pi-0, -  ") and line.endswith(f"  chosen: the only switch, {lacks}")


def test_an_older_coordinator_says_less(coordinator, runner):
    def older(status):
        del status["meanwhile"], status["accuracy_loss"], status["plan"]["rule"]

    with Retold(coordinator.url, older) as url:
        told = runner("plan", f"--url={url}", "--explain")
    assert told.returncode == 0 and told.stdout.splitlines()[2].endswith("  chosen")


def test_a_bundle_that_was_not_verified(coordinator, runner):
    hint = "no accuracy is known, so more multiply-adds count as better; export.verify puts accuracies in the bundle\n"
    assert hint in runner("plan", f"--url={coordinator.url}", "--explain").stdout
    assert hint not in runner("plan", f"--url={coordinator.url}").stdout


def test_whom_a_plan_comes_from(bundle, cluster_file, runner, free_port):
    told = runner("plan", f"--url=http://127.0.0.1:{free_port}")
    said = f"error: server http://127.0.0.1:{free_port}, while connecting: connection refused.\n"
    assert (told.returncode, told.stdout, told.stderr) == (2, "", said)
    told = runner("plan", "--url=http://127.0.0.1:1", f"--cluster={cluster_file('http://127.0.0.1:1')}")
    assert told.returncode == 2
    assert told.stderr == (
        "error: --url is of a running coordinator, --cluster of a plan without one; legal: one of the two.\n"
    )


def test_nothing_to_plan(bundle, cluster_file, runner, free_port):
    cluster = cluster_file(f"http://127.0.0.1:{free_port}")
    told = runner("plan", f"--bundle={bundle}", f"--cluster={cluster}", "--explain")
    assert (told.returncode, told.stdout.splitlines()[0]) == (1, "no switch can be run")
    assert "no living device serves slice 0" in told.stdout and "connection refused" in told.stdout
    told = runner("plan", f"--bundle={bundle}", f"--cluster={cluster}")
    assert (told.returncode, told.stdout.splitlines()[0]) == (1, "no switch can be run")
    assert "connection refused" in told.stdout and "no living device" not in told.stdout
    told = runner("plan", f"--bundle={bundle}")
    assert (told.returncode, "--cluster is missing; legal: the cluster's path, or --url." in told.stderr) == (2, True)


def test_early_answers_by_the_bound(verified_bundle, start, worker, cluster_file, curl):
    """Of a tiny network the bound seldom holds; what it answers is then not degraded, and else nothing is missing."""
    options = (f"--bundle={verified_bundle}", f"--cluster={cluster_file(worker.url)}", "--switch=0.75+0.25")
    coordinator = start("coordinator", *options, "--early_answer=bound")
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [200] * 144}
    status, _, body = curl(f"{coordinator.url}/v2/models/tiny/infer", body=json.dumps({"inputs": [image]}).encode())
    said = json.loads(body)["parameters"]
    assert status == 200 and said["degraded"] is False and said["early"] is bool(said["missing"])


def test_confidence_wants_a_calibration(verified_bundle, worker, cluster_file, runner):
    options = (f"--bundle={verified_bundle}", f"--cluster={cluster_file(worker.url)}")
    done = runner("coordinator", *options, "--early_answer=confidence")
    assert done.returncode == 2 and "has no calibrated early answers for int8" in done.stderr
