"""Clients of a coordinator that measure: one connection each, closed loops and an open loop of them."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from ..asking.client import FusionClient
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from ..protocol.tensors import data_to_bytes
from ..security.credentials import Credentials


@dataclass(frozen=True)
class Reply:
    """What became of one request.

    Attributes:
      image: which of the images it was.
      status: the HTTP status; 0 where the connection failed, 502 also where the answer cannot be read.
      due, started, encoded, received, ended: `time.perf_counter()` when it should have left (in an open loop), when its
        encoding began and was done, when the answer's last byte was there, and when it was decoded.
      sent_bytes, received_bytes: the bodies' sizes.
      outputs: the outputs of status 200 for the image, by name; empty otherwise.
      parameters: those of the answer.
      error: why there is none.
    """

    image: int
    status: int
    due: float
    started: float
    encoded: float
    received: float
    ended: float
    sent_bytes: int
    received_bytes: int
    outputs: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]
    error: str

    @property
    def ms(self) -> float:
        """From the encoding of the request to its decoded answer."""
        return (self.ended - self.started) * 1e3


class Server:
    """A coordinator to ask: its address, credentials and fused model.

    Args:
      url: http(s)://host[:port].
      credentials: the token to show and the certificates to trust.
      timeout_s: the limit of each wait for it, in seconds.

    Attributes:
      outputs: what is asked for: `logits`, or of super-resolution `pixels`.

    Raises `UserError` as `FusionClient` does.
    """

    def __init__(self, url: str, credentials: Credentials, timeout_s: float) -> None:
        with FusionClient(url, credentials, timeout_s) as client:
            self.name, self.shape = client.name, client.shape
            name, datatype = client.task.answer[0], "FP32" if client.task.has_classes else "UINT8"
            # Asked once, which also tells the output's shape.
            answer = client.infer(np.zeros(self.shape, np.uint8))
            self.outputs = [TensorSpec(name, datatype, (-1, *answer.outputs[name].shape))]
            self.model_parameters = client.model_parameters
        self.url, self.timeout_s, self._credentials = url.rstrip("/"), timeout_s, credentials
        self.input = TensorSpec("image", "UINT8", (-1, *self.shape))
        self.path = f"/v2/models/{quote(self.name, safe='')}/infer"
        token = credentials.token()
        self.headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is not open yet."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = self._credentials.client_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=self.timeout_s, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=self.timeout_s)

    def status(self) -> Mapping[str, Any]:
        """What `GET /status` tells; empty where it tells nothing."""
        connection = self.connection()
        try:
            connection.request("GET", "/status", headers=self.headers)
            response = connection.getresponse()
            found = json.loads(response.read()) if response.status == 200 else {}
        except (OSError, http.client.HTTPException, ValueError):
            found = {}
        finally:
            connection.close()
        return found if isinstance(found, dict) else {}


class Asker:
    """One connection to a server, kept open between requests and opened anew after a failure. Not thread-safe.

    It writes and reads HTTP itself, since what Python's own client takes for that is the client's affair. What all
    requests have in common is made once.
    """

    def __init__(self, server: Server, images: np.ndarray, parameters: Mapping[str, Any]) -> None:
        self._server, self._images = server, images
        self._connection = server.connection()
        shape = (1, *images.shape[1:])
        size = math.prod(shape)
        self._json = oip.request_json([(server.input, shape, size)], [spec.name for spec in server.outputs], parameters)
        fields = server.headers | {
            "Host": urlsplit(server.url).netloc,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(self._json) + size),
            oip.HEADER: str(len(self._json)),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._start = f"POST {server.path} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + self._json

    def ask(self, number: int, due: float = 0.0) -> Reply:
        """Asks for image `number` modulo how many there are, encoded anew; never raises for what the server does."""
        place = number % len(self._images)
        started = time.perf_counter()
        image = data_to_bytes(self._server.input.datatype, self._images[place])
        encoded = time.perf_counter()
        status, answer, header, error = self._exchange(image)
        received = time.perf_counter()
        outputs: Mapping[str, np.ndarray] = {}
        parameters: Mapping[str, Any] = {}
        if status == 200:
            try:
                response = oip.decode_response(answer, header, self._server.outputs, 1)
                outputs = {name: array[0] for name, array in response.outputs.items()}
                parameters = response.parameters
            except OipError as failure:
                status, error = 502, failure.message
        return Reply(
            place,
            status,
            due or started,
            started,
            encoded,
            received,
            time.perf_counter(),
            len(self._json) + len(image),
            len(answer),
            outputs,
            parameters,
            error,
        )

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, image: bytes | memoryview) -> tuple[int, bytes, str | None, str]:
        """(status, body, the OIP header's value, what went wrong)."""
        try:
            if self._connection.sock is None:
                self._connection.connect()
            self._connection.sock.sendall(self._start)
            self._connection.sock.sendall(image)
            response = http.client.HTTPResponse(self._connection.sock)
            response.begin()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, b"", None, str(error) or type(error).__name__
        if response.will_close:
            self._connection.close()
        said = "" if response.status == 200 else answer[:300].decode(errors="replace")
        return response.status, answer, response.headers.get(oip.HEADER), said


def closed_loops(server: Server, images: np.ndarray, clients: int, seconds: float) -> list[Reply]:
    """`clients` connections that each ask for one image after the other, for so many seconds."""
    replies: list[list[Reply]] = [[] for _ in range(clients)]
    start = threading.Barrier(clients)

    def run(place: int) -> None:
        asker = Asker(server, images, {})
        asker.ask(place)
        start.wait()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            replies[place].append(asker.ask(place + len(replies[place])))
        asker.close()

    _together(run, clients)
    return [reply for mine in replies for reply in mine]


def open_loop(
    server: Server,
    images: np.ndarray,
    rate: float,
    connections: int,
    seconds: float,
    take: Callable[[Reply], None],
) -> None:
    """Asks at a fixed rate, whatever the answers do.

    Args:
      server: whom.
      images: uint8 (N, height, width, channels), one after the other.
      rate: requests per second; fewer leave where all connections are waiting for answers.
      connections: how many; request k leaves at k / rate seconds on whichever is free.
      seconds: for how long.
      take: is given every reply, by several threads.
    """
    counter = iter(range(int(rate * seconds)))
    lock = threading.Lock()
    begin = time.perf_counter()

    def run(place: int) -> None:
        asker = Asker(server, images, {})
        while True:
            with lock:
                number = next(counter, None)
            if number is None:
                break
            due = begin + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            take(asker.ask(number, due))
        asker.close()

    _together(run, connections)


def _together(run: Callable[[int], None], count: int) -> None:
    """Runs `run(0)` to `run(count - 1)` in a thread each; raises what one of them raised."""
    failures: list[BaseException] = []

    def guarded(place: int) -> None:
        try:
            run(place)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(place,), daemon=True) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
