"""Programs answer to their flags at once: what they import before loads no TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Each in a process of its own, as programs define flags of the same names.
IMPORTS = """
import importlib, os, sys
for name in sys.argv[1:]:
    if not os.fork():
        importlib.import_module(name)
        os._exit(bool({"tensorflow", "keras"} & sys.modules.keys()))
    if os.wait()[1]:
        print(name)
"""


def test_no_program_loads_tensorflow_before_it_knows_its_flags() -> None:
    names = [f"paradis_tf.{file.stem}" for file in (ROOT / "paradis_tf").glob("*.py") if "flags." in file.read_text()]
    assert {"paradis_tf.train", "paradis_tf.evaluate", "paradis_tf.profile"} <= set(names)
    done = subprocess.run([sys.executable, "-c", IMPORTS, *names], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
