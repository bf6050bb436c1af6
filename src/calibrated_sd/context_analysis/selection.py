"""Which problems a ladder is measured on: those the model solves sometimes (arXiv:2603.24472, section 3).

The paper draws 8 samples per problem and keeps, in file order, the problems with 1 to 4 right ones, a pass rate in
[0.125, 0.5]. It then reports *the same samples* as its row c = ∅. That row is biased: a problem with a true pass rate of
0.6 is kept only where its samples came out badly. Here screening samples are used for nothing but the selection (and, if
asked for, as solutions) unless ``select="paper"`` is chosen. No torch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from calibrated_sd.errors import ConfigError, unknown_name

SELECT = ("pass-rate", "paper", "all")
"""``pass-rate``: by screening samples used for nothing else; ``paper``: by samples that are also the row c = ∅, as in the
paper (biased); ``all``: no selection."""
BAND = (0.125, 0.5)
"""Lowest and highest base pass rate that the paper keeps: 1 to 4 of 8."""
CHUNK = 64
"""Problems screened together before it is asked whether enough were found."""

TOO_HARD, TOO_EASY, NOT_GRADED = "pass rate too low", "pass rate too high", "not graded"
NO_SOLUTION, ENOUGH = "no solution", "enough problems found"

Key = tuple[str, str]
Draw = Callable[[Sequence[Mapping[str, Any]], int], Sequence[Mapping[str, Any]]]


def problem_key(row: Mapping[str, Any]) -> Key:
    """(suite, problem_id): ids are distinct within a suite only."""
    return str(row["suite"]), str(row["problem_id"])


def by_problem(records: Iterable[Mapping[str, Any]]) -> dict[Key, list[Mapping[str, Any]]]:
    """Records of each problem in the order of their samples."""
    grouped: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        grouped[problem_key(record)].append(record)
    return {key: sorted(rows, key=lambda r: r["sample"]) for key, rows in grouped.items()}


def first_correct(records: Iterable[Mapping[str, Any]]) -> str | None:
    """The first right completion that the model ended itself, or None. A cut one has no ending to learn from."""
    right = (r["completion"] for r in records if r["correct"] and r["finish_reason"] == "stop")
    return next(right, None)


@dataclass(frozen=True)
class Choice:
    """What became of one problem.

    Attributes:
        suite, problem_id: the problem.
        n_correct, n_graded: right and graded screening samples; 0 of 0 where nothing was screened.
        reason: why it was left out; None where it was taken.
    """

    suite: str
    problem_id: str
    n_correct: int
    n_graded: int
    reason: str | None

    @property
    def pass_rate(self) -> float | None:
        """Right over graded screening samples."""
        return self.n_correct / self.n_graded if self.n_graded else None

    def as_dict(self) -> dict[str, Any]:
        """A row of ``selection.json``."""
        return {
            "suite": self.suite,
            "problem_id": self.problem_id,
            "n_correct": self.n_correct,
            "n_graded": self.n_graded,
            "pass_rate": self.pass_rate,
            "selected": self.reason is None,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Selector:
    """The rule by which problems are taken.

    Attributes:
        select: one of :data:`SELECT`.
        band: lowest and highest pass rate taken, both included.
        n_screen: context-free samples per problem; 0 where nothing is screened.
        max_problems: stop when so many are found; None for all.
        needs_rollout: also leave out problems without a right screening sample, because it is to be their solution.
        needs_column: also leave out problems without a ``solution`` of their own.

    Raises:
        ConfigError: a setting out of range, or a rule that needs screening without any.
    """

    select: str = "pass-rate"
    band: tuple[float, float] = BAND
    n_screen: int = 8
    max_problems: int | None = 100
    needs_rollout: bool = False
    needs_column: bool = False

    def __post_init__(self) -> None:
        if self.select not in SELECT:
            raise unknown_name("selection", self.select, SELECT)
        if not 0 <= self.band[0] <= self.band[1] <= 1:
            raise ConfigError(f"The pass rates {self.band[0]} to {self.band[1]} are no band between 0 and 1.")
        if self.max_problems is not None and self.max_problems < 1:
            raise ConfigError(f"--max-problems must be at least 1, got {self.max_problems}.")
        if self.n_screen < 0:
            raise ConfigError(f"--n-screen must be 0 (no screening) or more, got {self.n_screen}.")
        if self.n_screen == 0 and (self.select != "all" or self.needs_rollout):
            what = f"--select {self.select}" if self.select != "all" else "--solution-from rollout"
            raise ConfigError(
                f"{what} needs screening samples, but --n-screen is 0. Give --n-screen 8, or use --select all with "
                "--solution-from column."
            )

    def reason(self, problem: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str | None:
        """Why a problem is left out, or None."""
        graded = [r for r in samples if r["correct"] is not None]
        if self.select != "all":
            if not graded:
                return NOT_GRADED
            rate = sum(r["correct"] for r in graded) / len(graded)
            if not self.band[0] <= rate <= self.band[1]:
                return TOO_HARD if rate < self.band[0] else TOO_EASY
        if self.needs_rollout and first_correct(samples) is None:
            return NO_SOLUTION
        if self.needs_column and not problem.get("solution"):
            return NO_SOLUTION
        return None


@dataclass
class Selection:
    """Problems taken, in file order, what became of each, and the screening samples of those taken."""

    problems: list[Mapping[str, Any]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    samples: dict[Key, list[Mapping[str, Any]]] = field(default_factory=dict)

    def as_dict(self, selector: Selector) -> dict[str, Any]:
        """The content of ``selection.json``."""
        rates = [c.pass_rate for c in self.choices if c.pass_rate is not None]
        taken = [c.pass_rate for c in self.choices if c.pass_rate is not None and c.reason is None]
        left_out = Counter(choice.reason for choice in self.choices if choice.reason)
        return {
            "schema_version": 1,
            "kind": "selection",
            "select": selector.select,
            "biased": selector.select == "paper",
            "band": None if selector.select == "all" else list(selector.band),
            "n_screen": selector.n_screen,
            "max_problems": selector.max_problems,
            "seen": len(self.choices),
            "selected": len(self.problems),
            "left_out": dict(sorted(left_out.items())),
            "mean_pass_rate_of_all_screened": sum(rates) / len(rates) if rates else None,
            "mean_pass_rate_of_selected": sum(taken) / len(taken) if taken else None,
            "problems": [choice.as_dict() for choice in self.choices],
        }


def select_problems(problems: Sequence[Mapping[str, Any]], selector: Selector, draw: Draw) -> Selection:
    """Go through the file in chunks until enough problems are found.

    Args:
        problems: rows with ``suite``, ``problem_id`` and perhaps ``solution``, in file order.
        selector: the rule.
        draw: ``draw(problems of a chunk, number of the chunk)`` gives their context-free records; it is not called
            where ``n_screen`` is 0.
    """
    selection = Selection()
    limit = selector.max_problems
    for number, start in enumerate(range(0, len(problems), CHUNK)):
        if limit is not None and len(selection.problems) >= limit:
            break
        chunk = problems[start : start + CHUNK]
        samples = by_problem(draw(chunk, number)) if selector.n_screen else {}
        for problem in chunk:
            key = problem_key(problem)
            drawn = samples.get(key, [])
            reason = selector.reason(problem, drawn)
            if reason is None and limit is not None and len(selection.problems) >= limit:
                reason = ENOUGH
            graded = [r["correct"] for r in drawn if r["correct"] is not None]
            selection.choices.append(Choice(*key, sum(graded), len(graded), reason))
            if reason is None:
                selection.problems.append(problem)
                selection.samples[key] = drawn
    return selection
