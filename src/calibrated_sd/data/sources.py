"""The data sets that `csd data prepare` knows by name: where they are, under which licence, what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from calibrated_sd.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Source:
    """One known data set.

    Attributes:
        name, title: how it is called on the command line, and in tables.
        use: training, evaluation, or evaluation only.
        licence, note: one line each for people.
        hub_id, revision, files: repository, commit and file patterns on the Hugging Face hub; None and () for a
            generated one. A revision of None is resolved at the first download and recorded in ``suite.json``.
        boxed_answer: take the answer from the last box of the solution, because the answer column is unreliable.
        choices: the answer is the letter of one of the row's ``choices``.
        keep: only rows whose (dotted) field holds one of these values.
        generator: package that makes the rows, where there is no file.
    """

    name: str
    title: str
    use: str
    licence: str
    note: str
    hub_id: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    boxed_answer: bool = False
    choices: bool = False
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    generator: str | None = None


@lru_cache
def known_sources() -> dict[str, Source]:
    """All known data sets by name, in the order of ``sources.yaml``."""
    import yaml

    raw: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text("utf-8"))
    sources = {}
    for name, fields in raw.items():
        keep = {key: tuple(values) for key, values in fields.pop("keep", {}).items()}
        files = tuple(fields.pop("files", ()))
        sources[name] = Source(name=name, files=files, keep=keep, **fields)
    return sources


def find_source(name: str) -> Source:
    """The known data set of that name.

    Raises:
        ConfigError: there is none.
    """
    sources = known_sources()
    if name not in sources:
        raise unknown_name("data source", name, sources)
    return sources[name]
