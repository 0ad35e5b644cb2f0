"""Whether answers of a cluster are what they claim to be: the sum of exactly these slices' outputs on these devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fusion.base.program import UserError
from fusion.bundle.contents import Bundle
from fusion.rules.answers import Answers

Contributions = Callable[[str, str], np.ndarray | None]
"""What a device, by its name, contributes by a slice model, by its name, to each of the images: float64 (N,
*`Bundle.output_shape`); None of a device that there is not."""


class Claims:
    """Judges answers by what the slices give outside of the cluster.

    Args:
      bundle: whose answers.
      images: uint8 (N, *`Bundle.shape`), those that are asked about.
      answers: makes an answer of contributions.
      contributions: what the slices give for the images.
    """

    def __init__(self, bundle: Bundle, images: np.ndarray, answers: Answers, contributions: Contributions) -> None:
        self._bundle, self._images, self._answers = bundle, images, answers
        self._contributions = contributions

    def fault(self, image: int, outputs: Mapping[str, np.ndarray], parameters: Mapping[str, Any]) -> str | None:
        """Why an answer to an image is not what its parameters claim, or None.

        Looks at `model_id`, `switch`, `devices`, `missing` and `degraded`, and compares the output bit by bit.
        """
        if parameters.get("model_id") != self._bundle.model_id:
            return f"its model_id is {parameters.get('model_id')!r}"
        try:
            entry = self._bundle.find_switch(str(parameters.get("switch")))
        except UserError as error:
            return str(error)
        text = str(parameters.get("missing", ""))
        missing = {int(number) for number in text.split(",")} if text else set()
        devices = str(parameters.get("devices")).split(",")
        arrived = [i for i in range(len(entry.slices)) if i not in missing]
        if len(devices) != len(entry.slices) or [i for i, name in enumerate(devices) if name] != arrived:
            return f"its devices are {parameters.get('devices')!r} and its missing slices {text!r}, of {entry.switch}"
        if not arrived:
            return "it is of no slice"
        # An early answer lacks slices that cannot matter.
        if parameters.get("degraded", False) != (bool(missing) and parameters.get("early") is not True):
            return f"degraded is {parameters.get('degraded')!r} with missing {text!r}"
        contributions = []
        for i in arrived:
            of_all = self._contributions(devices[i], entry.slices[i].model)
            if of_all is None:
                return f"there is no device {devices[i]!r}"
            contributions.append(of_all[image : image + 1])
        expected = self._answers(self._images[image : image + 1], contributions)[0][0]
        (output,) = outputs.values()
        if not np.array_equal(output, expected):
            apart = float(np.abs(output.astype(np.float64) - expected).max())
            return f"its output is {apart:.4g} from that of {entry.switch} without {text or 'none'} missing"
        return None
