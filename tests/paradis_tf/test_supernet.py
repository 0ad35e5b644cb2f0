"""What the supernet is: slices of one weight set that never touch each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

from paradis_tf.cuts import SwitchError
from paradis_tf.methods import Individual, Paradis
from paradis_tf.methods.passes import Joint, Pass, Teacher
from paradis_tf.operations import SlicedConv2D, SlicedDense, SwitchableBatchNormalization
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch
from paradis_tf.training.step import TrainableSupernet

# The networks that `tiny_net` of tests/conftest.py makes.
TINY_NETS = ("plain", "basic blocks", "bottlenecks")
SPLITS = ("0.5+0.5", "0.5+0.25+0.25", "4x0.25")


def block_mask(layer: keras.Layer, switch: Switch) -> np.ndarray:
    """1 where input and output channel belong to the same device, 0 elsewhere."""
    shape = layer.kernel.shape
    mask = np.zeros(shape, np.float32)
    for part in switch.slices:
        ins = slice(int(part.start * shape[-2]), int(part.stop * shape[-2]))
        outs = slice(int(part.start * shape[-1]), int(part.stop * shape[-1]))
        mask[..., ins if layer.slice_inputs else slice(None), outs if layer.slice_outputs else slice(None)] = 1
    return mask


@pytest.mark.parametrize("tiny_net", TINY_NETS, indirect=True)
@pytest.mark.parametrize("text", SPLITS)
def test_a_distributed_switch_is_the_full_network_with_block_diagonal_kernels(
    tiny_net: Callable[..., Supernet], batch: tuple, text: str
) -> None:
    distributed, full = tiny_net((text,)), tiny_net(("1.0",))
    switch = distributed.switches[0]
    for mine, theirs in zip(full.shared_layers, distributed.shared_layers, strict=True):
        if isinstance(mine, SwitchableBatchNormalization):
            # One switch of full width: the segments of its devices lie in channel order.
            mine.set_weights(theirs.get_weights())
        else:
            mine.set_weights(theirs.get_weights())
            if isinstance(mine, SlicedConv2D):
                mine.kernel.assign(theirs.kernel.numpy() * block_mask(theirs, switch))
    expected, found = full(batch[0]), distributed(batch[0])
    np.testing.assert_allclose(found["features"], expected["features"], atol=1e-5)
    np.testing.assert_allclose(found["prediction"], expected["prediction"], atol=1e-5)
    # The mask is not idle: with all weights the answers differ.
    for mine, theirs in zip(full.shared_layers, distributed.shared_layers, strict=True):
        mine.set_weights(theirs.get_weights())
    assert np.abs(full(batch[0])["prediction"] - found["prediction"]).max() > 1e-2


@pytest.mark.parametrize("tiny_net", TINY_NETS, indirect=True)
@pytest.mark.parametrize("text", SPLITS)
def test_partial_logits_sum_to_the_classifier_on_concatenated_features(
    tiny_net: Callable[..., Supernet], batch: tuple, text: str
) -> None:
    model = tiny_net()
    switch = Switch.parse(text)
    parts = [model.call_cut(batch[0], switch.cut(device)) for device in range(switch.devices)]
    features = np.concatenate([part.features for part in parts], axis=1)
    classifier = model.shared_layers[-1]
    expected = features @ classifier.kernel.numpy() + classifier.bias.numpy()
    np.testing.assert_allclose(sum(part.prediction.numpy() for part in parts), expected, atol=1e-5)
    fused = model(batch[0], path=switch)
    np.testing.assert_allclose(fused["prediction"], expected, atol=1e-5)
    np.testing.assert_array_equal(fused["features"], features)


@pytest.mark.parametrize("tiny_net", TINY_NETS, indirect=True)
@pytest.mark.parametrize("text", SPLITS)
def test_blocks_between_devices_get_exactly_zero_gradient(
    tiny_net: Callable[..., Supernet], batch: tuple, text: str
) -> None:
    model = tiny_net()
    switch = Switch.parse(text)
    layers = [layer for layer in model.shared_layers if isinstance(layer, SlicedConv2D)]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(batch[0], path=switch, training=True)["prediction"] ** 2)
    gradients = tape.gradient(loss, [layer.kernel.value for layer in layers])
    for layer, found in zip(layers, gradients, strict=True):
        gradient = tf.convert_to_tensor(found).numpy()
        mask = block_mask(layer, switch)
        assert not gradient[mask == 0].any()
        assert gradient[mask == 1].any()


@pytest.mark.parametrize("tiny_net", TINY_NETS, indirect=True)
def test_a_device_is_blind_to_another_devices_weights(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net()
    switch = Switch.parse("0.5+0.25+0.25")
    before = [model.call_cut(batch[0], switch.cut(device)).features.numpy() for device in range(3)]
    for layer in model.shared_layers:
        if isinstance(layer, SlicedConv2D):
            # Device 1 owns [0.5, 0.75): change its outputs everywhere.
            count = layer.kernel.shape[-1]
            changed = layer.kernel.numpy()
            changed[..., count // 2 : count * 3 // 4] += 1
            layer.kernel.assign(changed)
    after = [model.call_cut(batch[0], switch.cut(device)).features.numpy() for device in range(3)]
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_array_equal(after[2], before[2])
    assert np.abs(after[1] - before[1]).max() > 1e-3


def test_the_teacher_learns_nothing_from_its_students(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    """With students' losses added, the gradient is the sum of each pass's own, teacher tensors held constant."""
    images, labels = batch
    model = tiny_net(("1.0", "4x0.25"))
    model.compile(keras.optimizers.SGD(1.0), method=Paradis(feature_weight=2.0, live_weight=0.0, final_live_weight=0.0))
    kernels = [layer.kernel for layer in model.shared_layers if isinstance(layer, SlicedConv2D | SlicedDense)]
    taught = {k: tf.constant(v.numpy()) for k, v in model(images, path=model.widest, training=True).items()}
    expected = [np.zeros(kernel.shape) for kernel in kernels]
    for one in model.entries:
        assert isinstance(one, Pass)
        with tf.GradientTape() as tape:
            loss = one.loss(
                model.task, labels, model(images, path=one.path, training=True), {Teacher(model.widest): taught}
            )
        for total, part in zip(expected, tape.gradient(loss, [k.value for k in kernels]), strict=True):
            total += tf.convert_to_tensor(part).numpy()
    before = [kernel.numpy() for kernel in kernels]
    model.train_on_batch(images, labels)
    for kernel, old, gradient in zip(kernels, before, expected, strict=True):
        np.testing.assert_allclose(old - kernel.numpy(), gradient, atol=2e-5)


def test_training_steps_follow_the_slices_and_the_decay(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("1.0",))
    layers = {layer.name: layer for layer in model.shared_layers}
    before = {name: layer.kernel.numpy() for name, layer in layers.items() if hasattr(layer, "kernel")}
    model.compile(keras.optimizers.SGD(0.5), method=Individual(), weight_decay=0.0)
    plain = [weight.numpy() for weight in model.weights]
    model.train_on_batch(*batch)
    moved = {name: layers[name].kernel.numpy() for name in before}
    for weight, value in zip(model.weights, plain, strict=True):
        weight.assign(value)
    model.compile(keras.optimizers.SGD(0.5), method=Individual(), weight_decay=0.1)
    model.train_on_batch(*batch)
    for name, old in before.items():
        decay = 0.0 if name == "depthwise_conv" else 0.5 * 0.1
        np.testing.assert_allclose(layers[name].kernel.numpy(), moved[name] - decay * old, atol=1e-5)


def test_one_training_step_is_traced_once(batch: tuple, tiny_net: Callable[..., Supernet]) -> None:
    traces = []

    class Counting(TrainableSupernet):
        def train_step(self, data: tuple, entries: Sequence[Pass | Joint] = ()) -> dict:
            traces.append(1)
            return super().train_step(data)

    model = Counting(tiny_net().architecture, ("1.0", "0.5+0.5", "4x0.25"))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), method=Paradis())
    model.fit(*batch, batch_size=4, epochs=3, verbose=0)
    assert len(traces) == 1


def test_fit_reports_each_switch_and_learns(batch: tuple, tiny_net: Callable[..., Supernet]) -> None:
    model = tiny_net()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), method=Paradis(live_weight=0.0, final_live_weight=0.0))
    seen: list[str] = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.extend(logs))
    history = model.fit(*batch, batch_size=16, epochs=40, verbose=0, callbacks=[watch], validation_data=batch).history
    names = [f"{kind}/{switch}" for kind in ("loss", "accuracy") for switch in model.switches]
    assert set(seen) == {*names, "loss", *(f"val_{name}" for name in [*names, "loss"])}
    for switch in model.switches:
        assert history[f"loss/{switch}"][-1] < 0.9 * history[f"loss/{switch}"][0]
    assert model.predict(batch[0], verbose=0)["prediction"].shape == (16, 5)
    total = sum(history[f"loss/{switch}"][0] for switch in model.switches)
    assert history["loss"][0] == pytest.approx(total, rel=1e-5)


def test_evaluate_measures_hard_labels_over_unequal_batches(batch: tuple, tiny_net: Callable[..., Supernet]) -> None:
    images, labels = batch
    model = tiny_net(("1.0", "0.5+0.5"))
    model.compile("sgd", method=Paradis())
    found = model.evaluate(images, labels, batch_size=5, verbose=0, return_dict=True)
    for switch in model.switches:
        logits = model(images, path=switch)["prediction"].numpy().astype(np.float64)
        picked = logits[np.arange(16), labels]
        loss = (np.log(np.exp(logits).sum(axis=1)) - picked).mean()
        assert found[f"loss/{switch}"] == pytest.approx(loss, rel=1e-4)
        assert found[f"accuracy/{switch}"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


def test_a_switch_may_be_text_and_a_summary_printed(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net()
    lines: list[str] = []
    model.summary(print_fn=lambda text, line_break=True: lines.append(text))
    assert "stem_conv" in "".join(lines)
    expected = model(batch[0], path=Switch.parse("0.5+0.5"))["prediction"]
    np.testing.assert_array_equal(model(batch[0], path="2x0.5")["prediction"], expected)


def test_the_widest_switch_is_found_wherever_it_is_listed(tiny_net: Callable[..., Supernet]) -> None:
    assert str(tiny_net(("4x0.25", "0.5", "1.0", "0.5+0.5")).widest) == "1.0"
    assert str(tiny_net(("4x0.25", "0.5+0.5")).widest) == "0.5+0.5"


def test_what_is_not_in_the_network_is_refused(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("1.0", "0.5+0.5"))
    with pytest.raises(SwitchError, match=r"'4x0.25' is not one of this network's: 1.0, 0.5\+0.5"):
        model(batch[0], path=Switch.parse("4x0.25"))
    with pytest.raises(SwitchError, match="device 2 is not in switch '0.5"):
        model(batch[0], path="0.5+0.5", devices=(2,))
    with pytest.raises(SwitchError, match=r"devices are \(0, 0\); each answers once"):
        model(batch[0], path="0.5+0.5", devices=(0, 0))
    with pytest.raises(SwitchError, match="'0.5\\+0.5' is no cut; legal: one of a path"):
        model.call_cut(batch[0], "0.5+0.5")  # type: ignore[arg-type]
    with pytest.raises(SwitchError, match="device 0 of switch '4x0.25' is not one of this network's"):
        model.call_cut(batch[0], Switch.parse("4x0.25").cut(0))
    with pytest.raises(SwitchError, match="layer 'stem_conv' has 8 channels.*multiple of 16"):
        Supernet(model.architecture, ["0.0625"], grid=16)
    with pytest.raises(ValueError, match="method"):
        model.compile("sgd")
    model.compile("sgd", method=Paradis())
    with pytest.raises(ValueError, match="weights"):
        model.fit(*batch, sample_weight=np.ones(16), verbose=0)


def test_a_saved_network_answers_the_same_in_a_fresh_process(mobilenet: Supernet, tmp_path) -> None:
    images = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = np.stack([mobilenet(images, path=switch)["prediction"] for switch in mobilenet.switches])
    assert np.abs(expected[0] - expected[3]).max() > 1e-2
    mobilenet.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    program = """
