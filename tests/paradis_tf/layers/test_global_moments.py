"""Two replicas of half a batch learn what one replica of the whole batch does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# A process of its own: the devices of a process cannot be divided once TensorFlow runs.
REPLICAS = """
import sys
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from paradis_tf.operations import SwitchableBatchNormalization
from paradis_tf.switches import parse_switches

data = np.load(sys.argv[1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    cuts = [cut for switch in parse_switches(["1.0", "0.5+0.5"]) for cut in switch.cuts]
    layer = SwitchableBatchNormalization(4, cuts)
    layer.build()
    layer.set_weights([data[f"weight_{index}"] for index in range(4)])

@tf.function
def step(x, y):
    def replica(x, y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, cut=cuts[2], training=True)
            loss = tf.reduce_sum(y * outputs**3)
        return outputs, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    return strategy.run(replica, (x, y))


border = int(sys.argv[3])
parts = lambda value: strategy.experimental_distribute_values_from_function(
    lambda context: (value[:border], value[border:])[context.replica_id_in_sync_group]
)
outputs, by_x, by_gamma, by_beta = step(parts(data["x"]), parts(data["y"]))
joined = lambda value: np.concatenate([part.numpy() for part in strategy.experimental_local_results(value)])
added = lambda value: sum(part.numpy() for part in strategy.experimental_local_results(value))
np.savez(
    sys.argv[2], outputs=joined(outputs), by_x=joined(by_x), by_gamma=added(by_gamma), by_beta=added(by_beta),
    mean=layer.moving_mean.numpy(), variance=layer.moving_variance.numpy(),
    copies=np.stack([v.numpy() for v in strategy.experimental_local_results(layer.moving_variance.value)]),
)
"""


def on_two_replicas(folder: Path, data: dict[str, np.ndarray], border: int) -> dict[str, np.ndarray]:
    np.savez(folder / "data.npz", **data)
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS, folder / "data.npz", folder / "found.npz", str(border)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "found.npz"))


def some_data(mean: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    # The halves differ, as the batches of two replicas do.
    x = rng.normal(mean, 2, (6, 3, 5, 2)) + np.arange(6)[:, None, None, None] / 2
    weights = {f"weight_{index}": rng.uniform(0.5, 2, 8).astype(np.float32) for index in range(4)}
    return {"x": x.astype(np.float32), "y": rng.normal(0, 1, x.shape).astype(np.float32), **weights}


def on_one_batch(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Training of the device's segment 6 to 8, by NumPy in double precision; derivatives written out by hand."""
    x, y = data["x"].astype(np.float64), data["y"].astype(np.float64)
    gamma, beta, mean, variance = (data[f"weight_{index}"].astype(np.float64) for index in range(4))
    axes, count, mine = (0, 1, 2), x.size // 2, slice(6, 8)
    deviation = np.sqrt(x.var(axis=axes) + 1.001e-5)
    normal = (x - x.mean(axis=axes)) / deviation
    outputs = normal * gamma[mine] + beta[mine]
    by_outputs = 3 * y * outputs**2
    by_normal = by_outputs * gamma[mine]
    by_x = (by_normal - by_normal.mean(axis=axes) - normal * (by_normal * normal).mean(axis=axes)) / deviation
    by_gamma, by_beta = np.zeros(8), np.zeros(8)
    by_gamma[mine], by_beta[mine] = (by_outputs * normal).sum(axis=axes), by_outputs.sum(axis=axes)
    mean[mine] = 0.9 * mean[mine] + 0.1 * x.mean(axis=axes)
    variance[mine] = 0.9 * variance[mine] + 0.1 * x.var(axis=axes) * count / (count - 1)
    return dict(outputs=outputs, by_x=by_x, by_gamma=by_gamma, by_beta=by_beta, mean=mean, variance=variance)


# Far from 0 the square of the mean is a million times the variance, and float32 holds 7 digits.
@pytest.mark.parametrize(("mean", "border", "tolerance"), [(1.0, 3, 2e-4), (3000.0, 2, 2e-2)], ids=["halves", "uneven"])
def test_two_replicas_equal_one(tmp_path: Path, mean: float, border: int, tolerance: float) -> None:
    data = some_data(mean)
    found = on_two_replicas(tmp_path, data, border)
    for name, wanted in on_one_batch(data).items():
        np.testing.assert_allclose(
            found[name], wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(), err_msg=name
        )
    np.testing.assert_array_equal(found["copies"][0], found["copies"][1])
    np.testing.assert_allclose(found["variance"], on_one_batch(data)["variance"], rtol=1e-4)
