"""The checks that every method passes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import keras

from paradis_tf.cuts import Path
from paradis_tf.methods.passes import Draw, Joint, Method


def check_method(method: Method, paths: Sequence[Path]) -> None:
    """Its passes are of these paths, learn from something, from those alone that ran before or with them; it comes back
    from its config, through JSON, with the same passes."""
    widest = min(paths, key=lambda path: (-path.width, path.devices))
    entries = method.passes(paths, widest)
    ran: set[object] = set()
    for entry in entries:
        if isinstance(entry, Joint):
            ran |= {each.path for each in entry.passes}
        for each in entry.passes:
            assert each.path in paths
            assert each.objectives and all(objective.weight > 0 for objective in each.objectives)
            assert {teacher.path for teacher in each.teachers if teacher.source == "in_place"} <= ran
            assert each.factor[0] > 0 <= each.factor[1]
        if not isinstance(entry, Draw):
            ran |= {each.path for each in entry.passes}
    assert ran
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(method) and again.get_config() == method.get_config()
    assert again.passes(paths, widest) == entries
