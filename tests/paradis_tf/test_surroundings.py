"""What a user's machine has set up for other projects: another backend of Keras, a keras.json, no home."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from paradis_tf.base import program

ROOT = Path(__file__).parents[2]
IMPORTS = "import paradis_tf, os; print(os.environ['KERAS_BACKEND'])"
OUTPUTS = """
import paradis_tf
import keras
import numpy as np
from paradis_tf.builders.static import extract
from paradis_tf.supernet import Supernet
keras.utils.set_random_seed(3)
architecture = {"name": "mobilenet_v1", "image_shape": (32, 32, 3), "classes": 4, "form": "32"}
net = Supernet(architecture | {"width_multiplier": 0.25}, ["0.5+0.5"])
images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
parts = [extract(net, cut)(images.astype(np.float32)) for cut in net.switches[0].cuts]
fused = net(images, path="0.5+0.5")["prediction"]
print(keras.backend.backend(), fused.dtype.name, parts[0].shape, np.allclose(sum(map(np.array, parts)), fused))
"""
# As of a project of another time, and of one with another backend.
OTHER = {"backend": "jax", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-3}


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("backend", ["torch", "jax", "numpy", "tensorflow", ""])
def test_the_backend_is_tensorflow(backend: str) -> None:
    done = run(IMPORTS, KERAS_BACKEND=backend)
    assert (done.stdout, done.stderr) == ("tensorflow\n", "")


def test_a_keras_json_of_another_project_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(OTHER))
    done = run(OUTPUTS, KERAS_BACKEND="torch", KERAS_HOME=str(tmp_path))
    assert done.stdout == "tensorflow float32 (2, 4) True\n", done.stderr


@pytest.mark.parametrize("backend", ["torch", "jax", "numpy"])
def test_keras_with_another_backend_before_it_is_one_sentence(backend: str, tmp_path: Path) -> None:
    # Stands for the real one, whose other backends are not installed here.
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text("from keras import config")
    (tmp_path / "keras" / "config.py").write_text(f"def backend():\n    return {backend!r}")
    done = run("import keras\nimport paradis_tf", PYTHONPATH=str(tmp_path))
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: paradis_tf needs Keras on TensorFlow, and Keras was imported on {backend!r} before it; import "
        "paradis_tf first, or set KERAS_BACKEND=tensorflow."
    )


def test_libraries_make_no_folder_for_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    with program.loading():
        assert os.environ["HOME"] == "/home/anna"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with program.loading():
        assert os.environ["HOME"] == "/nonexistent"
