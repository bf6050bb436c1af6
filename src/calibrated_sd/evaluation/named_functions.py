"""Functions that a recipe or a command line names: ``"package.module:function"`` or ``"folder/file.py:function"``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError


def load_function(name: str, kind: str = "function") -> Callable[..., Any]:
    """The function that ``name`` stands for. The current folder is searched too.

    Args:
        name: ``"package.module:function"``, or a file ending in ``.py`` in place of the module.
        kind: what it is wanted for, for the error message, e.g. ``"reward"``.

    Raises:
        ConfigError: no such module, file or name, or it is not callable.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ConfigError(f"The {kind} {name!r} is not of the form module:function, e.g. my_rewards:short_and_right.")
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else _module(place)
    except Exception as error:  # whatever the module's own code raises
        raise ConfigError(
            f"The {kind} {name!r} cannot be loaded: importing {place} failed ({type(error).__name__}: {error}). Give an "
            "importable module, or the path of a .py file relative to the current folder."
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        what = "has no such name" if found is None else f"holds {type(found).__name__} under it, which is no function"
        raise ConfigError(f"The {kind} {name!r} cannot be loaded: {place} {what}. Check the spelling.")
    return found


def function_file(name: str | None) -> Path | None:
    """The file that holds the function; None for one of an importable module."""
    place = (name or "").rpartition(":")[0]
    return Path(place) if place.endswith(".py") else None


def _module(name: str) -> Any:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"csd_file_{path.stem}_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its functions can be pickled
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
