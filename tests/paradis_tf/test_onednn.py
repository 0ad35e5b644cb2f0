"""Tests run on the kernels that the programs run on."""

from __future__ import annotations

import os
import sys


def test_what_tensorflow_is_imported_with_was_set_before() -> None:
    modules = list(sys.modules)  # in the order of their imports
    assert modules.index("paradis_tf") < modules.index("tensorflow")
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] in ("0", "1")
