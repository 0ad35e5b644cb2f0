"""What memory is left, from what Linux says, and a slice that does not fit."""

import pytest

from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.runtime import choosing as runtime
from fusion.runtime import memory
from fusion.runtime.interpreters import SliceInterpreter


def test_takes_the_less_of_machine_and_control_group(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 8000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n")
    assert memory.available(meminfo, tmp_path) == 4000 * 1024
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available(meminfo, tmp_path) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    assert memory.available(meminfo, tmp_path) == 2_000_000
    assert memory.available(tmp_path / "none", tmp_path / "none") is None


def test_the_most_that_a_process_had(tmp_path):
    (tmp_path / "status").write_text("VmPeak: 9000 kB\nVmHWM:     1234 kB\n")
    assert memory.peak(tmp_path / "status") == 1234 * 1024
    assert memory.peak(tmp_path / "none") is None


def test_a_slice_that_does_not_fit_is_refused(bundle, monkeypatch):
    loaded = manifest.load(bundle)
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    with pytest.raises(UserError, match="0.int8.tflite' takes about 4 MB of memory, and 1 MB are available"):
        SliceInterpreter(loaded, loaded.switches[0].slices[0].files["int8"], runtime.choose("auto"), 1)
