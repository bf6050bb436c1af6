"""SIGTERM, as a scheduler sends it before it kills: end in order, with the exit code that says so."""

from __future__ import annotations

import signal
import threading
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a command that SIGTERM has ended: 143, as a shell reports it."""


class Terminated(SystemExit):
    """SIGTERM was received. Not an error: it passes through every `except Exception`, and every `finally` runs."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


def exit_on_sigterm() -> None:
    """From now on SIGTERM ends the process by an exception: jobs are ended and marked, what is finished is archived."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
    raise Terminated
