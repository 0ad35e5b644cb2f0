"""A run folder without training is a run to everything that reads one."""

import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "paradis_tf/configs/digits_mobilenet_v1.py"


def run(*options):
    command = [sys.executable, "-m", "benchmarks.untrained", f"--config={CONFIG}", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_run_folder(tmp_path):
    from paradis_tf.records.workdir import Workdir
    from paradis_tf.training import run as training

    folder = tmp_path / "run"
    options = (f"--workdir={folder}", "--image_size=20", "--classes=7", "--images=12", "--config.switches=('0.5+0.5',)")
    done = run(*options)
    assert done.returncode == 0, done.stderr
    model, dataset = training.load_run(Workdir.open(folder), None)
    assert dataset.image_shape == (20, 20, 3) and len(dataset.class_names) == 7
    assert dataset.train.images.std() > 50
    assert [str(switch) for switch in model.switches] == ["0.5+0.5"]
    logits = np.asarray(model(dataset.test.images, path=model.switches[0])["prediction"])
    assert logits.shape == (2, 7) and np.isfinite(logits).all()
    again = run(*options)
    assert again.returncode == 2 and f"--workdir={folder} is there already" in again.stderr
