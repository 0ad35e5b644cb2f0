"""What the bias is worth without the slice that has it, against NumPy on the parts themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.live_bias import accuracies
from paradis_tf.data.parts import Part
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch


def test_the_bias_is_added_to_sets_without_the_first_device(tiny_net: Callable[..., Supernet]) -> None:
    rng = np.random.default_rng(5)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), rng.integers(0, 5, 40)
    model, switch = tiny_net(("0.5+0.25+0.25",)), Switch.parse("0.5+0.25+0.25")
    found = accuracies(model, switch, Part(images, labels))
    parts = [model.call_cut(images, cut).prediction.numpy() for cut in switch.cuts]
    bias = model.shared_layers[-1].bias.numpy()
    assert list(found) == [(1, 2), (1,), (2,)]
    for live, both in found.items():
        logits = sum(parts[device] for device in live)
        assert both == tuple((values.argmax(1) == labels).mean() for values in (logits, logits + bias))
    assert any(without != with_bias for without, with_bias in found.values())
