"""Programs answer to their flags at once: what they import before loads no TensorFlow."""

from __future__ import annotations

import ast
import os
import shutil
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


# A process of another program's, which reads its lines.
ANSWERS = ("export/demo/alone.py", "export/demo/speed.py")


def test_what_tells_how_work_has_come_on_does_not_stop_it() -> None:
    for package in ("paradis_tf", "export"):
        for file in (ROOT / package).rglob("*.py"):
            if str(file.relative_to(ROOT)) in ANSWERS:
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                    keywords = {keyword.arg for keyword in node.keywords}
                    assert "flush" not in keywords or "file" in keywords, f"{file}:{node.lineno}: take `say`"


CONFIG = """
from paradis_tf.base import program
config = program.define_config("The experiment.")
program.run(lambda argv: print(program.config_of(config).epochs))
"""


def test_a_config_may_lie_in_the_home(tmp_path: Path) -> None:
    shutil.copy(ROOT / "paradis_tf" / "configs" / "digits_mobilenet_v1.py", tmp_path / "mine.py")
    for flags in (["--config=~/mine.py"], ["--config=~/mine.py:paradis"]):
        done = subprocess.run(
            [sys.executable, "-c", CONFIG, *flags, "--config.epochs=3"],
            cwd=ROOT,
            env=os.environ | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("3\n", "")
