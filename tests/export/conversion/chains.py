"""The steps of a network of levels as files, run one after the other on a runtime, on this machine or on a board."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from export.conversion.converter import hushed
from export.conversion.job import Ranges, StepFile
from export.conversion.ranges import pin
from export.conversion.slices import int8_converter
from export.conversion.steps import convert_step
from export.emulation import boards
from export.emulation.boards import Board
from export.tflite.graph import Graph
from paradis_tf.builders.static import extract
from paradis_tf.supernet import Supernet

RUNTIMES = [name for name in ("tflite_runtime", "ai_edge_litert") if importlib.util.find_spec(name)]
# The default, with XNNPACK where the runtime has it for the file; the runtime's own; those that round as ARM's do.
KERNELS = ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")
# Prints by kernels what the steps answer and what the levels do, as lists by image and level. It runs with a runtime
# and NumPy alone, as on a board.
_RUN = """
import importlib, json, pathlib, sys
import numpy as np
runtime = importlib.import_module(f"{sys.argv[1]}.interpreter")
folder = pathlib.Path(sys.argv[2])
images = np.load(folder / "images.npy")

def load(name, kernels):
    interpreter = runtime.Interpreter(
        model_content=(folder / name).read_bytes(),
        num_threads=1,
        experimental_op_resolver_type=runtime.OpResolverType[kernels],
    )
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner()

found = {}
for kernels in sys.argv[3:]:
    steps = [load(path.name, kernels) for path in sorted(folder.glob("step_*"))]
    levels = [load(path.name, kernels) for path in sorted(folder.glob("level_*"))]
    answers = {"steps": [], "levels": []}
    for image in images[:, np.newaxis]:
        made, of_steps = {}, []
        for step in steps:
            made = step(image=image, **{name: made[name] for name in made if name != "logits"})
            of_steps.append(made["logits"][0].tolist())
        answers["steps"].append(of_steps)
        answers["levels"].append([level(image=image)["logits"][0].tolist() for level in levels])
    found[kernels] = answers
print(json.dumps(found))
"""


class Answers(NamedTuple):
    """What the files gave, as stored, (images, levels, classes): steps after steps, and levels as a whole."""

    steps: np.ndarray
    levels: np.ndarray


class Chain(NamedTuple):
    """The files of a network in a folder: `step_K.tflite` and, of int8, `level_K.tflite`, each level as a whole.

    Attributes:
      folder: the folder, with the images that they are run on.
      steps: what was read back from the steps' files.
      sizes: bytes of each file, by its name.
    """

    folder: Path
    steps: list[Graph]
    sizes: Mapping[str, int]


def make(network: Supernet, precision: str, images: np.ndarray, folder: Path, ranges: Ranges | None = None) -> Chain:
    """Converts a triangular network.

    Args:
      network: the network.
      precision: float32, float16, dynamic or int8.
      images: uint8 (n, height, width, 3), that the files are to be run on.
      folder: an empty one.
      ranges: of int8.
    """
    _, height, width, channels = images.shape
    shape = height, width, channels
    np.save(folder / "images.npy", images)
    contents = []
    for number, (level, step) in enumerate(zip(network.paths, network.steps, strict=True), 1):
        data, read = convert_step(network, StepFile(step, precision), images, ranges)
        (folder / f"step_{number}.tflite").write_bytes(data)
        contents.append(read)
        if ranges is not None:
            (cut,) = level.cuts
            pinned = pin(network.architecture, cut, ranges)
            with hushed():
                whole = extract(network, cut, keras, True, shape, pin=pinned)
                data = int8_converter(whole, None, shape, "logits").convert()
            (folder / f"level_{number}.tflite").write_bytes(data)
    return Chain(folder, contents, {file.name: file.stat().st_size for file in folder.glob("*.tflite")})


def run(chain: Chain, runtime: str, kernels: Sequence[str] = KERNELS, board: Board | None = None) -> dict[str, Answers]:
    """What the files answer, by kernels, each runtime in a process that holds no other."""
    arguments = ["-c", _RUN, runtime, str(chain.folder), *kernels]
    if board is None:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    else:
        done = boards.run(board, arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {kind: Answers(np.array(one["steps"]), np.array(one["levels"])) for kind, one in found.items()}
