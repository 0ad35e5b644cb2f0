"""Stands for the programs that train and evaluate: keeps a run folder as they do, and trains nothing.

    python stub_runs.py (train | evaluate) --workdir=FOLDER [...]

Imports nothing of the project, so that it starts at once. Every start adds a line to `started.jsonl` in the folder
above. `--config.fault=...` makes a training fail, `--config.epochs` is how many it writes, `--config.hold=true` makes
it stop after the first until it is killed.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

stage = sys.argv[1]
flags = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[2:])
folder = Path(flags["workdir"])
threads = [os.environ[f"TF_NUM_{kind}_THREADS"] for kind in ("INTRAOP", "INTEROP")]
with (folder.parent / "started.jsonl").open("a") as log:
    log.write(json.dumps({"run": folder.name, "stage": stage, "pid": os.getpid(), "threads": threads}) + "\n")

if stage == "evaluate":
    rows = [{"model_id": "stub", "switch": switch, "accuracy": 0.5} for switch in ("1.0", "0.5+0.5")]
    (folder / "evaluation.json").write_text(json.dumps(rows))
    sys.exit()

fault = flags.get("config.fault")
if fault == "diverge":
    sys.exit("error: training has diverged")
if fault == "die":
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints = folder / "checkpoints"
checkpoints.mkdir(parents=True, exist_ok=True)
if not (folder / "config.json").exists():
    # The list's own, which the test has put there.
    (folder / "config.json").write_text((folder.parent / f"{folder.name}.json").read_text())
metrics = folder / "metrics.csv"
if not metrics.exists():
    metrics.write_text("epoch,seconds\n")
for epoch in range(len(list(checkpoints.iterdir())) + 1, int(flags.get("config.epochs", 2)) + 1):
    with metrics.open("a") as file:
        file.write(f"{epoch},1800.0\n")
    (checkpoints / f"epoch_{epoch:04}.keras").touch()
    if epoch == 1 and flags.get("config.hold") == "True":
        held = folder.parent / "held"
        if not held.exists():
            held.touch()
            time.sleep(600)
if fault != "no model":
    (folder / "model.keras").touch()
