"""The context ladder (arXiv:2603.24472, section 3, Table 1): screen, choose, sample under each context, grade, count.

Everything is written as it is made: a ladder that was killed continues where it stopped and ends with the same files. The
folder holds::

    screen/part_0000.jsonl …       context-free samples by which problems are chosen
    selection.json                 every problem seen, its pass rate, why it was left out
    rewrites/completions.jsonl     ỹ: one sample of each problem given its solution (level regenerated)
    problems.jsonl                 the problems measured, with solution and ỹ
    <level>/completions.jsonl      the samples of each level
    ladder.json                    figures, ratios, checks
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from calibrated_sd.context_analysis.ladder_prompts import (
    RUNGS,
    SOLUTION_FROM,
    Row,
    add_sampled_solutions,
    add_written_solutions,
    complete_rows,
    level_rows,
    need_solutions,
)
from calibrated_sd.context_analysis.prompts import TEMPLATES
from calibrated_sd.context_analysis.selection import Selection, Selector, problem_key, select_problems
from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.evaluation.statistics import Figure, mean_interval
from calibrated_sd.records import write_json, write_jsonl

PROBLEMS, SELECTION, LADDER = "problems.jsonl", "selection.json", "ladder.json"
SCREEN, REWRITES = "screen", "rewrites"

Records = list[dict[str, Any]]


class Record(Protocol):
    """Samples problems into a file, keeps what the file holds already, and returns all records of it."""

    def __call__(
        self, problems: Sequence[Mapping[str, Any]], path: Path, *, n: int, context: str, sampling_seed: int
    ) -> Records: ...


@dataclass(frozen=True)
class LadderPlan:
    """What is measured.

    Attributes:
        levels: context levels, see :func:`~calibrated_sd.context_analysis.ladder_prompts.parse_ladder`.
        n: samples per problem and level.
        select, n_screen, max_problems, band: see :class:`~calibrated_sd.context_analysis.selection.Selector`.
        solution_from: ``"rollout"`` or ``"column"``.
        template: ``"training"`` or ``"paper"``.
        seed: seed of all samples.

    Raises:
        ConfigError: a setting out of range.
    """

    levels: tuple[str, ...] = RUNGS
    n: int = 8
    select: str = "pass-rate"
    n_screen: int = 8
    max_problems: int | None = 100
    band: tuple[float, float] = (0.125, 0.5)
    solution_from: str = "rollout"
    template: str = "training"
    seed: int = 0
    selector: Selector = field(init=False)

    def __post_init__(self) -> None:
        if self.solution_from not in SOLUTION_FROM:
            raise unknown_name("source of solutions", self.solution_from, SOLUTION_FROM)
        if self.template not in TEMPLATES:
            raise unknown_name("template", self.template, TEMPLATES)
        if self.n < 1:
            raise ConfigError(f"--n must be at least 1, got {self.n}.")
        if self.select == "paper" and self.n != self.n_screen:
            raise ConfigError(
                f"--select paper uses the screening samples as the row c = ∅, so --n ({self.n}) and --n-screen "
                f"({self.n_screen}) must be the same. The paper has 8 and 8."
            )
        wants = need_solutions(self.levels)
        rollout, column = (wants and self.solution_from == name for name in SOLUTION_FROM)
        # Screening that decides nothing is not done.
        n_screen = self.n_screen if self.select != "all" or rollout else 0
        rule = Selector(self.select, self.band, n_screen, self.max_problems, rollout, column)
        object.__setattr__(self, "selector", rule)

    def stage_seed(self, stage: str) -> int:
        """A seed for samples that must not repeat those of the levels, 32 bits."""
        return int.from_bytes(hashlib.sha256(f"ladder/{stage}/{self.seed}".encode()).digest()[:4], "big")


@dataclass
class Ladder:
    """What was measured.

    Attributes:
        records: completion records of each level.
        selection: which problems, out of which.
        left_out: chosen problems that a level had nothing to show for, by reason.
        rewrites: ``correct`` and ``finished`` shares of ỹ; empty without that level.
    """

    records: dict[str, Records]
    selection: Selection
    left_out: dict[str, int]
    rewrites: dict[str, Figure]


def measure_ladder(
    problems: Sequence[Mapping[str, Any]],
    folder: Path,
    plan: LadderPlan,
    record: Record,
    *,
    too_long: Callable[[Row], bool] = lambda row: False,
) -> Ladder:
    """Sample the whole ladder into ``folder``; what is there already is not made again.

    Args:
        problems: rows with ``suite, problem_id, prompt, answer`` and perhaps ``solution``.
        folder: where everything is written.
        plan: what is measured.
        record: samples problems into a file, e.g. a bound
            :func:`~calibrated_sd.evaluation.completions.record_completions`.
        too_long: whether the prompt of a row does not fit the model.

    Raises:
        DataError: no problem was chosen, or none has something to show at every level.
    """

    def draw(chunk: Sequence[Mapping[str, Any]], number: int) -> Records:
        path = folder / SCREEN / f"part_{number:04d}.jsonl"
        seed = plan.stage_seed(SCREEN)
        return record(chunk, path, n=plan.n_screen, context="none", sampling_seed=seed)

    rows: Sequence[Mapping[str, Any]] = problems
    if plan.selector.needs_column:
        rows = add_written_solutions(problems)
    selection = select_problems(rows, plan.selector, draw)
    write_json(folder / SELECTION, selection.as_dict(plan.selector))
    if not selection.problems:
        raise DataError(_nothing_selected(selection, plan))
    chosen = [dict(row) for row in selection.problems]
    if plan.selector.needs_rollout:
        chosen = add_sampled_solutions(chosen, selection.samples)

    rewrites: dict[str, Figure] = {}
    if "regenerated" in plan.levels:
        chosen, rewrites = _add_rewrites(chosen, folder, plan, record, too_long)
    chosen, by_level, left_out = complete_rows(
        chosen, plan.levels, template=plan.template, seed=plan.seed, too_long=too_long
    )
    if not chosen:
        reasons = ", ".join(f"{why}: {n}" for why, n in left_out.items())
        raise DataError(f"No problem has a prompt at every level of the ladder ({reasons}). Choose other --levels.")
    write_jsonl(folder / PROBLEMS, [{"schema_version": 1, **row} for row in chosen])

    records = {}
    for level in plan.levels:
        path = folder / level / "completions.jsonl"
        if level == "none" and plan.select == "paper":
            records[level] = [dict(r) for row in chosen for r in selection.samples[problem_key(row)]]
            write_jsonl(path, records[level])
        else:
            records[level] = record(by_level[level], path, n=plan.n, context=level, sampling_seed=plan.seed)
    return Ladder(records, selection, left_out, rewrites)


def _add_rewrites(
    rows: Sequence[Row], folder: Path, plan: LadderPlan, record: Record, too_long: Callable[[Row], bool]
) -> tuple[list[Row], dict[str, Figure]]:
    """ỹ of every row: one sample under the solution, kept whole and whether or not it is right, as in the paper."""
    asked = [row for row in level_rows(rows, "solution", template=plan.template, seed=plan.seed) if row]
    asked = [row for row in asked if not too_long(row)]
    made = record(
        asked, folder / REWRITES / "completions.jsonl", n=1, context="solution", sampling_seed=plan.stage_seed(REWRITES)
    )
    texts = {problem_key(r): r["completion"] for r in made if r["completion"].strip()}
    graded = {problem_key(r): [float(r["correct"])] for r in made if r["correct"] is not None}
    finished = {problem_key(r): [float(r["finish_reason"] == "stop")] for r in made}
    figures = {"correct": mean_interval(graded), "finished": mean_interval(finished)}
    # A problem without ỹ is left out: a grammar's rewrite must not stand in for one that was really sampled.
    return [{**row, "regenerated": texts[problem_key(row)]} for row in rows if problem_key(row) in texts], figures


def _nothing_selected(selection: Selection, plan: LadderPlan) -> str:
    reasons = ", ".join(f"{why}: {n}" for why, n in selection.as_dict(plan.selector)["left_out"].items())
    low, high = plan.band
    hint = (
        f"Choose a harder or easier file, widen --min-pass-rate {low:g} and --max-pass-rate {high:g}, or use --select all"
        if plan.select != "all"
        else "Use --solution-from column if the file has solutions, or raise --n-screen"
    )
    return f"None of {len(selection.choices)} problems can be used ({reasons}). {hint}."
