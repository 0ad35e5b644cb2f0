"""What tests of several folders share: a tiny architecture and supernets with weights that are not at rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import paradis_tf  # noqa: E402, F401, I001  before TensorFlow, as in the programs: it sets what TensorFlow is imported with
import keras  # noqa: E402  the log level is set first
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from paradis_tf import models  # noqa: E402
from paradis_tf.builders.architecture import FUSION, Architecture, Outputs, Reading  # noqa: E402
from paradis_tf.operations import BatchNorm, Classifier, Conv, DepthwiseConv, GlobalAveragePool, Normalize, Relu6  # noqa: E402
from paradis_tf.supernet import Supernet  # noqa: E402
from paradis_tf.training.step import TrainableSupernet  # noqa: E402

SWITCHES = ("1.0", "0.5+0.5", "0.5+0.25+0.25", "4x0.25")


@dataclass(frozen=True)
class TinyNet:
    """Every operation once, small enough to trace in seconds."""

    name: ClassVar[str] = "tiny"
    task: ClassVar[str] = "classification"
    image_shape: tuple[int, int, int] = (8, 8, 3)
    classes: int = 5

    def __call__(self, net: Reading, image: Any) -> Outputs:
        x = net(Conv(8, 3, 2, slice_inputs=False), net(Normalize(), image, name="normalize"), name="stem_conv")
        x = net(Relu6(), net(BatchNorm(), x, name="stem_norm"), name="stem_relu")
        x = net(DepthwiseConv(3), x, name="depthwise_conv")
        x = net(Relu6(), net(BatchNorm(), x, name="depthwise_norm"), name="depthwise_relu")
        x = net(Conv(16, 1), x, name="pointwise_conv")
        x = net(Relu6(), net(BatchNorm(), x, name="pointwise_norm"), name="pointwise_relu")
        features = net(GlobalAveragePool(), x, name="features")
        logits = net(Classifier(self.classes), features, name="logits")
        return Outputs(*net.boundary(FUSION, logits, features))

    def get_config(self) -> dict[str, Any]:
        return {"image_shape": list(self.image_shape), "classes": self.classes}


def randomize(model: Supernet, seed: int = 7) -> Supernet:
    """Gives every weight, statistics and biases too, a value that shows in the outputs."""
    rng = np.random.default_rng(seed)
    for layer in model.shared_layers:
        for weight in layer.weights:
            if "variance" in weight.name:
                value = rng.uniform(0.5, 1.5, weight.shape)
            elif "gamma" in weight.name:
                value = rng.uniform(0.7, 1.3, weight.shape)
            else:
                fan_in = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 10
                value = rng.normal(0, np.sqrt(2 / fan_in), weight.shape)
            weight.assign(value.astype(np.float32))
    return model


def narrow_resnet(depth: int, image_shape: tuple[int, int, int], classes: int, form: str = "32") -> Architecture:
    """A ResNet whose narrowest layers have one channel to a quarter."""
    return models.create(
        "resnet", image_shape=image_shape, classes=classes, width_multiplier=1 / 16, form=form, depth=depth
    )


# For `parametrize("tiny_net", TINY_NETS, indirect=True)`: one network of each kind of layer and connection.
TINY_NETS = {
    "plain": TinyNet(),
    "basic blocks": narrow_resnet(10, (8, 8, 3), 5),
    "bottlenecks": narrow_resnet(26, (8, 8, 3), 5),
}


@pytest.fixture
def tiny_net(request: pytest.FixtureRequest) -> Callable[..., Supernet]:
    """Makes a tiny supernet of some switches, its weights randomized; of `TinyNet` if not parametrized."""
    architecture = TINY_NETS[getattr(request, "param", "plain")]

    def make(switches: tuple[str, ...] = SWITCHES, **options: Any) -> Supernet:
        keras.utils.set_random_seed(3)
        return randomize(TrainableSupernet(architecture, switches, **options))

    return make


@pytest.fixture(scope="session")
def mobilenet() -> Supernet:
    """A narrow MobileNet v1 of the four switches, its weights randomized; not to be changed."""
    architecture = {
        "name": "mobilenet_v1",
        "image_shape": (32, 32, 3),
        "classes": 10,
        "width_multiplier": 0.25,
        "form": "32",
    }
    return randomize(Supernet(architecture, SWITCHES))


@pytest.fixture(scope="session")
def basic_resnet() -> Supernet:
    """A narrow ResNet of basic blocks, 32x32 form, of the four switches; not to be changed."""
    return randomize(Supernet(narrow_resnet(10, (32, 32, 3), 10), SWITCHES))


@pytest.fixture(scope="session")
def bottleneck_resnet() -> Supernet:
    """A narrow ResNet of bottlenecks, 224x224 form, of the four switches; not to be changed."""
    return randomize(Supernet(narrow_resnet(26, (32, 32, 3), 10, "224"), SWITCHES))


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    """16 random images of the tiny network's shape, and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8), rng.integers(0, 5, 16)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny bundle of the runner; see tests/fusion/make_bundle.py. Not to be changed."""
    folder = tmp_path_factory.mktemp("tiny")
    maker = Path(__file__).parent / "fusion" / "make_bundle.py"
    made = subprocess.run([sys.executable, maker, folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder


def pytest_make_parametrize_id(val: object) -> str | None:
    """Long bytes are no name, and packed ones hold the time: processes that share the tests have to agree on names."""
    if isinstance(val, bytes) and (len(val) > 40 or not val.isascii()):
        return f"{len(val)} bytes"
    return None
