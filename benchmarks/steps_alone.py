"""Times the files that `benchmarks.steps` wrote, in a process that holds one runtime and nothing else.

    python -m benchmarks.steps_alone FOLDER RUNTIME RUNS

Prints JSON: medians of milliseconds of the processor, on one thread. `invocations` are the steps' own, `handing` all
that is done from the image to the last answer.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from fusion.runtime import choosing

_TURNS = 5


class _File:
    """A loaded file, and where its tensors are."""

    def __init__(self, path: Path, runtime: Any) -> None:
        self.interpreter = runtime.Interpreter(model_content=path.read_bytes(), num_threads=1)
        self.interpreter.allocate_tensors()
        runner = self.interpreter.get_signature_runner()
        self.inputs = {name: one["index"] for name, one in runner.get_input_details().items()}
        outputs = {name: one["index"] for name, one in runner.get_output_details().items()}
        self.answer = outputs["logits"]
        self.given = {name: self.interpreter.tensor(place) for name, place in outputs.items()}
        self.image = np.random.default_rng(1).integers(0, 256, runner.get_input_details()["image"]["shape"], np.uint8)

    def run(self, before: _File | None = None) -> float:
        """The milliseconds of an invocation, on what the step before has made."""
        for name, place in self.inputs.items():
            # Copied from file to file, as the worker does.
            given = self.image if name == "image" or before is None else before.given[name]()
            self.interpreter.set_tensor(place, given)
        del given
        began = time.thread_time()
        self.interpreter.invoke()
        ms = 1e3 * (time.thread_time() - began)
        self.interpreter.get_tensor(self.answer)
        return ms


def main() -> None:
    folder, runs = Path(sys.argv[1]), int(sys.argv[3])
    runtime = choosing.choose(sys.argv[2]).module
    files = {path.stem: _File(path, runtime) for path in sorted(folder.glob("*.tflite"))}
    steps = sorted((name for name in files if name.startswith("step_")), key=lambda name: int(name[5:]))
    times: dict[str, list[float]] = defaultdict(list)
    # In turns, so that a busy machine weighs on all; each turn's first run brings its files back into the caches.
    for _ in range(_TURNS):
        for run in range(-1, -(-runs // _TURNS)):
            found = _run_steps([files[name] for name in steps])
            if run >= 0:
                for name, ms in zip((*steps, "handing", "invocations"), found, strict=True):
                    times[name].append(ms)
        for name in files.keys() - steps:
            for run in range(-1, -(-runs // _TURNS)):
                ms = files[name].run()
                if run >= 0:
                    times[name].append(ms)
    print(json.dumps({name: statistics.median(values) for name, values in times.items()}))


def _run_steps(steps: list[_File]) -> list[float]:
    """Milliseconds of each step, of all from the image to the last answer, and of the steps' own together."""
    began = time.thread_time()
    each = [step.run(before) for before, step in zip((None, *steps), steps, strict=False)]
    return [*each, 1e3 * (time.thread_time() - began), sum(each)]


if __name__ == "__main__":
    main()
