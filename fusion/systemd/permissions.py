"""Whether another user of this machine may read a file."""

from __future__ import annotations

import stat
from collections.abc import Collection
from pathlib import Path

# No user has this number: what is open to it is open to all.
NOBODY = -1


def closed(path: Path, user: int, groups: Collection[int] = ()) -> Path | None:
    """What keeps a user from reading `path`: the first folder above it that cannot be entered, or `path` itself.

    Args:
      path: an absolute one, of a file or of a folder, which is to be listed and entered.
      user, groups: numbers of the user and of all its groups.

    Returns None where nothing does, or where it is not for this process to see. Owner, group and mode decide; access
    lists are not looked at.
    """
    if user == 0:
        return None
    for place in (*reversed(path.parents), path):
        try:
            found = place.stat()
        except OSError:
            return None
        shift = 6 if found.st_uid == user else 3 if found.st_gid in groups else 0
        needed = 0o1 if place != path else 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
        if found.st_mode >> shift & needed != needed:
            return place
    return None
