"""What the system refuses, in words: a full disk, a read-only folder, a file that may not be read."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calibrated_sd.errors import CalibratedSDError, OutputError

_UNTOLD = -1  # torch's writer stopped half-way, and its message does not hold the system's number
_WORDS = {
    errno.ENOSPC: ("the disk is full", "Make room on it, or use another disk"),
    errno.EDQUOT: ("the disk quota is used up", "Make room, or use another disk"),
    errno.EFBIG: (
        "the file would be larger than the system allows",
        "Raise the limit (ulimit -f), or use another disk",
    ),
    errno.EROFS: ("the file system is read-only", "Mount it for writing, or use another folder"),
    errno.EACCES: ("permission denied", "Change the permissions, or use another folder"),
    errno.EPERM: ("the system does not permit it", "Change the permissions or attributes, or use another folder"),
    errno.EIO: ("the disk reports an error", "Check the disk, or use another one"),
    _UNTOLD: ("the disk is full, or a quota or a limit on file sizes is reached", "Make room, or use another disk"),
}
"""What went wrong and what helps. None of these is a fault of the program."""

_RIGHTS = (errno.EACCES, errno.EPERM)

_AGAIN = "What was finished before is kept; run the command again, with --if-exists resume where it has that option."
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how libraries in Rust say it (safetensors, tokenizers)
_TORCH = ("PytorchStreamWriter failed writing", "unexpected pos ", "basic_ios::clear: iostream error")


def write_failed(path: str | os.PathLike[str], error: OSError) -> OutputError:
    """The error for a file that could not be written."""
    what, remedy = _WORDS.get(error.errno or 0, (str(error), "Check the path and the disk"))
    return OutputError(f"{os.fspath(path)} cannot be written: {what}. {remedy}. {_AGAIN}")


@contextmanager
def named_writes(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the system while ``path`` is written become an OutputError that names it."""
    try:
        yield
    except CalibratedSDError:
        raise
    except OSError as error:
        raise write_failed(path, error) from error


@contextmanager
def named_saves(folder: str | os.PathLike[str]) -> Iterator[None]:
    """The same around libraries that write many files below ``folder`` and report a full disk in their own ways.

    Everything that is not a fault of the disk passes through unchanged, and so does one of a file elsewhere: a reward
    that may not read its data is no fault of this folder.
    """
    try:
        yield
    except CalibratedSDError:
        raise
    except Exception as error:
        number, named = disk_fault(error), _named(error)
        if number is None or (number in _RIGHTS and isinstance(error, OSError) and named is None):
            raise
        if named is not None and Path(folder).resolve() not in (path := Path(named).resolve(), *path.parents):
            raise
        raise write_failed(named or folder, OSError(number, "")) from error


def _named(error: BaseException) -> str | None:
    return os.fsdecode(error.filename) if isinstance(error, OSError) and error.filename else None


def disk_fault(error: BaseException | None) -> int | None:
    """The system's error number, if a library's error comes from the disk or from permissions; None if it does not.

    An error that was raised from another one counts as that one.
    """
    while error is not None:
        found = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
        if number in _WORDS:
            return number
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH):
            return _UNTOLD
        error = error.__cause__
    return None


def describe_fault(error: BaseException) -> str | None:
    """One paragraph for an error of the disk or of permissions that no one named before; None for any other error."""
    number, named = disk_fault(error), _named(error)
    if number is None or (number in _RIGHTS and isinstance(error, OSError) and named is None):
        return None  # without a name, "permission denied" may be of a socket or a process: the traceback says where
    what, remedy = _WORDS[number]
    return f"{named or 'A file'} cannot be read or written: {what}. {remedy}. {_AGAIN}"
