"""Asks a coordinator for images, as many as it answers or at a fixed rate, and times each request."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
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

_TIMEOUT_S = 60.0
# Far beyond what any model answers.
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Attempt:
    """A request, and what became of it.

    Attributes:
      image: which of the images it was.
      status: the HTTP status; 0 where the exchange failed, 502 also where the answer cannot be read.
      started, ended: `time.perf_counter()` when its encoding began, and when its answer was decoded.
      sent_bytes, received_bytes: the bodies' sizes.
      outputs: the outputs of status 200 for the image, by name; empty otherwise.
      parameters: those of the answer.
      error: why there is no answer.
    """

    image: int
    status: int
    started: float
    ended: float
    sent_bytes: int
    received_bytes: int
    outputs: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]
    error: str

    @property
    def ms(self) -> float:
        """All of it, in milliseconds."""
        return (self.ended - self.started) * 1e3


Ask = Callable[[int], Awaitable[Attempt]]
"""Asks for the image of a number."""


class Target:
    """A coordinator to ask: its address and credentials, and its fused model's name, shape and, as of a first
    answer, parameters.

    Attributes:
      deadline_ms: the coordinator's, None where it tells none.

    Raises `UserError` as `FusionClient` does.
    """

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url, self._credentials = url.rstrip("/"), credentials
        with FusionClient(url, credentials, _TIMEOUT_S) as client:
            self.name, self.shape = client.name, client.shape
            output, datatype = client.task.answer[0], "FP32" if client.task.has_classes else "UINT8"
            # Asked once, which also tells the output's shape and the switch.
            answer = client.infer(np.zeros(self.shape, np.uint8))
            self.parameters = {**client.model_parameters, **answer.parameters}
            self._output = TensorSpec(output, datatype, (-1, *answer.outputs[output].shape))
            try:
                deadline = client.status().get("deadline_ms")
            except UserError:
                deadline = None
        self.deadline_ms = float(deadline) if isinstance(deadline, (int, float)) else None

    @contextlib.asynccontextmanager
    async def asking(self, images: np.ndarray, parameters: Mapping[str, Any]) -> AsyncIterator[Ask]:
        """Gives what asks for one of the images, and never raises for what the server does; its connections stay open
        inside.

        Args:
          images: uint8 (N, height, width, channels); a number is taken modulo N, and its image is encoded anew.
          parameters: of every request.
        """
        shape = (1, *self.shape)
        image = TensorSpec("image", "UINT8", (-1, *self.shape))
        message = oip.request_json(image, shape, [self._output.name], parameters)
        client = HttpClient(self._url, *self._credentials.to_call(self._url), _TIMEOUT_S)
        try:
            yield lambda number: self._ask(client, message, images, number % len(images))
        finally:
            await client.close()

    async def _ask(self, client: HttpClient, message: bytes, images: np.ndarray, place: int) -> Attempt:
        path = f"/v2/models/{quote(self.name, safe='')}/infer"
        fields = {oip.HEADER: str(len(message)), "Content-Type": "application/octet-stream"}
        started = time.perf_counter()
        image = data_to_bytes("UINT8", images[place])
        outputs: Mapping[str, np.ndarray] = {}
        parameters: Mapping[str, Any] = {}
        body, status, error = b"", 0, ""
        try:
            answer = await client.exchange("POST", path, (message, image), _TIMEOUT_S, _MOST_BYTES, fields)
            body, status = answer.body, answer.status
            if status == 200:
                response = oip.decode_response(body, answer.fields.get(oip.HEADER), [self._output], 1)
                outputs = {name: array[0] for name, array in response.outputs.items()}
                parameters = response.parameters
            else:
                error = body[:300].decode(errors="replace")
        except ExchangeError as failure:
            error = str(failure)
        except OipError as failure:
            status, error = 502, failure.message
        return Attempt(
            image=place,
            status=status,
            started=started,
            ended=time.perf_counter(),
            sent_bytes=len(message) + len(image),
            received_bytes=len(body),
            outputs=outputs,
            parameters=parameters,
            error=error,
        )


async def ask_all(ask: Ask, connections: int, seconds: float, rate: float | None = None) -> list[Attempt]:
    """Asks for so many seconds, on several connections, one image after the other on each.

    Args:
      ask: asks for an image.
      connections: how many.
      seconds: for how long.
      rate: requests per second, whatever the answers do: request k leaves at k / rate seconds on whichever connection
        is free, later where all are waiting for answers; None: as many as are answered.
    """
    numbers = itertools.count() if rate is None else iter(range(max(1, int(rate * seconds))))
    attempts = []
    began = time.perf_counter()

    async def client() -> None:
        for number in numbers:
            if rate is not None:
                await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            elif time.perf_counter() >= began + seconds:
                return
            attempts.append(await ask(number))

    await asyncio.gather(*(client() for _ in range(connections)))
    return attempts
