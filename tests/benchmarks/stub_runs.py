"""`benchmarks.runs` with programs that train and evaluate nothing, but keep run folders and locks as the real ones do.

    python stub_runs.py program --list=... --runs_dir=...

Every process they start adds a line to `started.jsonl` in the folder above its run folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from absl import flags

from benchmarks.runs import schedule
from fusion.base.files import write_json
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.records.workdir import Workdir

CONFIG = """
from ml_collections import ConfigDict


def get_config(method="paradis"):
    return ConfigDict({
        "seed": 0,
        "epochs": 2,
        "pause": 0.05,
        "fault": "",
        "switches": ("1.0", "0.5+0.5"),
        "flip": False,
        "model": {"width": 1.0, "blocks": 3},
        "method": {"name": method, "teacher": ""},
    })
"""
STAGE = sys.argv.pop(1) if __name__ == "__main__" else ""


def main(argv: list[str]) -> None:
    workdir = Workdir(flags.FLAGS.workdir)
    record = {
        "run": workdir.path.name,
        "stage": STAGE,
        "pid": os.getpid(),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": [os.environ[f"TF_NUM_{kind}_THREADS"] for kind in ("INTRAOP", "INTEROP")],
        "at": time.time(),
    }
    with (workdir.path.parent / "started.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    if STAGE == "train":
        train(Workdir.create(workdir.path, program.config_of(HOLDER)))
    else:
        rows = [{"switch": switch, "accuracy": 0.5} for switch in workdir.config()["switches"]]
        write_json(workdir.evaluation_file, [{"model_id": "stub", **row} for row in rows])


def train(workdir: Workdir) -> None:
    config = workdir.config()
    with workdir.locked():
        if config["fault"] == "diverge":
            raise UserError("training has diverged")
        if config["fault"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        done, _ = workdir.newest_checkpoint()
        for epoch in range(done + 1, config["epochs"] + 1):
            time.sleep(config["pause"])
            workdir.metrics.append({"epoch": epoch, "seconds": 1800.0, "val_accuracy/1.0": epoch / 10})
            (workdir.checkpoints / f"epoch_{epoch:04}.keras").write_text("stub")
        if config["fault"] != "no model":
            workdir.model_file.write_text("stub")


if __name__ == "__main__":
    if STAGE == "program":
        from benchmarks.runs import __main__ as runs

        made, file = schedule.Programs, str(Path(__file__).resolve())
        schedule.Programs = lambda: made((sys.executable, file, "train"), (sys.executable, file, "evaluate"))  # type: ignore
        program.run(runs.main)
    else:
        flags.DEFINE_string("workdir", None, "")
        if STAGE == "train":
            HOLDER = program.define_config("")
        program.run(main)
