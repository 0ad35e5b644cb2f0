"""A small blocking client of an Open Inference Protocol server, for the programs that ask a coordinator."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from ..base.program import UserError
from ..bundle.tasks import task_of_answer
from ..cluster.file import check_url
from ..protocol import oip
from ..protocol.oip import OipError, TensorSpec
from ..protocol.tensors import DTYPES, data_to_bytes
from ..security.credentials import Credentials, unauthorized
from .exchange import CONNECTING, MALFORMED, AbsentError, ExchangeError, HttpAnswer, HttpClient

_LEAST_WAIT_S = 0.05
_DESCRIBING = "reading the model metadata"
# Far beyond what any model answers.
_MOST_BYTES = 1 << 30


class RefusedError(UserError):
    """The server answered, but not with what it was asked for; it may answer the next request."""


class BusyError(RefusedError):
    """The server has no time now, 503 with Retry-After, and had none for as long as it was asked again.

    Attributes:
      reason: what it says of that, without a full stop.
      after_s: in how many seconds it wants to be asked again.
    """

    def __init__(self, message: str, reason: str, after_s: float) -> None:
        super().__init__(message)
        self.reason, self.after_s = reason, after_s


class UnreachableError(UserError):
    """No answer came."""


class NotThereError(UnreachableError):
    """Nothing listens at the server's address, as while it starts."""


@dataclass(frozen=True)
class Answer:
    """One image's answer.

    Attributes:
      outputs: what the server gives for it, by name: of a classifier `logits` float32 (K,), `class` and `label`, of
        super-resolution `pixels` uint8 (height * scale, width * scale, 3).
      parameters: the server's parameters.
    """

    outputs: Mapping[str, Any]
    parameters: oip.Parameters

    @property
    def index(self) -> int:
        """The class's index."""
        return int(self.outputs["class"])

    @property
    def label(self) -> str:
        """The class's name."""
        return str(self.outputs["label"].decode())

    @property
    def missing(self) -> tuple[str, ...]:
        """The numbers of the slices that are not in it, as text."""
        return tuple(filter(None, str(self.parameters.get("missing", "")).split(",")))

    @property
    def degraded(self) -> bool:
        """Whether slices are missing that would have made it better."""
        return self.parameters.get("degraded") is True


