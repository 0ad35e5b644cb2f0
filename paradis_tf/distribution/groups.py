"""The replicas that train together, in this process and in others."""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.distribution import strategy as strategies
from paradis_tf.distribution.peers import PeerWatch, meet
from paradis_tf.distribution.strategy import TrainingCluster
from paradis_tf.supernet import Supernet

# Longest time that TensorFlow may take to connect workers that are all there, in seconds.
_CONNECTION_S = 120


class Group:
    """A `tf.distribute` strategy, and this process's place among the workers.

    Attributes:
      strategy: the strategy; TensorFlow's default one where a single device trains.
      worker: which worker this process is, from 0. Worker 0 is the chief, which alone reads and writes the run folder.
      workers: how many processes train together.
      replicas: how many devices train together, in all processes.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: TrainingCluster | None = None) -> None:
        self.strategy = strategy
        self.worker = cluster.index if cluster else 0
        self.workers = len(cluster.addresses) if cluster else 1
        self.replicas = strategy.num_replicas_in_sync
        self._local = self.replicas // self.workers
        self._exchange = tf.function(self._of_first_replica, autograph=False)

    @property
    def chief(self) -> bool:
        return self.worker == 0

    @property
    def local_replicas(self) -> int:
        """How many devices train in this process."""
        return self._local

    def iterator(self, batches: tf.data.Dataset) -> Any:
        """Iterates over this worker's batches, each split evenly over its devices.

        Nothing is read beyond the last batch, and whoever asks for one more gets an error.
        """
        count = self._local
        if count > 1:

            def split(*tensors: tf.Tensor) -> tf.data.Dataset:
                rows = tf.shape(tensors[0])[0]
                cuts = [rows * place // count for place in range(count + 1)]
                even = tensors[0].shape[0]
                pieces = None
                for first, last in zip(cuts, cuts[1:], strict=False):
                    piece = tuple(tensor[first:last] for tensor in tensors)
                    if even:
                        piece = tuple(tf.ensure_shape(p, (even // count, *p.shape[1:])) for p in piece)
                    dataset = tf.data.Dataset.from_tensors(piece)
                    pieces = dataset if pieces is None else pieces.concatenate(dataset)
                return pieces

            batches = batches.flat_map(split)
        # Of a set that may end, the strategy would ask all workers before each step whether all have data left.
        endless = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        return iter(self.strategy.distribute_datasets_from_function(lambda context: endless))

    def from_chief(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chief's values, on every worker; all call it, with values of the same shapes and types."""
        if self.workers == 1:
            return list(values)
        arrays = [np.asarray(value) for value in values]
        data = b"".join(array.tobytes() for array in arrays)
        # As integers, so that the sum with the others' zeros keeps every bit.
        numbers = np.frombuffer(data + bytes(-len(data) % 8), np.int64)
        exchanged = self._exchange(tf.constant(numbers))
        received = self.strategy.experimental_local_results(exchanged)[0].numpy().tobytes()
        starts = np.cumsum([0, *(array.nbytes for array in arrays)])
        return [
            np.frombuffer(received, array.dtype, array.size, start).reshape(array.shape)
            for array, start in zip(arrays, starts[:-1], strict=True)
        ]

    def _of_first_replica(self, numbers: tf.Tensor) -> Any:
        def one_replica(numbers: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group, 0)
            return context.all_reduce("sum", tf.where(first, numbers, tf.zeros_like(numbers)))

        return self.strategy.run(one_replica, args=(numbers,))

    def share(self, model: Supernet) -> None:
        """Gives the model of every worker the chief's state."""
        if self.workers > 1:
            assign(model, self.from_chief(state(model)))

    def wait(self) -> None:
        """Returns when all workers have come here."""
        self.from_chief([np.zeros(1, np.int64)])


