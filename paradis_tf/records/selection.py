"""Which epoch's weights become the finished model."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from fusion.base.program import UserError
from fusion.base.streams import say
from paradis_tf.records.workdir import Workdir, load_model
from paradis_tf.supernet import Supernet

KEEP = ("last", "best")


def best_first(rows: Iterable[Mapping[str, float]], metric: str, checkpoints: Collection[int]) -> list[int]:
    """The epochs, from 1, of a run's metrics that have a checkpoint, the best first.

    Better is a higher mean over the paths of the metric on the validation part; of equals the later epoch. An epoch
    with a value that is NaN comes after all others.
    """

    def score(row: Mapping[str, float]) -> tuple[float, float]:
        values = [value for name, value in row.items() if name.startswith(f"val_{metric}/")]
        mean = math.fsum(values) / len(values) if values else math.nan
        return -math.inf if math.isnan(mean) else mean, row["epoch"]

    ranked = [int(row["epoch"]) for row in sorted(rows, key=score, reverse=True)]
    return [epoch for epoch in ranked if epoch in checkpoints]


def finished_network(workdir: Workdir, model: Supernet, keep: str, check: Callable[[Path, Supernet], None]) -> Supernet:
    """The network to keep of a run whose last epoch is done.

    Args:
      workdir: the run's folder.
      model: the network as the last epoch left it.
      keep: "last", or "best" for the best epoch's checkpoint; one that cannot be used is passed over for the
        next best.
      check: raises UserError if a checkpoint's network is not the run's.
    """
    if keep == "last":
        return model.finished()
    # Printed in either case, since nothing else tells.
    sentence = "the finished model is that of epoch {}, the best on the validation part"
    files = workdir.checkpoint_files()
    for epoch in best_first(workdir.metrics.rows(), model.task.metric, files):
        if epoch == max(files):
            say(sentence.format(epoch))
            break
        try:
            kept = load_model(files[epoch])
            check(files[epoch], kept)
        except UserError as error:
            say(f"passing over {files[epoch]}: {error}")
            continue
        network = kept.finished()
        say(sentence.format(epoch))
        return network
    return model.finished()
