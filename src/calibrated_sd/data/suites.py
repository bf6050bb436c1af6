"""Evaluation suites: how each is sampled and graded, and where its prepared file lies."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from calibrated_sd.data.sources import known_sources
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.records import read_object

PROBLEMS = "problems.jsonl"
"""Name of the file with the problems in a prepared folder."""
SUITE = "suite.json"
"""Name of the file that says where they come from, beside it."""


@dataclass(frozen=True)
class Sampled:
    """How completions are drawn: temperature (0 = greedy), nucleus mass, and the most tokens per completion."""

    temperature: float
    top_p: float
    max_new_tokens: int


PAPER_SAMPLES = 16
"""Samples per problem in the paper's evaluations."""
PAPER_SAMPLING: Mapping[str, Sampled] = {
    "thinking": Sampled(temperature=0.6, top_p=0.95, max_new_tokens=38_912),
    "no_thinking": Sampled(temperature=0.7, top_p=0.8, max_new_tokens=38_912),
}
"""The paper's evaluation settings, for thinking models and for Qwen3 with thinking off."""


@dataclass(frozen=True)
class SuiteDefinition:
    """How one suite is evaluated.

    Attributes:
        name, title: the suite's name in records, and in tables.
        grader: name of a grader in ``evaluation.grading.GRADERS``.
        n: samples per problem.
        sampling: how they are drawn, by mode: ``"thinking"`` and ``"no_thinking"``.
    """

    name: str
    title: str
    grader: str
    n: int = PAPER_SAMPLES
    sampling: Mapping[str, Sampled] = field(default_factory=lambda: dict(PAPER_SAMPLING))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in ``suite.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SuiteDefinition:
        """The definition that :meth:`as_dict` wrote.

        Raises:
            DataError: a field is missing or unknown.
        """
        try:
            sampling = {mode: Sampled(**values) for mode, values in data["sampling"].items()}
            return cls(**{**data, "sampling": sampling})
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"A suite definition cannot be read ({error}); the fields are name, title, grader, n and sampling. "
                "Prepare the suite again with csd data prepare."
            ) from error


@lru_cache
def built_in_suites() -> dict[str, SuiteDefinition]:
    """The suites of the paper by name, from ``suites.yaml``."""
    import yaml

    raw = yaml.safe_load(Path(__file__).with_name("suites.yaml").read_text("utf-8"))
    return {name: SuiteDefinition(name=name, **fields) for name, fields in raw.items()}


def suite_definition(path_or_name: str | os.PathLike[str]) -> SuiteDefinition | None:
    """How a suite is evaluated, or None for a file that nobody described.

    Args:
        path_or_name: name of a built-in suite, a prepared folder, or the problem file in one.

    Raises:
        DataError: the ``suite.json`` beside the file cannot be read.
    """
    built_in = built_in_suites().get(str(path_or_name))
    if built_in is not None:
        return built_in
    path = Path(path_or_name)
    beside = path / SUITE if path.is_dir() else path.with_name(SUITE)
    # Only for the file the description is about: others may lie in the same folder.
    if not beside.is_file() or (not path.is_dir() and path.name != PROBLEMS):
        return None
    definition = read_object(beside).get("definition")
    return None if definition is None else SuiteDefinition.from_dict(definition)


def find_suite(name: str, data_dir: str | os.PathLike[str] = "data") -> Path:
    """The problem file of a prepared suite.

    Args:
        name: name of the suite, which is the name of its folder.
        data_dir: where prepared suites lie.

    Raises:
        ConfigError: it has not been prepared there; the message gives the command that does it.
    """
    path = Path(data_dir) / name / PROBLEMS
    if path.is_file():
        return path
    if name in known_sources():
        raise ConfigError(
            f"The suite {name!r} has not been prepared: there is no {path}. Prepare it with csd data prepare {name} "
            f"--output {data_dir}, or say where it is with --data-dir."
        )
    folder = Path(data_dir)
    there = sorted(p.parent.name for p in folder.glob(f"*/{PROBLEMS}")) if folder.is_dir() else []
    raise ConfigError(
        f"There is no suite {name!r} in {data_dir} (prepared there: {', '.join(there) or 'none'}). Choose one of those, "
        f"prepare one of {', '.join(known_sources())} with csd data prepare NAME --output {data_dir}, or give a file."
    )
