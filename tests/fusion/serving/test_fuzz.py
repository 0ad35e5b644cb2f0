"""Malformed requests over raw sockets: each gets a 4xx, none a 5xx or silence, and the servers serve on."""

import asyncio
import collections
import gzip
import json
import random
import re
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SLICE = "tiny-0.5_0.5-0"
# Each has one request on its way, which is within every queue.
CONNECTIONS = 16
WAIT_S = 60
OPEN_S = 0.05
WORDS = [
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\0",
        b" ",
        b":",
        b"%00",
        b"%ff",
        b"/../",
        b"\xff\xfe",
        b"HTTP/9.9",
        b"A: b\r\n" * 200,
    ),
    *(
        b"-1",
        b"1e999",
        b"9" * 25,
        b"NaN",
        b"null",
        b"[]",
        b"{}",
        b'"',
        b"\\ud800",
        b'"timeout":',
        b'"binary_data_size":',
    ),
    *(b"Host: y\r\n", b"Content-Length: 3\r\n", b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"Inference-Header-Content-Length: 5\r\n", b"a" * 9000),
]


def post(path, body, *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def recorded(model, images):
    """Valid requests of every kind."""
    path = f"/v2/models/{model}/infer"
    tensor = {"name": "image", "datatype": "UINT8", "shape": [len(images), *images.shape[1:]]}
    as_json = json.dumps({"id": "7", "inputs": [tensor | {"data": images.ravel().tolist()}]}).encode()
    sizes = {"parameters": {"binary_data_size": images.size}}
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [tensor | sizes], "outputs": outputs, "parameters": {"timeline": False}}).encode()
    binary, length = head + images.tobytes(), f"Inference-Header-Content-Length: {len(head)}"
    known = {"content_type": "np"}
    extras = {"model_name": model, "model_version": "1", "parameters": known}
    extras["inputs"] = [tensor | {"parameters": known, "data": images.ravel().tolist()}]
    extras["outputs"] = [outputs[0] | {"datatype": "FP32", "shape": [-1, 4]}]
    chunked = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunked += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (as_json[:100], as_json[100:])) + b"0\r\n\r\n"
    gets = ("/v2", "/v2/health/ready", f"/v2/models/{model}", f"/v2/models/{model}/versions/1/ready", "/metrics")
    return [
        post(path, as_json, "Content-Type: application/json"),
        post(path, binary, length),
        post(path, gzip.compress(binary), length, "Content-Encoding: gzip"),
        post(path, gzip.compress(binary[:50]) + gzip.compress(binary[50:]), length, "Content-Encoding: x-gzip"),
        post(path, json.dumps(extras).encode()),
        chunked,
        post("/v2/repository/index", b"{}"),
        *(f"GET {get} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode() for get in gets),
    ]


def mutate(rng, requests):
    data = bytearray(rng.choice(requests))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        # Half of all changes in the head or near it, where most of the grammar is.
        at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 250)) if data else 0
        until = at + rng.choice((1, 1, 2, 8, 40))
        kind = rng.randrange(7)
        if kind == 0:
            data[at:until] = b""
        elif kind == 1:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            data[at:at] = rng.choice(WORDS)
        elif kind == 3:
            data[at:until] = rng.choice(WORDS)
        elif kind == 4:
            data[at:at] = data[at:until]
        elif kind == 5:
            other = rng.choice(requests)
            data[at:] = other[rng.randrange(len(other)) :]
        else:
            del data[at:]
    return bytes(data)


def may_stay_open(data):
    """Whether a server that has read all of this may rightly wait for more."""
    head, blank, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    lengths = [int(digits) for digits in re.findall(rb"(?i)content-length\s*:\s*(\d+)", head)]
    return not blank or b"chunked" in head.lower() or any(length > len(body) for length in lengths)


class Tally:
    """Sends raw requests to a server, and counts the statuses of the answers; None for those left open."""

    def __init__(self, url, open_s):
        parts = urlsplit(url)
        self.open_s = open_s
        self.address = parts.hostname, parts.port
        self.statuses: collections.Counter = collections.Counter()
        self.wrong: list = []

    async def run(self, requests):
        queue = iter(requests)
        await asyncio.gather(*(self.connection(queue) for _ in range(CONNECTIONS)))
        # The transports take a moment to close.
        await asyncio.sleep(0.1)
        return self

    async def connection(self, queue):
        stream = None
        for data in queue:
            reader, writer = stream or await asyncio.open_connection(*self.address)
            status, keep = await self.ask(reader, writer, data)
            self.statuses[status] += 1
            if status is not None and not 200 <= status < 500:
                self.wrong.append((status, data))
            stream = (reader, writer) if keep else None
            if stream is None:
                writer.transport.abort()
        if stream:
            stream[1].transport.abort()

    async def ask(self, reader, writer, data):
        """The status of the first answer, and whether the connection can take another request."""
        is_open = may_stay_open(data)
        try:
            writer.write(data)
            status, headers = await asyncio.wait_for(self.answer(reader, data), self.open_s if is_open else WAIT_S)
        except TimeoutError:
            if not is_open:
                self.wrong.append(("no answer", data))
            return None, False
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.wrong.append((repr(error), data))
            return None, False
        head, _, body = data.partition(b"\r\n\r\n")
        exact = head.count(b"\r\n\r\n") == 0 and b"\r\nContent-Length: %d\r" % len(body) in head + b"\r"
        return status, exact and b"connection: close" not in headers and headers.startswith(b"http/1.1")

    async def answer(self, reader, data):
        while True:
            headers = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(headers.split()[1])
            found = re.search(rb"\r\ncontent-length: (\d+)", headers)
            if found and not data.lstrip().startswith(b"HEAD"):
                body = await reader.readexactly(int(found[1]))
                # An odd Expect for an unknown path is answered by aiohttp itself.
                if status >= 400 and status != 417:
                    assert list(json.loads(body)) == ["error"], body
            if status >= 200:
                return status, headers


