"""The checks that every operation passes; each operation's own numbers are held against NumPy in its own tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import tf_keras

from paradis_tf.builders.architecture import FUSION, Outputs, Reading
from paradis_tf.builders.cost import cut_cost
from paradis_tf.builders.static import extract
from paradis_tf.builders.steps import extract_step
from paradis_tf.operations import Classifier, Conv, GlobalAveragePool, Normalize, WeightNormConv
from paradis_tf.operations.operation import Operation
from paradis_tf.supernet import Supernet
from paradis_tf.training.step import TrainableSupernet
from tests.conftest import SWITCHES, randomize

IMAGES = np.random.default_rng(8).integers(0, 256, (4, 9, 8, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Around:
    """A classifier of 9x8 pixels around one operation, which gets as many sliced tensors of 16 channels as it takes."""

    name: ClassVar[str] = "around"
    task: ClassVar[str] = "classification"
    operation: Operation
    inputs: int = 1
    image_shape: tuple[int, int, int] = (9, 8, 3)
    classes: int = 5

    def __call__(self, net: Reading, image: Any) -> Outputs:
        x = net(Normalize(), image, name="normalize")
        stems = [net(Conv(16, 3, slice_inputs=False), x, name=f"stem_{index}") for index in range(self.inputs)]
        y = net(self.operation, *stems, name="operation")
        features = net(GlobalAveragePool(), net(Conv(16, 1), y, name="after"), name="features")
        logits = net(Classifier(self.classes), features, name="logits")
        return Outputs(*net.boundary(FUSION, logits, features))

    def get_config(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "classes": self.classes}


def check_operation(operation: Operation, inputs: int = 1, normalization: str = "private") -> TrainableSupernet:
    """Every cut of a network around the operation, of switches and of levels, answers as its static form in both Keras
    versions, and costs what that has; the parameters of the others' blocks play no part; steps lead to the same levels.
    Returns the network of switches, its weights random."""
    around = Around(operation, inputs)
    model = randomize(TrainableSupernet(around, SWITCHES, normalization=normalization))
    levels = randomize(Supernet(around, levels=4, connectivity="triangular", normalization=normalization))
    # Gains of weight normalization are part of a stock layer's kernel.
    for network in (model, levels):
        check_static(network, IMAGES, parameters=not isinstance(operation, WeightNormConv))
    check_steps(levels, IMAGES)
    for layer in model.shared_layers:
        if layer.name == "operation" and layer.weights:
            again = type(layer).from_config(layer.get_config())
            again.build((None, None, None, 16))
            assert [weight.shape for weight in again.weights] == [weight.shape for weight in layer.weights]
    return model


def check_static(model: Supernet, images: np.ndarray, parameters: bool = True) -> None:
    """Each device of each path answers as its static model of stock layers, whose parameters its cost counts, but for
    those that its mask makes 0."""
    pixels = images.astype(np.float32)
    for path in model.paths:
        for cut in path.cuts:
            partial = model.call_cut(images, cut)
            cost = cut_cost(model.architecture, cut)
            for module in (keras, tf_keras):
                static = extract(model, cut, module)
                np.testing.assert_allclose(static(pixels), partial.prediction, rtol=1e-4, atol=1e-4)
                assert {type(layer).__module__.split(".")[0] for layer in static.layers} <= {"keras", "tf_keras"}
                count = sum(np.count_nonzero(weight) for weight in static.trainable_weights)
                assert cost.parameters == count or not parameters, (str(cut), module.__name__)
            assert np.abs(partial.prediction).max() > 1e-3


def check_steps(model: Supernet, images: np.ndarray) -> None:
    """The steps of a triangular network, one after the other, answer as its levels do."""
    made: dict[str, Any] = {}
    for level, cut in zip(model.paths, model.steps, strict=True):
        step = extract_step(model, cut)
        made = step.model([keras.ops.cast(images, "float32"), *(made[name] for name in step.handed)])
        expected = model(images, path=level)["prediction"].numpy()
        np.testing.assert_allclose(made["prediction"], expected, atol=1e-5 * max(1, np.abs(expected).max()))
        assert np.abs(expected).max() > 1e-3
