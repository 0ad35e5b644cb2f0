"""The training step of a supernet: a loop over the passes of a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from fusion.base.program import UserError
from paradis_tf import tasks
from paradis_tf.cuts import Path
from paradis_tf.methods.passes import Draw, Entry, Joint, Method, Pass
from paradis_tf.supernet import Supernet
from paradis_tf.training.divergence import FirstNonFinite
from paradis_tf.training.gradients import combine
from paradis_tf.training.moment import Moment
from paradis_tf.training.running import Taught, run_together


@keras.saving.register_keras_serializable(package="paradis_tf")
class TrainableSupernet(Supernet):
    """A supernet with its losses, its step, and the average of its weights.

    `compile` takes a `Method`; `fit` then makes one optimizer step per batch from the gradients of all of the
    method's passes, each under a tape of its own or several under one, and reports `loss` (the sum), and `loss/<path>`
    and `<metric>/<path>`, the metric being the task's. `evaluate` reports the same on the true targets, on the average
    of the weights if one is kept. `finished` gives the network to keep.

    Arguments and calls are those of `Supernet`.

    Source: a reconstruction of ParaDiS' joint training.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries: tuple[Entry, ...] = ()
        self.average_decay = 0.0
        self._average: list[keras.Variable] = []

    def compile(
        self,
        optimizer: Any = "sgd",
        method: Method | None = None,
        weight_decay: float = 0.0,
        decay_all: bool = False,
        clip_norm: float = 0.0,
        average_decay: float = 0.0,
        total_steps: int = 0,
        seed: int = 0,
        loss: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepares training.

        Args:
          optimizer: a Keras optimizer, its name or its config.
          method: what each path learns from; its entries are made once, here.
          weight_decay: added to the gradient as `weight_decay * kernel`, for convolution and dense kernels
            only; depthwise kernels, batch norm and biases have none (Yu et al. 2019).
          decay_all: gives every trained weight that decay.
          clip_norm: the gradients, summed over the passes, are scaled down to this global norm where they are above
            it, before the decay; 0 leaves them.
          average_decay: how much of their moving average a step keeps, in [0, 1), less in the first steps; 0 keeps no
            average. It covers all weights, batch norm's statistics too.
          total_steps: steps of the whole training, in whose course factors of losses change; with 0 they keep their
            first value.
          seed: of the passes that are drawn, 0 or more.
          loss: options of the architecture's task, such as `label_smoothing`.
          **kwargs: as in `keras.Model.compile`, without `metrics`, which the task gives.

        Raises:
          ValueError: no method, or a number out of range.
          UserError: a method that cannot train these paths or wants an average that is not kept, or a wrong
            option of the task.
        """
        if method is None:
            raise ValueError("compile needs method=...; it says what each path learns from.")
        for name, value in dict(
            weight_decay=weight_decay, clip_norm=clip_norm, total_steps=total_steps, seed=seed
        ).items():
            if value < 0:
                raise ValueError(f"{name} is {value!r}; it is 0 or more.")
        if not 0 <= average_decay < 1:
            raise ValueError(f"average_decay is {average_decay!r}; it lies in [0, 1).")
        self.task = tasks.create(self.architecture.task, **(loss or {}))
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        # Built here, because an optimizer that makes its variables in the first step has the step traced twice.
        self.optimizer.build(self.trainable_variables)
        self.method = method
        self.entries = method.passes(self.paths, self.widest)
        self.weight_decay = weight_decay
        self.decay_all = decay_all
        self.clip_norm = clip_norm
        kernels = {id(layer.kernel) for layer in self.shared_layers if getattr(layer, "decays_kernel", False)}
        self._decayed = {i for i, v in enumerate(self.trainable_variables) if decay_all or id(v) in kernels}
        self.total_steps = total_steps
        self.seed = seed
        self._keep_average(average_decay)
        self.first_non_finite = FirstNonFinite()
        self._total_loss = keras.metrics.Mean(name="loss")
        self._losses_of: dict[Path, keras.Metric] = {p: keras.metrics.Mean(name=f"loss/{p}") for p in self.paths}
        metric = self.task.metric
        self._metrics_of: dict[Path, keras.Metric] = {p: self.task.new_metric(f"{metric}/{p}") for p in self.paths}

    def _keep_average(self, decay: float) -> None:
        self.average_decay = decay
        sources = {teacher.source for each in self._all_passes() for teacher in each.teachers}
        if "average" in sources and not decay:
            raise UserError("the method learns from the average of the weights; optimizer.average_decay is 0, set it.")
        if decay and not self._average:
            self._average = [
                self.add_weight(
                    name=f"average_{index}",
                    shape=weight.shape,
                    initializer=lambda shape, dtype, value=weight: keras.ops.copy(value.value),
                    trainable=False,
                    autocast=False,
                    aggregation="only_first_replica",
                )
                for index, weight in enumerate(self._averaged_weights())
            ]

    def _averaged_weights(self) -> list[keras.Variable]:
        return [weight for layer in self.shared_layers for weight in layer.weights]

    def _all_passes(self) -> list[Pass]:
        return [each for entry in self.entries for each in entry.passes]

    @property
    def metrics(self) -> list[keras.Metric]:
        if not self.compiled:
            return []
        return [self._total_loss, *self._losses_of.values(), *self._metrics_of.values()]

    @property
    def draws(self) -> bool:
        """Whether a step has passes that are drawn."""
        return any(isinstance(entry, Draw) for entry in self.entries)

    def drawn_entries(self) -> tuple[Pass | Joint, ...]:
        """The entries of the next step, what is drawn among them a pass; called outside of a step."""
        moment = self._moment()
        return tuple(
            entry.passes[int(moment.draw(len(entry.passes), place))] if isinstance(entry, Draw) else entry
            for place, entry in enumerate(self.entries)
        )

    def _moment(self) -> Moment:
        return Moment(self.optimizer.iterations, self.total_steps, self.seed, len(self.entries))

    def train_step(self, data: Any, entries: Sequence[Pass | Joint] = ()) -> dict[str, Any]:
        """One step of the optimizer.

        Args:
          data: (images, targets), the replica's part of the batch.
          entries: what `drawn_entries` gave; without them the step draws by itself.
        """
        images, targets = _images_and_targets(data)
        gradients: dict[int, tf.Tensor] = {}
        if entries and self.draws:
            # As when the step draws: what the drawn pass does not touch has a gradient of zero.
            gradients = {index: tf.zeros(v.shape, v.dtype) for index, v in enumerate(self.trainable_variables)}
        taught = self._absent_teachers(images)
        moment = self._moment()
        losses: list[tf.Tensor] = []
        paths: list[tf.Tensor] = []
        for place, entry in enumerate(entries or self.entries):
            numbers = [self.paths.index(each.path) for each in entry.passes]
            if isinstance(entry, Draw):
                drawn = moment.draw(len(entry.passes), place)
                loss, of_entry = self._run_drawn(entry, place, drawn, images, targets, taught)
                losses.append(loss)
                paths.append(tf.gather(numbers, drawn))
            else:
                of_passes, of_entry = self._run(entry.passes, place, images, targets, taught)
                losses += of_passes
                paths += map(tf.constant, numbers)
            for index, gradient in of_entry.items():
                gradients[index] = gradients[index] + gradient if index in gradients else gradient
        self._total_loss.update_state(tf.add_n(losses))
        self.first_non_finite.update_state(tf.stack(losses), tf.stack(paths))
        self.optimizer.apply(
            *combine(
                gradients,
                self.trainable_variables,
                self.optimizer,
                clip_norm=self.clip_norm,
                weight_decay=self.weight_decay,
                decayed=self._decayed,
            )
        )
        self._update_average()
        return {metric.name: metric.result() for metric in self.metrics}

    def _absent_teachers(self, images: Any) -> Taught:
        """The outputs of the teachers that have no pass of their own, detached."""
        teachers = {teacher for each in self._all_passes() for teacher in each.teachers if teacher.source != "in_place"}
        taught: Taught = {}
        for teacher in sorted(teachers, key=str):
            if teacher.source == "average":
                (outputs,) = self._call_average(images, [teacher.path])
            else:
                network = self.method.fixed_teacher
                if network is None:
                    raise ValueError(f"a pass learns from a fixed teacher, and {type(self.method).__name__} has none.")
                outputs = network(images, path=teacher.path, training=False)
            taught[teacher] = {name: tf.stop_gradient(value) for name, value in outputs.items()}
        return taught

    def _run(
        self, passes: Sequence[Pass], place: int, images: Any, targets: Any, taught: Taught
    ) -> tuple[list[tf.Tensor], dict[int, tf.Tensor]]:
        """The weighted losses of an entry's passes and their gradients by index of the variable.

        `place` is that of the entry in the step; the passes' outputs are left in `taught`.
        """
        with tf.GradientTape() as tape:
            learned = run_together(self, passes, images, targets, taught, self._moment(), place)
            losses = [each.weighted for each in learned]
            scaled = self.optimizer.scale_loss(tf.add_n(losses))
        gradients = tape.gradient(scaled, [variable.value for variable in self.trainable_variables])
        for entry, each in zip(passes, learned, strict=True):
            self._losses_of[entry.path].update_state(each.loss)
            self._metrics_of[entry.path].update_state(targets, each.outputs["prediction"])
        return losses, {index: gradient for index, gradient in enumerate(gradients) if gradient is not None}

    def _run_drawn(
        self, draw: Draw, place: int, drawn: tf.Tensor, images: Any, targets: Any, taught: Taught
    ) -> tuple[tf.Tensor, dict[int, tf.Tensor]]:
        """As `_run`, for one pass of several; each branch is traced, one is run."""

        def branch(entry: Pass) -> tuple[tf.Tensor, list[tf.Tensor]]:
            (loss,), gradients = self._run([entry], place, images, targets, dict(taught))
            variables = enumerate(self.trainable_variables)
            return loss, [gradients.get(index, tf.zeros(v.shape, v.dtype)) for index, v in variables]

        loss, gradients = tf.switch_case(drawn, [lambda entry=entry: branch(entry) for entry in draw.passes])
        return loss, {index: tf.convert_to_tensor(gradient) for index, gradient in enumerate(gradients)}

    def _update_average(self) -> None:
        if not self.average_decay:
            return
        step = tf.cast(self.optimizer.iterations, tf.float32)
        # Early on a short memory, or the initial weights would stay in it for long.
        decay = tf.minimum(self.average_decay, step / (10.0 + step))
        for weight, kept in zip(self._averaged_weights(), self._average, strict=True):
            kept.assign_add((1.0 - decay) * (weight.value - kept.value))

    def _call_average(self, images: Any, paths: Sequence[Path]) -> list[dict[str, Any]]:
        """Calls on the average of the weights; the weights stay in their place, whatever interrupts it."""
        weights = zip(self._averaged_weights(), self._average, strict=True)
        with keras.StatelessScope(state_mapping=[(weight, kept.value) for weight, kept in weights]):
            return self.call_paths(images, paths)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, targets = _images_and_targets(data)
        count = tf.shape(targets)[0]
        total = 0.0
        call = self._call_average if self.average_decay else self.call_paths
        for path, outputs in zip(self.paths, call(images, self.paths), strict=True):
            loss = self.task.loss(targets, outputs["prediction"])
            self._losses_of[path].update_state(loss, sample_weight=count)
            self._metrics_of[path].update_state(targets, outputs["prediction"])
            total += loss
        self._total_loss.update_state(total, sample_weight=count)
        return {metric.name: metric.result() for metric in self.metrics}

    def finished(self) -> Supernet:
        """The network to keep: a copy in float32, with the average of the weights if one is kept."""
        network = Supernet(**{**self.get_config(), "architecture": self.architecture, "dtype": "float32"})
        kept = self._average if self.average_decay else self._averaged_weights()
        weights = [weight for layer in network.shared_layers for weight in layer.weights]
        for weight, value in zip(weights, kept, strict=True):
            weight.assign(keras.ops.convert_to_numpy(value))
        return network

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "method": keras.saving.serialize_keras_object(self.method),
            "weight_decay": self.weight_decay,
            "decay_all": self.decay_all,
            "clip_norm": self.clip_norm,
            "average_decay": self.average_decay,
            "total_steps": self.total_steps,
            "seed": self.seed,
            "loss": self.task.get_config(),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))


def _images_and_targets(data: Any) -> tuple[Any, Any]:
    images, targets, weights = keras.utils.unpack_x_y_sample_weight(data)
    if targets is None or weights is not None:
        raise ValueError(
            f"a batch is (images, targets); targets {'are missing' if targets is None else 'came with weights'}."
        )
    return images, targets
