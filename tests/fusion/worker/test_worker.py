"""A worker's own sides: models loaded on demand, its queue, the requester's timeout."""

import concurrent.futures
import json
import time

import numpy as np
import pytest

from fusion.bundle import manifest
from fusion.runtime import memory

SLICES = [
    ("tiny-1.0-0", 0, 8),
    ("tiny-0.5_0.5-0", 0, 4),
    ("tiny-0.5_0.5-1", 4, 8),
    ("tiny-0.75_0.25-0", 0, 6),
    ("tiny-0.75_0.25-1", 6, 8),
]

WHITE = np.full((1, 8, 6, 3), 255, np.uint8)
WAIT_S = 60


def body(images, **parameters):
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(images.shape)}
    sizes = {"parameters": {"binary_data_size": images.size}}
    head = json.dumps({"inputs": [tensor | sizes], "parameters": parameters}).encode()
    return head + images.tobytes(), f"Inference-Header-Content-Length: {len(head)}"


@pytest.fixture
def infer(curl):
    """infer(program, model, images, **parameters) -> (status, headers, answer)."""

    def ask(program, model, images, **parameters):
        sent, header = body(images, **parameters)
        status, headers, answer = curl(f"{program.url}/v2/models/{model}/infer", "-H", header, body=sent)
        return status, headers, json.loads(answer)

    return ask


def metric(curl, program, line):
    text = curl(f"{program.url}/metrics")[2].decode()
    return float(text.split("\n" + line + " ")[1].split()[0])


def parameters(curl, program, model):
    return json.loads(curl(f"{program.url}/v2/models/{model}")[2])["parameters"]


def limit_mb(bundle, *models):
    """A memory limit that these int8 models just fit in."""
    files = [slice_.files["int8"] for entry in manifest.load(bundle).switches for slice_ in entry.slices]
    named = dict(zip([name for name, *_ in SLICES], files, strict=True))
    return sum(memory.needed(named[name].bytes, named[name].arena_bytes) for name in models) / 1e6


def test_loads_each_slice_on_demand(bundle, start, infer, curl, data, reference):
    program = start("worker", f"--bundle={bundle}", "--threads=1", "--precision=float32")
    index = json.loads(curl(f"{program.url}/v2/repository/index")[2])
    assert {entry["name"]: entry["state"] for entry in index} == {name: "READY" for name, *_ in SLICES}
    for name, begin, end in SLICES:
        assert parameters(curl, program, name)["loaded"] is False
        status, _, answer = infer(program, name, data[0][:2])
        assert status == 200 and answer["parameters"]["load_ms"] > 0
        found = np.reshape(answer["outputs"][0]["data"], (2, 4))
        np.testing.assert_allclose(found, reference(begin, end)[:2], atol=1e-4)
        assert parameters(curl, program, name)["loaded"] is True
        assert "load_ms" not in infer(program, name, data[0][:1])[2]["parameters"]
    assert metric(curl, program, "fusion_evictions_total") == 0
    assert metric(curl, program, f'fusion_loads_total{{model="{SLICES[2][0]}"}}') == 1
    for phase in ("decode", "queue"):
        assert metric(curl, program, f"fusion_{phase}_seconds_count") == 10
    assert metric(curl, program, "fusion_received_bytes_total") > 15 * 144
    assert metric(curl, program, "fusion_sent_bytes_total") > 1000
    assert metric(curl, program, "fusion_queue_requests") == 0


def test_drops_the_least_recently_used(bundle, start, infer, curl, data):
    first, second, third = (name for name, *_ in SLICES[:3])
    limit = max(limit_mb(bundle, *pair) for pair in ((first, second), (first, third), (second, third)))
    program = start("worker", f"--bundle={bundle}", "--threads=1", f"--memory_limit_mb={limit}")
    answers: dict = {}

    def use(name):
        status, _, answer = infer(program, name, data[0][:1])
        assert status == 200
        assert answers.setdefault(name, answer["outputs"]) == answer["outputs"]
        return "load_ms" in answer["parameters"]

    assert [use(name) for name in (first, second, first, third, first, second, third)] == [
        *(True, True, False),
        # The second goes, as the first was used after it.
        *(True, False, True, True),
    ]
    assert metric(curl, program, "fusion_evictions_total") == 3
    assert metric(curl, program, "fusion_loaded_bytes") <= limit * 1e6


def test_a_model_beyond_the_limit_is_refused(bundle, start, infer, curl, data):
    program = start("worker", f"--bundle={bundle}", "--memory_limit_mb=1")
    name = SLICES[0][0]
    status, headers, answer = infer(program, name, data[0][:1])
    assert (status, headers["retry-after"], headers["model-unable"]) == (503, "30", "true")
    said = "slice file 'slices/1.0/0.int8.tflite' takes about 4 MB of memory; legal: at most 1 MB, the worker's "
    assert answer["error"] == said + "--memory_limit_mb."
    status, _, ready = curl(f"{program.url}/v2/models/{name}/ready")
    assert status == 503 and json.loads(ready) == answer
    assert metric(curl, program, 'fusion_refused_total{status="503"}') == 1
    # It has no other model to be ready for.
    assert curl(f"{program.url}/v2/health/ready")[0] == 503


