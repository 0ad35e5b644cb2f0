"""Runs every slice file of a bundle on one runtime, in a process that holds no other.

    python -m export.proof.slice_outputs --bundle=build/digits --runtime=tflite_runtime --images=i.npy --outputs=o.npz

Prints a line for every file that it has run. Started by `export.proof.engines`: TensorFlow and the runtimes carry the
same native code, and in one process the one would run in place of the other.
"""

from __future__ import annotations

import os
import sys
import threading

import numpy as np
from absl import flags

from fusion.base import program
from fusion.base.paths import define_path
from fusion.bundle import manifest
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import SliceInterpreter

_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_RUNTIME = flags.DEFINE_enum("runtime", None, runtime.RUNTIMES, "The runtime.", required=True)
_DELEGATES = flags.DEFINE_bool("delegates", True, "Whether XNNPACK may take operations.")
_REFERENCE_KERNELS = flags.DEFINE_bool(
    "reference_kernels", False, "Run int8 files, and no others, on the reference kernels."
)
_IMAGES = flags.DEFINE_string("images", None, "A .npy file of uint8 images, NHWC.", required=True)
_OUTPUTS = flags.DEFINE_string("outputs", None, "The .npz file to write.", required=True)
_ENDS_WITH_INPUT = flags.DEFINE_bool(
    "ends_with_input", False, "Whether to end when standard input does, as it does when the process behind it dies."
)


def main(argv: list[str]) -> None:
    if _ENDS_WITH_INPUT.value:
        threading.Thread(target=_end_with_input, daemon=True).start()
    bundle = manifest.load(_BUNDLE.value)
    images = np.load(_IMAGES.value, allow_pickle=False)
    chosen = runtime.choose(_RUNTIME.value)
    outputs = {"version": np.array(str(chosen))}
    for entry in bundle.switches:
        for slice_ in entry.slices:
            for precision, file in slice_.files.items():
                key = f"{slice_.model}/{precision}"
                if precision == "int8" or not _REFERENCE_KERNELS.value:
                    run = SliceInterpreter(bundle, file, chosen, 1, _DELEGATES.value, _REFERENCE_KERNELS.value)
                    outputs[key] = np.stack([run(image) for image in images])
                print(key)
    # To an open file, since NumPy would add .npz to a name that lacks it.
    with open(_OUTPUTS.value, "wb") as written:
        np.savez(written, **outputs)


def _end_with_input() -> None:
    # Not through `sys.stdin`, whose lock would be held when the interpreter ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    program.run(main)
