"""Whether values from a file are what the fields of a dataclass hold. Nothing is converted."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any

from calibrated_sd.errors import ConfigError, shortened

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
    tuple: "a list",
    type(None): "null",
}

E_NOTATION = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")

WIDER: dict[str, type] = {"scale_rewards": bool, "fsdp": bool}
"""Fields of trl and transformers that take more, by their documentation, than their annotation says."""


def check_settings(values: Mapping[str, Any], cls: type, where: str, *, text: bool = False) -> None:
    """Check each value against the annotation of the field of its name; other names are passed over.

    Args:
        values: field → value, as YAML gives them.
        cls: a dataclass. Annotations that say nothing of plain values accept all.
        where: for the message, e.g. ``"my_run.yaml"``.
        text: whether text stands for any value, as where a command line's parser reads it next.

    Raises:
        ConfigError: a value of another type, or a number that is none (NaN).
    """
    for name, (hint, default) in _fields(cls).items():
        if name not in values or (values[name] is None and default is None):
            continue
        value = values[name]
        if text and isinstance(value, Mapping) and (misread := next(_misread(value), None)):
            raise ConfigError(
                f"{name} in {where} holds {misread}, which YAML reads as text: a number has a dot before its e and a sign "
                "after it, as in 5.0e-4. Write it so."
            )
        if (text and isinstance(value, str)) or fits(value, hint) or (name in WIDER and fits(value, WIDER[name])):
            continue
        advice = ""
        if any(isinstance(one, str) and _is_number(one) for one in _inner(value)):
            advice = " YAML reads it as text: a number stands without quotes and has a dot before its e, as in 5.0e-4."
        elif isinstance(value, bool):
            advice = " YAML reads on, yes, off and no as true and false; text of that kind stands in quotes."
        elif isinstance(value, list) and fits("", hint):
            advice = " Write several in one text, separated by commas."
        elif isinstance(value, (int, float)) and fits("", hint):
            advice = " Text that looks like a number stands in quotes."
        raise ConfigError(f"{name} in {where} must be {' or '.join(_said(hint))}, got {shortened(value)}.{advice}")


def check_counts(values: Mapping[str, Any], least: Mapping[str, int], where: str) -> None:
    """Check whole numbers against the least that makes sense; None and names that are not there are passed over.

    Raises:
        ConfigError: a smaller one.
    """
    for name, bound in least.items():
        value = values.get(name)
        if value is not None and value < bound:
            raise ConfigError(f"{name} in {where} must be at least {bound}, got {shortened(value)}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from YAML is one that this annotation describes; a list stands for a tuple."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return isinstance(value, str)  # its own class knows which
    kind = origin or hint
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in (bool, str, type(None)):
        return isinstance(value, kind)
    if kind in (dict, Mapping):
        return isinstance(value, Mapping) and (not inner or all(fits(item, inner[1]) for item in value.values()))
    if kind in (list, tuple, Sequence):
        return isinstance(value, (list, tuple)) and (not inner or all(fits(item, inner[0]) for item in value))
    return True


@cache
def _fields(cls: type) -> dict[str, tuple[Any, Any]]:
    hints = typing.get_type_hints(cls)
    return {f.name: (hints[f.name], f.default) for f in dataclasses.fields(cls) if f.init}


def _said(hint: Any) -> list[str]:
    """What a value must be, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return list(dict.fromkeys(word for one in inner for word in _said(one)))
    if origin is typing.Literal:
        return [repr(one) for one in inner]
    if origin in (list, tuple) and inner:
        return [f"a list ({_said(inner[0])[0]} each)"]
    if origin is dict and inner and inner[1] is not Any:
        return [f"a mapping to {_said(inner[1])[0]}"]
    return [WORDS.get(origin or hint, "text")]


def _inner(value: Any) -> list[Any]:
    """A value, or what a list holds."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _misread(values: Any) -> Iterator[str]:
    """Numbers such as 1e-4 in a mapping, which no command line's parser reads next."""
    for value in values.values() if isinstance(values, Mapping) else values:
        if isinstance(value, (Mapping, list)):
            yield from _misread(value)
        elif isinstance(value, str) and E_NOTATION.fullmatch(value):
            yield value


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
