"""Every error a user can cause, as one paragraph: what is wrong, what was given, what to do.

The command line prints the message and exits with code 2; it never shows a traceback for these.
Each class also inherits the standard-library error it stands in for, so `except ValueError` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY_NAMES = 40
"""More names than this are not all listed in a message."""


class CalibratedSDError(Exception):
    """Base class of all errors that a user can cause and fix."""


class ConfigError(CalibratedSDError, ValueError):
    """A setting, or a combination of settings, that cannot mean anything sensible."""


class ContextError(CalibratedSDError, ValueError):
    """A teacher context that cannot be built (unknown level, a question longer than the model's window, …)."""


class DataError(CalibratedSDError, ValueError):
    """A data set or record file that is missing, truncated, empty or lacks a column."""


class OutputError(CalibratedSDError, OSError):
    """An output place that exists already, or cannot be written."""


class NonFiniteError(CalibratedSDError, ArithmeticError):
    """A loss, gradient or reward that is NaN or infinite, found before it reached the weights."""


class CompatError(CalibratedSDError, RuntimeError):
    """An installed library whose interface is not the one this package was tested with."""


def shortened(value: object, longest: int = 120, *, plain: bool = False) -> str:
    """A user's value as it stands in a message: in quotes (unless `plain`), and not longer than that."""
    text = str(value) if plain else repr(value[: longest + 1] if isinstance(value, str) else value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def unknown_name(kind: str, given: object, choices: Iterable[str]) -> ConfigError:
    """The error for a misspelt name: lists the choices (of very many, the nearest ones) and suggests the nearest one.

    Args:
        kind: what the name stands for, e.g. ``"calibration_method"``.
        given: what the user wrote.
        choices: all names that exist.
    """
    names = sorted(choices)
    written = shortened(given, 200, plain=True)  # comparing takes the square of the length
    shown = shortened(given, 200)
    near = difflib.get_close_matches(written.lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if len(names) > MANY_NAMES:
        close = difflib.get_close_matches(written, names, n=8, cutoff=0.0)
        return ConfigError(f"Unknown {kind} {shown}.{hint} There are {len(names)}; the nearest: {', '.join(close)}.")
    return ConfigError(f"Unknown {kind} {shown}.{hint} Choose one of: {', '.join(names)}.")
