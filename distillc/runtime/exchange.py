"""Two names exchanged in one step, where the system can."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_HERE = -100
"""`AT_FDCWD`: names are relative to the current folder."""
_EXCHANGE = 2
"""`RENAME_EXCHANGE`."""


def exchange(first: Path, second: Path) -> bool:
    """Exchange two names of one file system; False where system or file system cannot.

    Raises:
        OSError: One does not exist, or may not be renamed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))
