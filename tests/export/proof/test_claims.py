"""An answer is held to what the devices that it names give, each by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.proof.claims import Claims
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from fusion.rules import answers

SWITCH = "0.5+0.5"


@pytest.fixture
def loaded(bundle: Path) -> Bundle:
    return manifest.load(bundle)


@pytest.fixture
def given(loaded: Bundle) -> dict[tuple[str, int], np.ndarray]:
    """What the slices give for two images, by device and slice; the two devices round differently, say."""
    rng = np.random.default_rng(0)
    return {(name, i): rng.normal(size=(2, *loaded.output_shape)) for name in ("near", "far") for i in (0, 1)}


@pytest.fixture
def fault(loaded: Bundle, given: dict[tuple[str, int], np.ndarray]) -> Callable[..., str | None]:
    """`fault(image, logits, **claimed)`."""
    numbers = {part.model: number for number, part in enumerate(loaded.find_switch(SWITCH).slices)}
    images = np.zeros((2, *loaded.shape), np.uint8)
    make = answers.of(loaded, "auto", 1)
    claims = Claims(loaded, images, make, lambda device, model: given.get((device, numbers[model])))

    def judge(image: int, logits: np.ndarray, **claimed: Any) -> str | None:
        said = {"model_id": loaded.model_id, "switch": SWITCH, "missing": "", "degraded": False}
        return claims.fault(image, {"logits": logits.astype(np.float32)}, said | claimed)

    return judge


def test_each_slice_is_that_of_the_device_which_is_claimed(fault: Callable[..., str | None], given: Any) -> None:
    for first, second in (("near", "far"), ("far", "near"), ("far", "far")):
        summed = given[first, 0] + given[second, 1]
        assert fault(1, summed[1], devices=f"{first},{second}") is None
        assert "its output is " in str(fault(0, summed[1], devices=f"{first},{second}"))
        assert "its output is " in str(fault(1, summed[1], devices="near,near"))
    assert fault(0, given["far", 1][0], devices=",far", missing="0", degraded=True) is None
    assert "its output is " in str(fault(0, given["near", 1][0], devices=",far", missing="0", degraded=True))


def test_one_bit_is_another_answer(fault: Callable[..., str | None], given: Any) -> None:
    logits = (given["near", 0] + given["near", 1])[0].astype(np.float32)
    assert fault(0, logits, devices="near,near") is None
    logits[1] = np.nextafter(logits[1], np.float32(np.inf))
    assert "its output is " in str(fault(0, logits, devices="near,near"))


def test_a_device_that_there_is_not_is_named(fault: Callable[..., str | None], given: Any) -> None:
    assert fault(0, given["near", 0][0], devices="near,gone") == "there is no device 'gone'"
