"""Whether an answer is what it claims to be: the sum of exactly these slices' outputs, computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fusion.base.program import UserError
from fusion.bundle.contents import Bundle
from fusion.rules import answers
from fusion.rules.sum import Sum
from fusion.runtime.choosing import Runtime
from fusion.runtime.interpreters import SliceInterpreter


class Oracle:
    """The outputs of every slice of a bundle for some images.

    Args:
      bundle, precision: whose slices.
      runtime: the workers'.
      images: uint8 (N, height, width, channels).

    Raises `UserError` as `SliceInterpreter` does.
    """

    def __init__(self, bundle: Bundle, precision: str, runtime: Runtime, images: np.ndarray) -> None:
        self._bundle, self._images = bundle, images
        self._answers = answers.of(bundle, runtime.name, 1)
        self._outputs: dict[str, list[list[np.ndarray]]] = {}
        for entry in bundle.switches:
            files = [slice_.files[precision] for slice_ in entry.slices]
            slices = [(SliceInterpreter(bundle, file, runtime, 1), file.output) for file in files]
            self._outputs[entry.switch] = [
                [Sum().contribution(output, slice_(image)) for slice_, output in slices] for image in images
            ]

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
        contributions = [self._outputs[entry.switch][image][i][np.newaxis] for i in arrived]
        expected = self._answers(self._images[image : image + 1], contributions)[0][0]
        (output,) = outputs.values()
        if not np.array_equal(output, expected):
            apart = float(np.abs(output.astype(np.float64) - expected).max())
            return f"its output is {apart:.4g} from that of {entry.switch} without {text or 'none'} missing"
        return None
