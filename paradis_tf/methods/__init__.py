"""Training methods: each is an ordered list of passes per step over the same supernet."""

from __future__ import annotations

from typing import Any

from paradis_tf.base import registry
from paradis_tf.methods.anytime import Anytime
from paradis_tf.methods.individual import Individual
from paradis_tf.methods.nested import Nested
from paradis_tf.methods.paradis import Paradis
from paradis_tf.methods.passes import Method
from paradis_tf.methods.slimmable import Slimmable
from paradis_tf.methods.us_slimmable import USSlimmable

METHODS: dict[str, type[Method]] = {
    "paradis": Paradis,
    "individual": Individual,
    "slimmable": Slimmable,
    "us_slimmable": USSlimmable,
    "anytime": Anytime,
    "nested": Nested,
}


def create(name: str, **options: Any) -> Method:
    """The method of that name with these options.

    Raises:
      UserError: an unknown name or option, or an option out of range; the legal ones are listed.
    """
    return registry.create("method", METHODS, lambda family: list(family().get_config()), name, options)
