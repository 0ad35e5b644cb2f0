"""Trains one network for one, two and four devices, without configs and run folders: the library alone.

    python -m examples.train_on_own_images --data=mine.npz --model=build/mine.keras --epochs=30

The file holds x_train, y_train, x_test and y_test: uint8 RGB images (n, height, width, 3), integer labels from 0.
"""

import paradis_tf  # noqa: F401, I001  before keras and tensorflow: it sets what TensorFlow starts with

from pathlib import Path

import keras
import numpy as np
from absl import app, flags

from paradis_tf.methods import Paradis
from paradis_tf.training.step import TrainableSupernet

_DATA = flags.DEFINE_string("data", None, "The .npz file.", required=True)
_MODEL = flags.DEFINE_string("model", None, "The .keras file to write.", required=True)
_SWITCHES = flags.DEFINE_list("switches", "1.0,0.5+0.5,4x0.25", "The switches to train.")
_WIDTH = flags.DEFINE_float("width", 0.5, "Multiplies the channels of every layer.")
_EPOCHS = flags.DEFINE_integer("epochs", 30, "How often each image is learned from.")
_BATCH = 64


def main(_: list[str]) -> None:
    with np.load(Path(_DATA.value).expanduser()) as data:
        x_train, y_train, x_test, y_test = (data[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    architecture = {
        "name": "mobilenet_v1",
        "image_shape": x_train.shape[1:],
        "classes": int(y_train.max()) + 1,
        "width_multiplier": _WIDTH.value,
        "form": "32",  # for small images; "224" for large ones
    }
    net = TrainableSupernet(architecture, _SWITCHES.value)
    steps = _EPOCHS.value * -(-len(x_train) // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(0.1, steps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    net.compile(optimizer, method=Paradis(), weight_decay=1e-4)
    net.fit(x_train, y_train, batch_size=_BATCH, epochs=_EPOCHS.value, verbose=2)
    finished = net.finished()  # weights and call alone
    for switch in finished.switches:
        predicted = [
            np.argmax(finished(x_test[i : i + _BATCH], path=switch)["prediction"], axis=-1)
            for i in range(0, len(x_test), _BATCH)
        ]
        print(f"{str(switch):>15}  {switch.devices} devices  {np.mean(np.concatenate(predicted) == y_test):.1%}")
    finished.save(Path(_MODEL.value).expanduser())


if __name__ == "__main__":
    app.run(main)
