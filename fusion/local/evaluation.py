"""Sends images to a coordinator one at a time: its answers, their accuracy, and their times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..asking.client import FusionClient
from ..base.program import LONGEST_S, UserError
from ..security.credentials import Credentials

# The answers are what counts: each may take as long as the coordinator lets one take.
_DEADLINE_MS = LONGEST_S * 1e3


@dataclass(frozen=True)
class LocalResult:
    """What a cluster made of N images.

    Attributes:
      answers: the fused logits, float32 (N, K), or of super-resolution the pixels, uint8 (N, height * scale, width *
        scale, 3).
      accuracy: the share of right classes, 0..1; None where no labels were given.
      median_ms, p95_ms: of the times of the images (nearest rank), from asking to having the answer.
      invoke_ms: the median invocation time of each device's slice, by device name in slice order.
    """

    answers: np.ndarray
    accuracy: float | None
    median_ms: float
    p95_ms: float
    invoke_ms: Mapping[str, float]


def evaluate(
    url: str,
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LocalResult:
    """Sends each image to the coordinator at `url`, one at a time over one connection.

    Args:
      url: the coordinator's address.
      images: uint8 (N, height, width, channels), 0..255, N of 1 or more.
      labels: the right class indices, N of them, or None; None for super-resolution.
      progress: called as progress(done, N) after each image.

    The first image is asked for twice and its first answer not timed, since that one opens the connections. Raises
    `UserError` on images of another dtype or shape than the model's, on another number of labels, and as
    `FusionClient` does.
    """
    with FusionClient(url, Credentials()) as client:
        _check(images, labels, client.shape)
        client.infer(images[0], deadline_ms=_DEADLINE_MS)
        answers, latencies = [], []
        for image in images:
            started = time.perf_counter()
            answers.append(client.infer(image, timeline=True, deadline_ms=_DEADLINE_MS))
            latencies.append((time.perf_counter() - started) * 1e3)
            progress(len(answers), len(images))
    devices = [json.loads(str(answer.parameters["timeline"]))["devices"] for answer in answers]
    invoke_ms = np.median([[device["invoke_ms"] for device in line] for line in devices], axis=0).tolist()
    median_ms, p95_ms = np.percentile(latencies, (50, 95), method="inverted_cdf").tolist()
    return LocalResult(
        answers=np.stack([answer.outputs[client.task.answer[0]] for answer in answers]),
        accuracy=None if labels is None else float(np.mean([answer.index for answer in answers] == np.asarray(labels))),
        median_ms=median_ms,
        p95_ms=p95_ms,
        invoke_ms=dict(zip([device["device"] for device in devices[0]], invoke_ms, strict=True)),
    )


def _check(images: np.ndarray, labels: Sequence[int] | np.ndarray | None, shape: tuple[int, int, int]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        legal = f"uint8 {['N', *shape]} with N of 1 or more"
        raise UserError(f"the images are {images.dtype} {list(images.shape)}; legal: {legal}.")
    if labels is not None and len(labels) != len(images):
        raise UserError(f"there are {len(labels)} labels; legal: {len(images)}, one per image.")
