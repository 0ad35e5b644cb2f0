"""The checks that every method passes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import keras

from paradis_tf.methods.passes import Draw, Method
from paradis_tf.switches import Switch


def check_method(method: Method, switches: Sequence[Switch]) -> None:
    """Its passes are of these switches, learn from something, and from those alone that ran before them; it comes back
    from its config, through JSON, with the same passes."""
    widest = min(switches, key=lambda switch: (-switch.width, switch.devices))
    passes = method.passes(switches, widest)
    ran: set[object] = set()
    for entry in passes:
        for each in entry.passes if isinstance(entry, Draw) else (entry,):
            assert each.path in switches
            assert each.objectives and all(objective.weight > 0 for objective in each.objectives)
            assert {teacher.path for teacher in each.teachers if teacher.source == "in_place"} <= ran
            assert each.factor[0] > 0 <= each.factor[1]
        if not isinstance(entry, Draw):
            ran.add(entry.path)
    assert ran
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(method)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(method) and again.get_config() == method.get_config()
    assert again.passes(switches, widest) == passes
