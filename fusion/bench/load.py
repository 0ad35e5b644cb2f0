"""Asks a coordinator for images and times each request: in closed loops, and in an open loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from ..asking.client import FusionClient
from ..asking.exchange import ExchangeError, HttpClient
from ..base.program import UserError
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from ..protocol.tensors import data_to_bytes
from ..security.credentials import Credentials

_SPARE_BYTES = 1 << 20
_DTYPES = {"logits": "FP32", "pixels": "UINT8"}


@dataclass(frozen=True)
class Attempt:
    """A request, and what became of it.

    Attributes:
      image: which of the images it was.
      status: the HTTP status; 0 where the exchange failed, 502 also where the answer cannot be read.
      started, encoded, received, ended: `time.perf_counter()` when its encoding began and was done, when the answer was
        there, and when it was decoded.
      sent_bytes, received_bytes: the bodies' sizes.
      outputs: the outputs of status 200 for the image, by name; empty otherwise.
      parameters: those of the answer.
      error: why there is no answer.
    """

    image: int
    status: int
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


class Target:
    """A coordinator to ask: its address, credentials, fused model and deadline.

    Args:
      url: http(s)://host[:port].
      credentials: the token to show and the certificates to trust.
      timeout_s: the limit of each request, in seconds.

    Attributes:
      output: what is asked for: `logits`, or of super-resolution `pixels`.
      deadline_ms: the coordinator's, None where it tells none.

    Raises `UserError` as `FusionClient` does.
    """

    def __init__(self, url: str, credentials: Credentials, timeout_s: float) -> None:
        self.url, self.timeout_s, self.credentials = url.rstrip("/"), timeout_s, credentials
        with FusionClient(url, credentials, timeout_s) as client:
            self.name, self.shape = client.name, client.shape
            # Asked once, which also tells the output's shape.
            outputs = client.infer(np.zeros(self.shape, np.uint8)).outputs
            self.model_parameters = client.model_parameters
            try:
                deadline = client.status().get("deadline_ms")
            except UserError:
                deadline = None
        self.deadline_ms = float(deadline) if isinstance(deadline, (int, float)) else None
        name = next(name for name in _DTYPES if name in outputs)
        self.output = TensorSpec(name, _DTYPES[name], (-1, *outputs[name].shape))


class Asker:
    """Asks a target for some images; an async context manager, whose connections stay open inside.

    Args:
      target: whom.
      images: uint8 (N, height, width, channels).
      parameters: of every request.
    """

    def __init__(self, target: Target, images: np.ndarray, parameters: Mapping[str, Any]) -> None:
        self._target, self._images = target, images
        shape = (1, *images.shape[1:])
        image = TensorSpec("image", "UINT8", (-1, *target.shape))
        self._json = oip.request_json([(image, shape, math.prod(shape))], [target.output.name], parameters)
        self._most_bytes = 4 * math.prod(target.output.shape[1:]) + _SPARE_BYTES

    async def __aenter__(self) -> Asker:
        target = self._target
        token = target.credentials.token()
        fields = {} if token is None else {"Authorization": f"Bearer {token}"}
        context = target.credentials.client_context() if target.url.startswith("https") else None
        self._client = HttpClient(target.url, context, fields, target.timeout_s)
        fields = {oip.HEADER: str(len(self._json)), "Content-Type": "application/octet-stream"}
        self._head = self._client.head("POST", f"/v2/models/{quote(target.name, safe='')}/infer", fields)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def ask(self, number: int) -> Attempt:
        """Asks for image `number` modulo how many there are, encoded anew; never raises for what the server does."""
        place = number % len(self._images)
        started = time.perf_counter()
        image = data_to_bytes("UINT8", self._images[place])
        encoded = time.perf_counter()
        outputs: Mapping[str, np.ndarray] = {}
        parameters: Mapping[str, Any] = {}
        body, status, error = b"", 0, ""
        try:
            answer = await self._client.exchange(
                self._head, (self._json, image), self._target.timeout_s, self._most_bytes
            )
            body, status, received = answer.body, answer.status, answer.received
            if status == 200:
                length = answer.fields.get(oip.HEADER)
                response = oip.decode_response(body, length, [self._target.output], 1)
                outputs = {name: array[0] for name, array in response.outputs.items()}
                parameters = response.parameters
            else:
                error = body[:300].decode(errors="replace")
        except ExchangeError as failure:
            received, error = time.perf_counter(), str(failure)
        except OipError as failure:
            status, error = 502, failure.message
        return Attempt(
            image=place,
            status=status,
            started=started,
            encoded=encoded,
            received=received,
            ended=time.perf_counter(),
            sent_bytes=len(self._json) + len(image),
            received_bytes=len(body),
            outputs=outputs,
            parameters=parameters,
            error=error,
        )


async def closed_loops(asker: Asker, clients: int, seconds: float) -> list[Attempt]:
    """`clients` clients that each ask for one image after the other, for so many seconds."""
    # Opens the connections.
    await asyncio.gather(*(asker.ask(i) for i in range(clients)))
    attempts = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        while time.perf_counter() < end:
            attempts.append(await asker.ask(number))
            number += 1

    await asyncio.gather(*(client(i) for i in range(clients)))
    return attempts


async def open_loop(
    asker: Asker, rate: float, connections: int, seconds: float, take: Callable[[Attempt], None]
) -> None:
    """Asks at a fixed rate, whatever the answers do.

    Args:
      asker: whom, and for what.
      rate: requests per second; fewer leave where all connections are waiting for answers.
      connections: how many; request k leaves at k / rate seconds on whichever is free.
      seconds: for how long.
      take: is given every attempt.
    """
    numbers = iter(range(int(rate * seconds)))
    began = time.perf_counter()

    async def client() -> None:
        for number in numbers:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            take(await asker.ask(number))

    await asyncio.gather(*(client() for _ in range(connections)))
