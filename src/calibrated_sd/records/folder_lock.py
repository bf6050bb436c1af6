"""One writer for each output folder: a lock that the system takes back when the process ends, however it ends."""

from __future__ import annotations

import os
from pathlib import Path

from calibrated_sd.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: no lock, as before
    fcntl = None  # type: ignore[assignment]

_held: dict[tuple[int, int], int] = {}
"""(device, inode) of a folder → the open descriptor that holds its lock."""


def lock_folder(folder: str | os.PathLike[str]) -> None:
    """Take the lock of an existing folder and keep it until the process ends; taking it again changes nothing.

    The folder itself is locked (``flock``), so there is no file that a killed process could leave behind. File systems
    that cannot lock a folder, some network ones among them, are used without a lock.

    Raises:
        OutputError: another process holds it.
    """
    if fcntl is None:
        return
    folder = Path(folder)
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # whoever writes to it will say why that does not work
    state = os.fstat(descriptor)
    key = (state.st_dev, state.st_ino)
    if key in _held:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(
            f"Another process is writing to the output folder {folder}. Nothing was changed. Wait until it has ended, or give "
            "another folder; if nothing should be running, look for a process that was left over (ps, or the scheduler's queue)."
        ) from error
    except OSError:
        os.close(descriptor)
        return
    _held[key] = descriptor
