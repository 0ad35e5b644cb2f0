"""The process that runs a bundle's files ends with the one that asked for them, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from export.proof import engines
from fusion.base.program import UserError
from fusion.bundle import manifest

ASK = """
import sys, time
import numpy as np
from export.proof import engines
from fusion.bundle import manifest
running = engines.EngineProcess(manifest.load(sys.argv[1]), engines.REFERENCE, np.zeros((20_000, 16, 16, 3), np.uint8))
while not running.done:
    time.sleep(0.1)
print(running.pid, flush=True)
time.sleep(600)
"""


def ended(process: int) -> bool:
    """Whether it is gone, or dead and not yet waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_of_a_killed_program_nothing_stays(exported, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ASK, str(exported.bundle)]
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asked = int(asking.stdout.readline())
        assert not ended(asked)
        asking.kill()
    until = time.monotonic() + 120
    while not ended(asked) and time.monotonic() < until:
        time.sleep(0.1)
    assert ended(asked)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(exported, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(
        UserError, match=r"the images for runtime tflite_runtime, 768 bytes, cannot be written to .*TMPDIR"
    ):
        engines.run(manifest.load(exported.bundle), engines.REFERENCE, np.zeros((1, 16, 16, 3), np.uint8))
