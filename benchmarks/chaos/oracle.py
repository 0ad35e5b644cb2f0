"""Whether an answer is what it claims to be: the sum of exactly these slices' outputs, computed here."""

from __future__ import annotations

import numpy as np

from export.proof.claims import Claims
from fusion.bundle.contents import Bundle
from fusion.rules import answers
from fusion.rules.sum import Sum
from fusion.runtime.choosing import Runtime
from fusion.runtime.interpreters import SliceInterpreter


class Oracle(Claims):
    """Judges answers by the outputs of every slice of a bundle for some images, in this process.

    Args:
      bundle, precision: whose slices.
      runtime: the workers'.
      images: uint8 (N, height, width, channels).

    Raises `UserError` as `SliceInterpreter` does.
    """

    def __init__(self, bundle: Bundle, precision: str, runtime: Runtime, images: np.ndarray) -> None:
        outputs: dict[str, np.ndarray] = {}
        for entry in bundle.switches:
            for part in entry.slices:
                file = part.files[precision]
                run = SliceInterpreter(bundle, file, runtime, 1)
                outputs[part.model] = Sum().contribution(file.output, np.stack([run(image) for image in images]))
        # All devices are this machine.
        super().__init__(bundle, images, answers.of(bundle, runtime.name, 1), lambda device, model: outputs[model])
