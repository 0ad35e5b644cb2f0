from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from export.compression.compress import compress, rebuild
from export.compression.folded import Weights
from export.compression.measurement import measure
from export.compression.settings import Compression
from export.conversion.slices import int8_converter
from export.tflite import graph, operators
from fusion.base.program import UserError
from paradis_tf import models
from paradis_tf.builders.cost import cut_cost
from paradis_tf.operations.pixels import PIXEL_SCALE
from paradis_tf.supernet import Supernet
from tests.conftest import TinyNet, narrow_resnet, randomize
from tests.export.compression.conftest import converted, normalized, quietly

_TRAINED = Compression(quantization_aware=True, sparsity=0.5, steps=12, batch_size=16)
_SHRUNK = Compression(sparsity=0.5, clusters=6, steps=12, batch_size=16)


@pytest.fixture(scope="module")
def model() -> Supernet:
    return randomize(Supernet(TinyNet(), ("0.5+0.5",)))


@pytest.fixture(scope="module")
def weights(model: Supernet, images: np.ndarray) -> list[Weights]:
    return compress(model, model.switches[0], _TRAINED, images)


@pytest.fixture(scope="module")
def files(model: Supernet, weights: list[Weights]) -> list[bytes]:
    switch = model.switches[0]
    return [converted(rebuild(model, switch, device, _TRAINED, weights[device])) for device in range(2)]


def _run(data: bytes, images: np.ndarray) -> np.ndarray:
    with pytest.warns(UserWarning, match="Interpreter is deprecated"):
        interpreter = tf.lite.Interpreter(model_content=data)
    run, output = interpreter.get_signature_runner(), interpreter.get_output_details()[0]
    scale, zero = output["quantization"]
    return np.stack([(run(image=image[np.newaxis])["logits"][0].astype(np.float32) - zero) * scale for image in images])


def _step(data: bytes) -> float:
    scale = graph.read(data).outputs[0].scale
    assert scale is not None
    return scale


def test_zeros_are_in_the_file(files: list[bytes]) -> None:
    assert all(0.5 <= measure(data).sparsity < 0.7 for data in files)


def test_the_file_is_what_the_exporter_demands(model: Supernet, files: list[bytes]) -> None:
    for device, data in enumerate(files):
        found = graph.read(data)
        assert operators.faults(found) == []
        assert found.madds == cut_cost(model.architecture, model.switches[0].cut(device)).madds
        (image,), (logits,) = found.inputs, found.outputs
        assert (image.name, image.dtype, image.shape) == ("image", "uint8", (1, 8, 8, 3))
        assert (image.scale, image.zero_point) == (PIXEL_SCALE, 128)
        assert (logits.name, logits.dtype, logits.shape) == ("logits", "int8", (1, 5))


def test_the_file_answers_as_the_graph_that_was_trained(
    model: Supernet, weights: list[Weights], files: list[bytes], images: np.ndarray
) -> None:
    for device, data in enumerate(files):
        trained = rebuild(model, model.switches[0], device, _TRAINED, weights[device])(normalized(images)).numpy()
        found = _run(data, images)
        assert np.abs(found - trained).max() < 1.01 * _step(data)


def test_weights_travel_as_arrays(model: Supernet, weights: list[Weights], files: list[bytes], tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", **{name.replace("/", "|"): value for name, value in weights[0].items()})
    with np.load(tmp_path / "0.npz", allow_pickle=False) as stored:
        read = {name.replace("|", "/"): stored[name] for name in stored}
    assert converted(rebuild(model, model.switches[0], 0, _TRAINED, read)) == files[0]


def test_the_same_arguments_give_the_same_weights(images: np.ndarray) -> None:
    model = randomize(Supernet(TinyNet(), ("1.0",)))
    asked = Compression(quantization_aware=True, sparsity=0.5, steps=4, batch_size=16)
    one, other = (compress(model, model.switches[0], asked, images)[0] for _ in range(2))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_without_quantization_aware_training_the_weights_wait_for_post_training_quantization(
    model: Supernet, images: np.ndarray
) -> None:
    switch, asked = model.switches[0], _SHRUNK
    weights = compress(model, switch, asked, images)
    for device in range(2):
        slice_model = rebuild(model, switch, device, asked, weights[device])
        assert not any("quant" in layer.name for layer in slice_model.layers)
        data = _post_training(slice_model, images)
        found = measure(data)
        assert 0.5 <= found.sparsity < 0.7
        assert 2 <= found.clusters <= 6
        np.testing.assert_allclose(_run(data, images), slice_model(normalized(images)).numpy(), atol=4 * _step(data))


def test_nothing_asked_gives_the_network_itself(model: Supernet, images: np.ndarray) -> None:
    switch, asked = model.switches[0], Compression()
    weights = compress(model, switch, asked, images)
    for device in range(2):
        found = rebuild(model, switch, device, asked, weights[device])(normalized(images)).numpy()
        np.testing.assert_allclose(found, model.call_cut(images, switch.cut(device)).prediction.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "text"),
    [
        pytest.param(narrow_resnet(10, (8, 8, 3), 5, "224"), "1.0", marks=pytest.mark.slow),
        (models.create("wdsr", image_shape=(8, 8, 3), scale=2, blocks=1, filters=8), "0.5+0.5"),
    ],
    ids=["resnet", "wdsr"],
)
def test_other_families(architecture: Any, text: str, images: np.ndarray) -> None:
    model = randomize(Supernet(architecture, (text,)))
    switch, asked = model.switches[0], Compression(quantization_aware=True, steps=4, batch_size=16)
    told: list[str] = []
    weights = compress(model, switch, asked, images, told.append)
    wanted = [model.call_cut(images[:8], switch.cut(device)).prediction.numpy() for device in range(switch.devices)]
    for device in range(switch.devices):
        data = converted(rebuild(model, switch, device, asked, weights[device]))
        assert operators.faults(graph.read(data)) == []
        error = np.sqrt(np.mean((_run(data, images[:8]) - wanted[device]) ** 2))
        assert error < 0.1 * np.std(wanted[device])
    assert told[-1].startswith(f"switch '{text}', quantization: step 4/4, loss ")


def test_images_of_another_shape_are_refused(model: Supernet) -> None:
    for images in (np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8), np.zeros((4, 8, 8, 3))):
        with pytest.raises(UserError, match=r"takes uint8 images \(n, height, width, 3\), n at least 1, and not"):
            compress(model, model.switches[0], Compression(), images)


def _post_training(slice_model: Any, images: np.ndarray) -> bytes:
    """Post-training quantization of a slice model, as the exporter does it."""
    _, height, width, channels = images.shape
    return quietly(int8_converter(slice_model, images, (height, width, channels), "logits").convert)