import sys, keras, numpy as np
import paradis_tf.supernet
folder = sys.argv[1]
model = keras.models.load_model(folder + "/model.keras")
images = np.load(folder + "/images.npy")
np.save(folder + "/found.npy", np.stack([model(images, path=s)["prediction"] for s in model.switches]))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=300, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)


def test_a_compiled_network_is_saved_with_its_method_and_optimizer(
    batch: tuple, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = {"name": "mobilenet_v1", "image_shape": (8, 8, 3), "classes": 5, "width_multiplier": 0.125}
    model = TrainableSupernet(architecture, ("1.0", "0.5+0.5"))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), method=Paradis(feature_weight=0.5), weight_decay=1e-3)
    model.optimizer.iterations.assign(17)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method.feature_weight == 0.5
    assert loaded.weight_decay == 1e-3
    assert int(loaded.optimizer.iterations) == 17
    assert loaded.entries == model.entries
    kept = loaded.finished()
    kept.save(tmp_path / "finished.keras")
    assert type(keras.models.load_model(tmp_path / "finished.keras")) is Supernet


def test_a_shared_affine_is_saved_and_has_another_id(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    private, shared = (tiny_net(normalization=form) for form in ("private", "shared_affine"))
    copy = Supernet.from_config(shared.get_config() | {"architecture": shared.architecture})
    assert copy.normalization == "shared_affine"
    assert [w.shape for w in copy.weights] == [w.shape for w in shared.weights]
    assert private.model_id() != shared.model_id()
    assert copy.trainable_variables[1].shape == (8,)
    config = private.get_config() | {"architecture": private.architecture}
    del config["normalization"]
    assert Supernet.from_config(config).normalization == "private"
    with pytest.raises(ValueError, match="normalization is 'shared'; it is 'private' or 'shared_affine'"):
        tiny_net(normalization="shared")


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    program = """
import sys
sys.path.insert(0, "tests")
import keras, numpy as np, tensorflow as tf
from conftest import TinyNet
from paradis_tf.data import pipeline
from paradis_tf.data.datasets import Part
from paradis_tf.methods import Paradis
from paradis_tf.training.step import TrainableSupernet

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
rng = np.random.default_rng(0)
part = Part(rng.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8), rng.integers(0, 5, 32))
ids = []
for _ in range(2):
    keras.utils.set_random_seed(1)
    model = TrainableSupernet(TinyNet(), ("0.5+0.5",))
    ids.append(model.model_id())
    model.compile(keras.optimizers.SGD(0.1), method=Paradis(), average_decay=0.9)
    batches = pipeline.training_batches(part, 8, seed=1, first_epoch=0, epochs=2, flip=True, crop_padding=1)
    model.fit(batches, epochs=2, steps_per_epoch=4, verbose=0)
    ids.append(model.finished().model_id())
start, end, same_start, same_end = ids
assert (start, end) == (same_start, same_end), ids
assert start != end
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_devices_that_answer_are_summed(tiny_net: Callable[..., Supernet], batch: tuple) -> None:
    model = tiny_net(("0.5+0.25+0.25",))
    switch = model.switches[0]
    parts = [model.call_cut(batch[0], switch.cut(device)) for device in range(3)]
    found = model(batch[0], devices=(0, 2))
    np.testing.assert_allclose(found["prediction"], parts[0].prediction + parts[2].prediction, atol=1e-6)
    np.testing.assert_array_equal(found["features"][:, :8], parts[0].features)
    np.testing.assert_array_equal(found["features"][:, 8:], parts[2].features)
    np.testing.assert_array_equal(model.fuse(batch[0], parts)["prediction"], model(batch[0])["prediction"])
    with pytest.raises(SwitchError, match="device 3 is not in switch"):
        model(batch[0], devices=(0, 3))