class FusionClient:
    """One connection to a coordinator, kept open between images; a context manager.

    Args:
      url: http(s)://host[:port].
      credentials: the token to show and the certificates to trust.
      timeout_s: the limit of connecting and of each request, in seconds.
      waiting: is called with a `BusyError` after which the server will be asked again.

    Attributes:
      name: the fused model's name.
      task: what its answers are.
      shape: the image's (height, width, channels).
      scale: how many times larger the sides of its answer are, of super-resolution; 1 otherwise.
      model_parameters: what its metadata says: model_id, switch, devices, precision.

    Connects and reads the metadata at once. Raises `UserError`, naming the url and the phase, when the server is not
    there or is too slow (`UnreachableError`), refuses (`RefusedError`; `BusyError` where it may do better later), or
    serves no fused model (a worker does not); after one of the first two, the next request connects anew.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        timeout_s: float = 30.0,
        waiting: Callable[[BusyError], None] = lambda error: None,
    ) -> None:
        self._url = check_url(url, "the server")
        self._credentials = credentials
        self._client = HttpClient(self._url, *credentials.to_call(self._url), timeout_s)
        self._timeout_s, self._waiting = timeout_s, waiting
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FusionClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        asyncio.run_coroutine_threadsafe(self._client.close(), _loop()).result()

    def infer(self, image: np.ndarray, timeline: bool = False, deadline_ms: float | None = None) -> Answer:
        """Asks for one raw image, uint8 of `shape`, 0..255.

        Args:
          image: the image.
          timeline: whether the answer is to say when what was done.
          deadline_ms: by when the coordinator is to answer, in ms, instead of its own deadline.

        A server that has no time now, 503 with Retry-After, is asked again after as many seconds, until `timeout_s`
        have passed since the first time. Raises `UserError` as the constructor does.
        """
        parameters: dict[str, bool | int] = {"timeline": True} if timeline else {}
        if deadline_ms is not None:
            parameters["timeout"] = max(1, round(deadline_ms * 1e3))
        head = oip.request_json(self._input, (1, *image.shape), self._names, parameters)
        body, fields = (head, data_to_bytes("UINT8", image)), {oip.HEADER: str(len(head))}
        until = time.monotonic() + self._timeout_s
        while True:
            try:
                answer = self._ask("POST", f"{self._path}/infer", body, fields)
                break
            except BusyError as error:
                if time.monotonic() + error.after_s >= until:
                    raise
                self._waiting(error)
                time.sleep(error.after_s)
        try:
            response = oip.decode_response(answer.body, answer.fields.get(oip.HEADER), self._outputs, 1)
            result = Answer({name: response.outputs[name][0] for name in self._names}, response.parameters)
            if self.task.has_classes:
                result.outputs["label"].decode()
            return result
        except OipError as error:
            raise self._failed("reading the answer", error.message.rstrip(".")) from error
        except (KeyError, UnicodeDecodeError) as error:
            raise self._failed("reading the answer", f"it misses or garbles {error}") from error

    def status(self) -> dict[str, Any]:
        """What the coordinator says of its plan, its devices and its requests. Raises `UserError` as the constructor
        does."""
        answer = self._ask("GET", "/status")
        try:
            return dict(answer.json())
        except MALFORMED as error:
            raise self._failed("reading the status", "it is not understood") from error

    def _only_model(self) -> str:
        answer = self._ask("POST", "/v2/repository/index")
        try:
            names = [str(entry["name"]) for entry in answer.json()]
        except MALFORMED as error:
            raise self._failed(_DESCRIBING, "it is no Open Inference Protocol server") from error
        if len(names) != 1:
            raise self._not_fused(f"it serves {len(names)} models")
        return names[0]

    def _describe(self) -> None:
        self.name = self._only_model()
        self._path = f"/v2/models/{quote(self.name, safe='')}"
        answer = self._ask("GET", self._path)
        try:
            metadata = answer.json()
            inputs = [_spec(entry) for entry in metadata["inputs"]]
            outputs = [_spec(entry) for entry in metadata["outputs"]]
            self.model_parameters: dict[str, Any] = dict(metadata["parameters"])
        except MALFORMED as error:
            raise self._failed(_DESCRIBING, "its model metadata is not understood") from error
        self._names = tuple(spec.name for spec in outputs)
        task = task_of_answer(self._names)
        one_image = [spec.name for spec in inputs] == ["image"] and _is_image(inputs[0])
        if task is None or not one_image or not (task.has_classes or _is_image(outputs[0])):
            raise self._not_fused(f"its model {self.name!r} is not a fused one")
        self.task = task
        self._input, self._outputs = inputs[0], outputs
        _, height, width, channels = self._input.shape
        self.shape = (height, width, channels)
        self.scale = 1 if task.has_classes else outputs[0].shape[1] // height

    def _ask(
        self, method: str, path: str, body: Sequence[bytes | memoryview] = (), fields: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        exchange = self._client.exchange(method, path, body, self._timeout_s, _MOST_BYTES, fields)
        running = asyncio.run_coroutine_threadsafe(exchange, _loop())
        try:
            answer = running.result()
        except ExchangeError as error:
            phase = CONNECTING if error.phase == CONNECTING else f"asking {path}"
            kind = NotThereError if isinstance(error, AbsentError) else UnreachableError
            raise self._failed(phase, str(error), kind) from error
        except BaseException:
            # As Ctrl-C.
            running.cancel()
            raise
        if answer.status != 200:
            raise self._refused(path, answer)
        return answer

    def _refused(self, path: str, answer: HttpAnswer) -> UserError:
        message = f"it answered {answer.status}: {answer.reason}"
        if answer.status == 401:
            message = unauthorized(self._credentials, "--token_file")
        error = self._failed(f"asking {path}", message)
        after = answer.fields.get("Retry-After", "")
        if answer.status == 503 and after.isascii() and after.isdigit():
            return BusyError(str(error), answer.reason, max(_LEAST_WAIT_S, float(after)))
        return error

    def _not_fused(self, what: str) -> UserError:
        return UserError(f"server {self._url}: {what}; legal: the address of a coordinator.")

    def _failed(self, phase: str, what: str, kind: type[UserError] = RefusedError) -> UserError:
        return kind(f"server {self._url}, while {phase}: {what}.")


def _spec(entry: Any) -> TensorSpec:
    shape = tuple(int(size) for size in entry["shape"])
    if entry["datatype"] not in DTYPES:
        raise ValueError(entry["datatype"])
    return TensorSpec(str(entry["name"]), entry["datatype"], shape)


def _is_image(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and min(spec.shape[1:]) > 0


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all clients of this process, in a thread of its own: a caller may have one that runs."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="http", daemon=True).start()
    return loop


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_loop.cache_clear)
