"""Which names may become a folder's: names come from recipes, options and archives, and recipes are passed around."""

from __future__ import annotations

import re

from calibrated_sd.errors import ConfigError

LONGEST = 200
"""File systems take 255 bytes; a sweep's names stay far below."""


def check_folder_name(name: str, what: str) -> str:
    """The name, if a folder of that name stays where it is put: no separator, no ``..``, nothing hidden, no control character.

    Args:
        name: e.g. ``"projection_strength=0.25"``.
        what: what is called so, for the message: "The arm".

    Raises:
        ConfigError: it is not usable.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.=+-]*", name) or len(name.encode()) > LONGEST:
        raise ConfigError(
            f"{what} is called {str(name)[:LONGEST]!r}, which cannot be a folder's name. Use letters, digits and "
            f"_ . = + - and begin with a letter or digit, {LONGEST} bytes at most."
        )
    return name