def test_a_file_that_went_bad_is_a_503_of_its_model_alone(altered, start, infer, curl, data):
    folder = altered(lambda data: None)
    program = start("worker", f"--bundle={folder}", "--threads=1")
    path = folder / "slices" / "1.0" / "0.int8.tflite"
    stored = path.read_bytes()
    path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
    for _ in range(2):
        status, headers, answer = infer(program, "tiny-1.0-0", data[0][:1])
        assert (status, headers["retry-after"]) == (503, "30")
        assert "has SHA-256" in answer["error"] and "copy the bundle again" in answer["error"]
    assert infer(program, "tiny-0.5_0.5-0", data[0][:1])[0] == 200
    states = {entry["name"]: entry["state"] for entry in json.loads(curl(f"{program.url}/v2/repository/index")[2])}
    assert states.pop("tiny-1.0-0") == "UNAVAILABLE" and set(states.values()) == {"READY"}
    assert curl(f"{program.url}/v2/health/ready")[0] == 200
    assert "Traceback" not in program.stop()[2]


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_a_missing_file_is_found_at_the_start(altered, runner, change):
    folder = altered(lambda data: None)
    change(folder / "slices" / "0.75+0.25" / "1.int8.tflite")
    done = runner("worker", f"--bundle={folder}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "1.int8.tflite' " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("timeout", [0, -1, 1.5, True, "1"])
def test_refuses_a_timeout(worker, infer, data, timeout):
    status, _, answer = infer(worker, SLICES[0][0], data[0][:1], timeout=timeout)
    assert (status, answer["error"]) == (
        400,
        f"parameter 'timeout' is {json.dumps(timeout)}; legal: a number of microseconds, 1 or more.",
    )


class Held:
    """A worker with a queue of two, whose model stops at white images until `release`."""

    def __init__(self, program, folder):
        self.program, self._taken, self._go = program, folder / "taken", folder / "go"

    @property
    def taken(self):
        """How many white images the model has come to."""
        return len(self._taken.read_text()) if self._taken.exists() else 0

    def release(self):
        self._go.touch()

    def hold(self):
        for file in (self._taken, self._go):
            file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def one_held(bundle, start_for_module, tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    options = (f"--bundle={bundle}", f"--held={folder}", "--max_queue=2", "--threads=1")
    return Held(start_for_module("worker", *options, package="tests.fusion.worker.held"), folder)


@pytest.fixture
def held(one_held):
    """A `Held` that has taken nothing yet. It is shared."""
    one_held.hold()
    yield one_held
    one_held.release()


@pytest.fixture
def begin(held, infer):
    """begin(pool) -> the future answer of a request that the model has come to."""

    def ask(pool):
        future = pool.submit(infer, held.program, SLICES[0][0], WHITE)
        until(lambda: held.taken)
        return future

    return ask


def until(check):
    deadline = time.monotonic() + WAIT_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_requesters_timeout(held, begin, infer, curl, data):
    program, name = held.program, SLICES[0][0]
    assert infer(program, name, data[0][:1], timeout=10**400)[0] == 200
    invoked = f'fusion_invoke_seconds_count{{model="{name}"}}'
    before = metric(curl, program, invoked)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = begin(pool)
        status, _, answer = infer(program, name, data[0][:1], timeout=20_000)
        assert (status, answer["error"]) == (504, "the request was not answered within its timeout.")
        # It is given up where it waits, and not when its turn comes.
        assert metric(curl, program, "fusion_queue_requests") == 0
        assert not long.done()
        held.release()
        assert long.result()[0] == 200
    assert infer(program, name, data[0][:1])[0] == 200
    assert metric(curl, program, invoked) == before + 2


def test_no_time_is_spent_on_what_nobody_waits_for(held, infer, data):
    """One that runs is ended before its next image."""
    program, name = held.program, SLICES[0][0]
    assert infer(program, name, np.repeat(WHITE, 2, axis=0), timeout=500_000)[0] == 504
    held.release()
    assert infer(program, name, data[0][:1])[0] == 200
    # None where a busy machine has not even come to the first.
    assert held.taken <= 1


def test_a_full_queue_refuses_at_once(held, begin, infer, curl, data):
    program, name = held.program, SLICES[0][0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = begin(pool)
        rest = [pool.submit(infer, program, name, data[0][:1]) for _ in range(6)]
        until(lambda: sum(answer.done() for answer in rest) >= 4)
        # The loop is free while it invokes.
        assert metric(curl, program, "fusion_queue_requests") == 2
        assert curl(f"{program.url}/v2/health/ready")[0] == 200
        assert not long.done()
        refused, waiting = ([answer for answer in rest if answer.done() == is_done] for is_done in (True, False))
        assert len(refused) == 4
        for answer in refused:
            status, headers, said = answer.result()
            assert (status, headers["retry-after"]) == (503, "1") and "model-unable" not in headers
            assert said["error"] == "2 requests wait for this worker, which is all it keeps; try again later."
        held.release()
        # A long one before them delays the others, and no more than that: they have their turn.
        assert [answer.result()[0] for answer in [long, *waiting]] == [200] * 3


def test_a_client_that_leaves_frees_its_place(held, begin, curl, data):
    program = held.program
    sent, header = body(data[0][:1])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        long = begin(pool)
        for _ in range(3):
            with pytest.raises(AssertionError, match="28"):
                url = f"{program.url}/v2/models/{SLICES[0][0]}/infer"
                curl(url, "--max-time", "0.1", "-H", header, body=sent)
        until(lambda: not metric(curl, program, "fusion_queue_requests"))
        assert not long.done()
        held.release()
        assert long.result()[0] == 200
