"""Settings as users write them: mappings (JSON objects on the command line), and values of another type than a setting has."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from calibrated_sd.errors import ConfigError, shortened
from calibrated_sd.records.setting_types import check_settings


def as_mapping(
    given: Mapping[str, Any] | str | None,
    name: str = "calibration_kwargs",
    what: str = "settings to values",
    example: str = '{"kappa": 0.8}',
) -> dict[str, Any]:
    """Read a setting that is a mapping, a JSON object, or None for none.

    Args:
        given: what the user wrote.
        name: of the setting.
        what: what it maps to what, for the message.
        example: a value that would be right, for the message.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(
                f"{name}={shortened(given)} is no JSON object: {error}. Write it like '{example}'."
            ) from error
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f"{name} must be a mapping of {what}, got {given!r}.")
    return dict(given or {})


def check_types(args: Any, config: type, trl_config: type) -> None:
    """Check the values of the settings that a config adds to TRL's against their annotations.

    Args:
        args: an instance of `config`, or of a class derived from it, whose own fields are not looked at. A path stands
            for its text.
        config: a config of this package.
        trl_config: TRL's config that it extends.

    Raises:
        ConfigError: a list, None, NaN or the like where a word or a number belongs.
    """
    theirs = {field.name for field in dataclasses.fields(trl_config)}
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(config) if field.name not in theirs}
    plain = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()}
    check_settings(plain, config, type(args).__name__)


def metadata_of(config: Any, name: str) -> dict[str, Any]:
    """Help and all else that TRL's field of that name brings, for a field that takes its place."""
    return dict(config.__dataclass_fields__[name].metadata)
