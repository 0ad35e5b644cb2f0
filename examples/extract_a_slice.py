"""Cuts one device's slice out of a trained network, writes it as an int8 .tflite file, and runs it.

    python -m examples.extract_a_slice --model=build/mine.keras --data=mine.npz --switch=0.5+0.5 --device=0 \
        --target=build/slice.tflite

The model is that of `examples.train_on_own_images`, or the `model.keras` of a run folder. Some training images set the
ranges of the int8 activations.
"""

import paradis_tf  # noqa: F401, I001  before TensorFlow

from pathlib import Path

import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

from export.conversion.job import SliceFile
from export.conversion.slices import convert_slice
from paradis_tf.builders.static import extract
from paradis_tf.records.workdir import load_model
from paradis_tf.switches import Switch

_MODEL = flags.DEFINE_string("model", None, "A .keras file of a supernet.", required=True)
_DATA = flags.DEFINE_string("data", None, "An .npz file with x_train and x_test.", required=True)
_SWITCH = flags.DEFINE_string("switch", "0.5+0.5", "The switch.")
_DEVICE = flags.DEFINE_integer("device", 0, "Which of its slices.")
_TARGET = flags.DEFINE_string("target", "slice.tflite", "The file to write.")


def main(_: list[str]) -> None:
    net = load_model(Path(_MODEL.value).expanduser())
    switch = Switch.parse(_SWITCH.value, net.grid)
    with np.load(Path(_DATA.value).expanduser()) as data:
        calibration, image = data["x_train"][:256], data["x_test"][:1]
    slice_model = extract(net, switch.cut(_DEVICE.value))  # a Keras model of stock layers
    written = convert_slice(net, SliceFile(switch, _DEVICE.value, "int8"), calibration)[0]
    target = Path(_TARGET.value).expanduser()
    target.write_bytes(written)

    interpreter = Interpreter(model_path=str(target))
    runner = interpreter.get_signature_runner()
    scale, zero_point = runner.get_output_details()["logits"]["quantization"]
    partial = scale * (runner(image=image)["logits"].astype(np.float64) - zero_point)
    print("Keras, float: ", np.round(slice_model(image.astype(np.float32)).numpy()[0], 2))
    print("TFLite, int8: ", np.round(partial[0], 2))
    print(f"slice {_DEVICE.value} of {switch}: {slice_model.count_params():,} parameters, {len(written):,} bytes")


if __name__ == "__main__":
    app.run(main)
