"""Runs one slice file on one thread, with nothing loaded but the TFLite runtime: a process of `speed.py`.

    python -m export.demo.alone BUNDLE SWITCH DEVICE PRECISION RUNTIME

Prints a line when it is ready: by how many bytes the memory of the process has grown by it, or null where the system
does not tell. Then, for each line on standard input, it runs the slice once and prints how many milliseconds that took.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from fusion.bundle import manifest
from fusion.runtime import choosing, memory
from fusion.runtime.interpreters import SliceInterpreter


def main(folder: str, switch: str, device: str, precision: str, runtime: str) -> None:
    """Serves standard input until its end; the arguments are those of the command line."""
    bundle, chosen = manifest.load(folder), choosing.choose(runtime)
    file = bundle.find_switch(switch).slices[int(device)].files[precision]
    image = np.random.default_rng(0).integers(0, 256, bundle.shape, dtype=np.uint8)
    before = memory.peak()
    run = SliceInterpreter(bundle, file, chosen, threads=1)
    run(image)
    after = memory.peak()
    print(json.dumps(None if before is None or after is None else after - before), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(image)
        print(1e3 * (time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