@contextmanager
def joined(name: str = "auto", devices: Sequence[str] = (), peer_timeout_s: float = 300.0) -> Iterator[Group]:
    """The group that this process trains in; the block's failures that come from a lost peer end the process.

    Args:
      name: one of `paradis_tf.distribution.strategy.STRATEGIES`.
      devices: what to train on under `mirrored`, as TensorFlow names devices, such as `GPU:0`; empty for all GPUs.
      peer_timeout_s: how long to wait for the other workers at the start, in seconds.

    Raises:
      UserError: a wrong TF_CONFIG, a strategy or devices that this machine does not have.
    """
    cluster = strategies.environment_cluster()
    name = strategies.choose(name, list(devices), cluster, len(tf.config.list_physical_devices("GPU")))
    if name != "single":
        # TensorFlow would report every exchange that it traces, and advise against tracing several functions.
        tf.get_logger().setLevel("ERROR")
    if name == "single":
        yield Group(tf.distribute.get_strategy())
    elif name == "mirrored":
        yield Group(_mirrored(devices))
    elif cluster is not None:
        keeper = "this one" if cluster.index == 0 else "worker 0"
        say(f"worker {cluster.index} of {len(cluster.addresses)}, counted from 0")
        say(f"{keeper} reports and keeps the run folder; waiting for the others ...")
        meet(cluster, peer_timeout_s)
        group = Group(_multi_worker(), cluster)
        watch = PeerWatch(cluster)
        try:
            yield group
            group.wait()
        except tf.errors.OpError as error:
            watch.end(error)
        watch.stop()


def _mirrored(devices: Sequence[str]) -> tf.distribute.Strategy:
    known = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    for device in devices:
        if device not in known:
            raise UserError(f"--devices names {device!r}, and this machine has {', '.join(known)}.")
    if not devices and not any(device.startswith("GPU") for device in known):
        raise UserError("--strategy=mirrored needs GPUs, and TensorFlow finds none on this machine; name --devices.")
    return tf.distribute.MirroredStrategy(list(devices) or None)


def _multi_worker() -> tf.distribute.Strategy:
    # A peer that dies between the meeting and this would be waited for in native code; no thread of Python's can end
    # that, but this one of C can.
    faulthandler.dump_traceback_later(_CONNECTION_S, exit=True)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    faulthandler.cancel_dump_traceback_later()
    return strategy


def check_batch(size: int, replicas: int) -> None:
    """Raises UserError unless batches of that size can be split evenly over so many replicas."""
    if size % replicas:
        raise UserError(
            f"batch_size is {size}, and {replicas} devices train together; it is a multiple of that number, as every "
            "device gets an equal share of each batch."
        )


def evaluation_size(images: int, most: int, replicas: int) -> int:
    """The largest batch, up to `most` images, that leaves every replica something of each batch, the last one too.

    Raises:
      UserError: fewer images than replicas.
    """
    for size in range(min(images, most), replicas - 1, -1):
        if images % size == 0 or images % size >= replicas:
            return size
    raise UserError(f"the validation part has {images} images for {replicas} devices; each takes one or more.")


def state(model: Supernet) -> list[np.ndarray]:
    """All that training goes on from: the weights, the optimizer's variables and averages."""
    return [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]


def fits(model: Supernet, other: Supernet) -> bool:
    """Whether `assign` can give a model what `state` gives of another."""
    # Not by name: Keras numbers the optimizers of a process, and a checkpoint keeps its own one's.
    if type(other.optimizer) is not type(model.optimizer):
        return False
    return [tuple(v.shape) for v in _variables(model)] == [tuple(v.shape) for v in _variables(other)]


def assign(model: Supernet, values: Sequence[np.ndarray]) -> None:
    """Puts what `state` gave of a model made and compiled alike into this one."""
    for variable, value in zip(_variables(model), values, strict=True):
        variable.assign(value)


def _variables(model: Supernet) -> list[keras.Variable]:
    return [*model.weights, *model.optimizer.variables]
