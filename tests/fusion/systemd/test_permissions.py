"""Who may read what, by owner, group and mode."""

import os
import tempfile
from pathlib import Path

import pytest

from fusion.systemd.permissions import NOBODY, closed

# A user and a group that own nothing here.
OTHER, STAFF = 54321, 54322


@pytest.fixture
def file():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "file"
        path.touch()
        yield path


def test_mode_and_group(file):
    for mode, shut in ((0o604, None), (0o640, file), (0o600, file)):
        file.chmod(mode)
        assert closed(file, OTHER, [STAFF]) == closed(file, NOBODY) == shut
        # Its own group, which may be given less than all others.
        own = closed(file, OTHER, [STAFF, os.stat(file).st_gid])
        assert own == (None if mode == 0o640 else file)
        assert closed(file, 0) is None


def test_folders(file):
    for mode, shut in ((0o711, None), (0o744, file.parent)):
        file.parent.chmod(mode)
        assert closed(file, OTHER) == shut
    file.parent.chmod(0o711)
    assert closed(file.parent, OTHER) == file.parent
