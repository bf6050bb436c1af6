"""Settings that are mappings: from Python and YAML as they are, on the command line as JSON objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from calibrated_sd.errors import ConfigError, shortened


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


def metadata_of(config: Any, name: str) -> dict[str, Any]:
    """Help and all else that TRL's field of that name brings, for a field that takes its place."""
    return dict(config.__dataclass_fields__[name].metadata)
