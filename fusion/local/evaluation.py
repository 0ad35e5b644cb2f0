"""Sends images to a coordinator one at a time: its answers, their accuracy, and their times."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..asking.client import FusionClient
from ..base.program import UserError
from ..security.credentials import Credentials


@dataclass(frozen=True)
class LocalResult:
    """What a cluster made of N images.

    Attributes:
      answers: the fused logits, float32 (N, K), or of super-resolution the pixels, uint8 (N, height * scale, width *
        scale, 3).
      classes: the predicted class indices, int64 (N,); None of super-resolution.
      accuracy: the share of right classes, 0..1; None where no labels were given.
      latencies_ms: the time of each image, from asking to having the answer, in the order of the
        images.
      invoke_ms: the median invocation time of each device's slice, by device name in slice order.
      timeline: the coordinator's timeline of the image with the median latency (`switch`,
        `decode_ms`, `devices`, `fuse_ms`; times in ms since the request arrived at the
        coordinator).
    """

    answers: np.ndarray
    classes: np.ndarray | None
    accuracy: float | None
    latencies_ms: tuple[float, ...]
    invoke_ms: Mapping[str, float]
    timeline: Mapping[str, Any]

    @property
    def median_ms(self) -> float:
        """The median latency in ms."""
        return statistics.median(self.latencies_ms)

    @property
    def p95_ms(self) -> float:
        """The latency in ms that 95 % of the images stay within (nearest rank)."""
        ranked = sorted(self.latencies_ms)
        return ranked[max(0, -(-95 * len(ranked) // 100) - 1)]


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
      labels: the right class indices, N of them, or None.
      progress: called as progress(done, N) after each image.

    The first image is asked for twice and its first answer not timed, since that one opens the
    connections. Raises `UserError` on images of another dtype or shape than the model's, on another
    number of labels, and as `FusionClient` does.
    """
    with FusionClient(url, Credentials()) as client:
        _check(images, labels, client.shape)
        client.infer(images[0])
        answers, latencies = [], []
        for image in images:
            started = time.perf_counter()
            answers.append(client.infer(image, timeline=True))
            latencies.append((time.perf_counter() - started) * 1e3)
            progress(len(answers), len(images))
        task = client.task
    timelines = [json.loads(str(answer.parameters["timeline"])) for answer in answers]
    invoke = [[device["invoke_ms"] for device in line["devices"]] for line in timelines]
    devices = [device["device"] for device in timelines[0]["devices"]]
    classes = np.array([answer.index for answer in answers], np.int64) if task.has_classes else None
    median = sorted(range(len(latencies)), key=latencies.__getitem__)[len(latencies) // 2]
    return LocalResult(
        answers=np.stack([answer.outputs[task.answer[0]] for answer in answers]),
        classes=classes,
        accuracy=None if labels is None or classes is None else float(np.mean(classes == np.asarray(labels))),
        latencies_ms=tuple(latencies),
        invoke_ms=dict(zip(devices, np.median(invoke, axis=0).tolist(), strict=True)),
        timeline=timelines[median],
    )


def _check(images: np.ndarray, labels: Sequence[int] | np.ndarray | None, shape: tuple[int, int, int]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise UserError(
            f"the images are {images.dtype} {list(images.shape)}; legal: uint8 {['N', *shape]} with N of 1 or more."
        )
    if labels is not None and len(labels) != len(images):
        raise UserError(f"there are {len(labels)} labels; legal: {len(images)}, one per image.")