@pytest.fixture(scope="module")
def victims(bundle, start_for_module, tmp_path_factory):
    """A worker and a coordinator on two workers, with the models' names."""
    options = (f"--bundle={bundle}", "--max_batch=4", "--max_body_mb=0.05")
    workers = [start_for_module("worker", *options, "--threads=1") for _ in range(2)]
    path = tmp_path_factory.mktemp("fuzz") / "cluster.toml"
    path.write_text("".join(f'[[device]]\nname = "pi-{i}"\nurl = "{w.url}"\n' for i, w in enumerate(workers)))
    coordinator = start_for_module("coordinator", *options, f"--cluster={path}", "--switch=0.5+0.5")
    return {"worker": (workers[0], SLICE), "coordinator": (coordinator, "tiny")}


def logits(curl, url, model, images):
    tensor = {"name": "image", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    status, _, body = curl(f"{url}/v2/models/{model}/infer", body=json.dumps({"inputs": [tensor]}).encode())
    assert status == 200, body
    (answer,) = [output for output in json.loads(body)["outputs"] if output["name"] == "logits"]
    return answer["data"]


def check(curl, victim, images, requests, open_s=OPEN_S):
    program, model = victim
    before = logits(curl, program.url, model, images)
    tally = asyncio.run(Tally(program.url, open_s).run(requests))
    assert tally.wrong == []
    assert logits(curl, program.url, model, images) == before
    counted = curl(f"{program.url}/metrics")[2].decode()
    assert not re.search(r'fusion_requests_total\{.*status="5', counted)
    return tally.statuses


@pytest.mark.parametrize("kind", ["worker", "coordinator"])
def test_recorded_requests_are_valid(victims, data, curl, kind):
    program, model = victims[kind]
    requests = recorded(model, data[0][:2])
    assert check(curl, victims[kind], data[0][:1], requests, WAIT_S) == {200: len(requests)}


@pytest.mark.parametrize("kind", ["worker", "coordinator"])
def test_mutated_requests(victims, data, curl, kind, count=2500):
    rng = random.Random(kind)
    requests = recorded(victims[kind][1], data[0][:2])
    statuses = check(curl, victims[kind], data[0][:1], (mutate(rng, requests) for _ in range(count)))
    assert statuses.total() == count
    print(kind, dict(statuses))
    # The mutator is of use: most requests are refused, and for more than one reason.
    assert sum(statuses[status] for status in (400, 404, 405, 413, 415, 417, 431)) > count / 2, statuses
    assert statuses[400] and statuses[404] and statuses[431]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["worker", "coordinator"])
def test_a_hundred_thousand_mutated_requests(victims, data, curl, kind):
    test_mutated_requests(victims, data, curl, kind, 100_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELD = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20)
NAMES = st.sampled_from(
    [
        "Content-Encoding",
        "Expect",
        "Inference-Header-Content-Length",
        "Authorization",
        "Upgrade",
        "Accept",
        "Connection",
    ]
)
MESSAGES = st.dictionaries(st.sampled_from(["id", "parameters", "inputs", "outputs"]), JSON).map(json.dumps)
BODIES = MESSAGES.map(str.encode) | st.binary(max_size=200)


@pytest.mark.parametrize("kind", ["worker", "coordinator"])
def test_generated_requests(victims, data, curl, kind):
    program, model = victims[kind]
    made = []

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.text(max_size=12), st.dictionaries(NAMES, FIELD), BODIES, st.booleans())
    def make(path, headers, body, infer):
        path = f"/v2/models/{model}/infer" if infer else f"/v2/{path}"
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *lines, f"Content-Length: {len(body)}", "", ""])
        made.append(head.encode("utf-8", "surrogatepass") + body)

    make()
    statuses = check(curl, victims[kind], data[0][:1], made)
    assert statuses[400] and statuses[404]


def test_no_traceback_is_left(victims):
    """Runs last: what the servers said of all of the above."""
    for program, _ in victims.values():
        status, _, err = program.stop()
        assert status == 143
        assert "Traceback" not in err and "rror" not in err, err[-3000:]
