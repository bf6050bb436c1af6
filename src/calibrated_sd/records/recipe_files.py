"""YAML that people write, read with care: recipes are passed around, and YAML can say more than settings.

What comes back are mappings with text as keys, lists, text, numbers, booleans and None, of a size that can be hashed and
printed. Everything else is refused with its place in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import ConfigError, shortened

YAML_ERRORS = (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError)
"""All that PyYAML raises on text that is no YAML, or is nested too deeply."""
LARGEST = 10**6
"""Characters of a recipe; the longest shipped one has ten thousand."""
MOST_VALUES = 50_000
"""Values in it, one that is referred to several times counted each time: ten lines of references can make billions."""
MOST_TEXT = 10**7
"""Characters of them together."""
LARGEST_NUMBER = 2**63


def read_recipe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """The text of a recipe and the settings in it; an empty file has none.

    Raises:
        ConfigError: no UTF-8, no YAML, no mapping, or values that are no settings.
    """
    data = Path(path).read_bytes()
    if len(data) > LARGEST:
        raise ConfigError(
            f"{path} has {len(data)} bytes; a recipe has {LARGEST} at most. Give a recipe, not a file of data."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}. Save the file as UTF-8.") from error
    try:
        raw = yaml.safe_load(text)
    except YAML_ERRORS as error:
        reason = " ".join(str(error).split()) if not isinstance(error, RecursionError) else "it is nested too deeply"
        raise ConfigError(f"{path} is not valid YAML: {shortened(reason, 600)}. Correct the file.") from error
    if raw is None:
        return text, {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds {type(raw).__name__}, not settings. A recipe is a mapping of keys to values.")
    _check_plain(raw, path)
    return text, raw


def _check_plain(raw: dict[Any, Any], path: str | Path) -> None:
    waiting: list[Iterator[tuple[str, Any]]] = [_named("", raw, path)]
    count = size = 0
    while waiting:
        found = next(waiting[-1], None)
        if found is None:
            waiting.pop()
            continue
        place, value = found
        count += 1
        size += len(place) + (len(value) if isinstance(value, str) else 0)
        if count > MOST_VALUES or size > MOST_TEXT or len(waiting) > 50:  # also a list that contains itself
            raise ConfigError(
                f"{path} stands for more than {MOST_VALUES} values or {MOST_TEXT} characters, or nests them more than 50 "
                f"deep, at {place}. Write the settings out without references (&, *)."
            )
        if isinstance(value, (dict, list)):
            waiting.append(_named(place, value, path))
        elif isinstance(value, str):
            _check_text(value, place, path)
        elif isinstance(value, int) and abs(value) >= LARGEST_NUMBER:
            raise ConfigError(f"{place} in {path} is a whole number of more than 64 bits. Give a smaller one.")
        elif value is not None and not isinstance(value, (bool, int, float)):
            raise ConfigError(
                f"{place} in {path} is {shortened(value)}, which YAML reads as {type(value).__name__}. Write it in quotes if "
                "it is text."
            )


def _named(place: str, value: dict[Any, Any] | list[Any], path: str | Path) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"{place}[{i}]", item) for i, item in enumerate(value))
        return
    for key, item in value.items():
        if not isinstance(key, str):
            raise ConfigError(
                f"{place or 'A recipe'} in {path} has the key {shortened(key)}, which YAML reads as {type(key).__name__}. "
                "Write it in quotes if it is text (on, off, yes, no and null are none without)."
            )
        _check_text(key, f"a key of {place}" if place else "a key", path)
        yield shortened(f"{place}.{key}" if place else key, 200, plain=True), item


def _check_text(value: str, place: str, path: str | Path) -> None:
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ConfigError(
            f"{place} in {path} is {shortened(value)}, which holds a character that no file name or setting can hold. "
            "Remove it."
        )
