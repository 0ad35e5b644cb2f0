"""Slices with residual additions and pooling: the files count, load and answer as the network does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.conversion.job import SliceFile
from export.conversion.slices import convert_slice
from fusion.bundle.contents import PRECISIONS
from paradis_tf.builders.cost import cut_cost
from paradis_tf.supernet import Supernet
from tests.conftest import randomize

IMAGES = np.random.default_rng(6).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
PLAIN = {"CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "ADD", "RESHAPE"}
# Runs a file on one runtime, in a process that holds no TensorFlow.
RUN = """
import importlib, sys
import numpy as np
interpreter = importlib.import_module(f"{sys.argv[1]}.interpreter").Interpreter(sys.argv[2], num_threads=1)
interpreter.allocate_tensors()
image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
answers = []
for pixels in np.load(sys.argv[3]):
    interpreter.set_tensor(image["index"], pixels[np.newaxis])
    interpreter.invoke()
    answers.append(interpreter.get_tensor(logits["index"])[0])
scale, zero_point = logits["quantization"]
np.save(sys.argv[4], (np.stack(answers).astype(np.float32) - zero_point) * (scale or 1))
"""


@pytest.mark.parametrize(
    ("net", "additions", "precision"),
    [*(("bottleneck_resnet", 8, precision) for precision in PRECISIONS), ("basic_resnet", 4, "int8")],
)
def test_a_residual_slice_answers_on_both_runtimes(
    request, tmp_path: Path, net: str, additions: int, precision: str
) -> None:
    model: Supernet = request.getfixturevalue(net)
    switch = model.switches[2]
    data, contents = convert_slice(model, SliceFile(switch, 0, precision), IMAGES)
    assert contents.madds == cut_cost(model.architecture, switch.cut(0)).madds
    allowed = PLAIN | ({"QUANTIZE", "MEAN"} if precision == "int8" else {"CAST", "MUL", "MEAN", "DEQUANTIZE"})
    assert contents.operator_names <= allowed
    added = sum(count for (name, _), count in contents.operators.items() if name == "ADD")
    # In float one more addition normalizes the image.
    assert added == additions + (precision != "int8")
    assert ("MAX_POOL_2D" in contents.operator_names) == (model.architecture.get_config()["form"] == "224")

    file, images, answers = tmp_path / "slice.tflite", tmp_path / "images.npy", tmp_path / "answers.npy"
    file.write_bytes(data)
    np.save(images, IMAGES)
    expected = model.call_cut(IMAGES, switch.cut(0)).prediction.numpy()
    for runtime in ("tflite_runtime", "ai_edge_litert"):
        subprocess.run([sys.executable, "-c", RUN, runtime, str(file), str(images), str(answers)], check=True)
        error = np.abs(np.load(answers) - expected).max() / np.abs(expected).max()
        # Found at most: 0.052, 0.011, 8e-4, 8e-7; a step of int8 is 0.008 at most.
        assert error < {"int8": 0.06, "dynamic": 0.02, "float16": 2e-3, "float32": 1e-5}[precision]


def test_branches_of_their_own_answer_on_both_runtimes(tmp_path: Path) -> None:
    options = {"image_shape": (16, 16, 3), "classes": 5, "width_multiplier": 0.25, "blocks": 1}
    model = randomize(Supernet({"name": "i_resnext", **options}, ("1.0", "0.5")))
    for layer in model.shared_layers:
        # Random statistics of norms before the convolutions would leave few values above 0.
        if hasattr(layer, "beta"):
            layer.beta.assign(layer.beta + 0.5)
    cut = model.switches[1].cut(0)
    data, contents = convert_slice(model, SliceFile(model.switches[1], 0, "int8"), IMAGES[:, :16, :16])
    assert contents.madds == cut_cost(model.architecture, cut).madds
    assert {"SPLIT", "CONCATENATION", "PAD", "AVERAGE_POOL_2D"} <= contents.operator_names
    file, images, answers = tmp_path / "slice.tflite", tmp_path / "images.npy", tmp_path / "answers.npy"
    file.write_bytes(data)
    np.save(images, IMAGES[:, :16, :16])
    expected = model.call_cut(IMAGES[:, :16, :16], cut).prediction.numpy()
    for runtime in ("tflite_runtime", "ai_edge_litert"):
        subprocess.run([sys.executable, "-c", RUN, runtime, str(file), str(images), str(answers)], check=True)
        error = np.abs(np.load(answers) - expected).max() / np.abs(expected).max()
        # Found at most: 0.016.
        assert error < 0.06
