"""From run folders to one tidy table: completions of every arm, seed and step, and `summary.csv`. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.metrics import summary_rows, tidy, values_by_question
from calibrated_sd.evaluation.question_tables import N_PAIRED
from calibrated_sd.evaluation.statistics import holm, paired_difference
from calibrated_sd.experiments.archive import StoredRun, stored_runs, words_of
from calibrated_sd.records import read_json

BASE = "base"
OOD = "ood"
"""Name of the pooled out-of-distribution suite."""
COMPARED_WITH = (BASE, "sdpo", "policy_gradient")
"""Arms from which every other arm's out-of-distribution difference is taken, where the folder has them."""
METRIC_NAMES = {
    "accuracy": "accuracy",
    "accuracy_given_finished": "accuracy_finished",
    "lexical_per_response": "markers_per_response",
    "lexical_per_1k": "markers_per_1k",
    "legacy_per_1k": "legacy_per_1k",
    "held_out_per_1k": "held_out_per_1k",
    "n_tokens": "length",
    "truncated_share": "truncated_share",
}
"""Names in `evaluation.metrics` → names in `summary.csv`."""

Words = dict[tuple[str, int, int], dict[str, dict[str, int]]]


@dataclass
class RunData:
    """All completions of a reproduce folder.

    Attributes:
        directory: the folder.
        ood_suites: suites pooled as out of distribution.
        records: completion records of the arms, as dicts.
        ladder: completion records of the context ladder.
        calibrated: arms in which a calibrator acts.
        last_step: the step after which a trained arm is finished; None counts every arm.
        words: (arm, seed, step) of archived evaluations, whose texts are gone → suite → word → count.
        steps: the step after which single arms are finished, instead of `last_step`.
        coverage: method → number of training problems → arm; empty without arms of other coverage.
    """

    directory: Path
    ood_suites: tuple[str, ...]
    records: list[dict[str, Any]]
    ladder: list[dict[str, Any]]
    calibrated: tuple[str, ...] = ()
    last_step: int | None = None
    words: Words = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    coverage: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return tidy(self.records)

    @cached_property
    def arms(self) -> list[str]:
        """The base and every arm that some seed has finished: the others have no last evaluation to compare."""
        if self.last_step is None:
            return list(dict.fromkeys(r["arm"] for r in self.records))
        last = {arm: self.steps.get(arm, self.last_step) for arm in dict.fromkeys(r["arm"] for r in self.records)}
        return list(dict.fromkeys(r["arm"] for r in self.records if r["arm"] == BASE or r["step"] == last[r["arm"]]))

    @property
    def coverage_arms(self) -> set[str]:
        """Arms that train on fewer or more problems than the method they are named after."""
        return {arm for method, sizes in self.coverage.items() for arm in sizes.values() if arm != method}

    def final_step(self, arm: str) -> int:
        return max(r["step"] for r in self.records if r["arm"] == arm)

    def final(self, arm: str, suites: Iterable[str] | None = None) -> pd.DataFrame:
        """The last evaluation of an arm, on the given suites (default: the pooled out-of-distribution suites)."""
        chosen = tuple(suites) if suites else self.ood_suites
        frame = self.frame
        rows = frame[(frame.arm == arm) & (frame.step == self.final_step(arm)) & frame.suite.isin(chosen)]
        return rows.assign(suite=OOD if not suites else rows.suite) if len(chosen) > 1 else rows

    def word_rates(self, arm: str) -> Counter[str]:
        """How often each word occurs per response, in the last evaluation on the out-of-distribution suites."""
        step = self.final_step(arm)
        rows = [r for r in self.records if r["arm"] == arm and r["step"] == step and r["suite"] in self.ood_suites]
        counts: Counter[str] = Counter()
        for row in rows:
            if (arm, row["seed"], step) not in self.words:
                counts.update(words_of(row["completion"]))
        for seed in sorted({row["seed"] for row in rows}):
            for suite, found in self.words.get((arm, seed, step), {}).items():
                counts.update(found if suite in self.ood_suites else {})
        return Counter({word: n / len(rows) for word, n in counts.items()})


def evaluations(runs: Iterable[StoredRun]) -> tuple[list[dict[str, Any]], Words]:
    """The records of all evaluations of these runs, and the words of those whose texts are gone."""
    records: list[dict[str, Any]] = []
    words: Words = {}
    for run in runs:
        for file in run.files:
            if not file.startswith("eval/"):
                continue
            rows = run.records(file)
            records += rows
            if run.archived and rows:
                words[rows[0]["arm"], rows[0]["seed"], rows[0]["step"]] = run.words(file)
    return records, words


def load_run(directory: str | Path) -> RunData:
    """Read every finished evaluation below `directory/runs` or in its archive.

    Raises:
        DataError: no manifest, or no evaluation at all.
    """
    directory = Path(directory)
    manifest = read_json(directory / "manifest.json")
    ood = tuple(s["name"] for s in manifest["suites"] if s["role"] != "train")
    runs = stored_runs(directory)
    records, words = evaluations(runs.values())
    if not records:
        raise DataError(f"{directory} holds no evaluation yet. Run `csd reproduce --output {directory}` first.")
    ladder_run = runs.get("ladder")
    ladder = [record for file in ladder_run.files for record in ladder_run.records(file)] if ladder_run else []
    last_step = max(manifest.get("eval_steps") or [0]) or None
    steps = {arm["name"]: arm["steps"] for arm in manifest["arms"] if arm.get("steps")}
    found = RunData(directory, ood, records, ladder, (), last_step, words, steps, coverage_of(manifest["arms"]))
    acting = (arm["name"] for arm in manifest["arms"] if arm.get("calibration_method"))
    found.calibrated = tuple(arm for arm in acting if arm not in found.coverage_arms)
    return found


def coverage_of(arms: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, str]]:
    """Method → number of training problems → arm, in rising order, from the arms of a manifest."""
    sizes: dict[str, dict[int, str]] = {}
    arms = list(arms)
    numbers: dict[str, int] = {arm["name"]: arm["n_train_problems"] for arm in arms if "n_train_problems" in arm}
    for arm in arms:
        if method := arm.get("coverage_of"):
            sizes.setdefault(method, {numbers[method]: method})[arm["n_train_problems"]] = arm["name"]
    return {method: dict(sorted(found.items())) for method, found in sizes.items()}


def contrast_rows(data: RunData, against: str, metric: str) -> list[dict[str, Any]]:
    """Out-of-distribution accuracy of every arm minus that of `against`, paired by question, Holm-corrected."""
    others = [arm for arm in data.arms if arm != against]
    if against not in data.arms or not others:
        return []
    b = values_by_question(data.final(against), "correct")
    found = {
        arm: paired_difference(values_by_question(data.final(arm), "correct"), b, n_resamples=N_PAIRED)
        for arm in others
    }
    p_holm = holm({arm: f.p_value for arm, f in found.items() if f.p_value is not None})
    return [
        {
            "arm": arm,
            "seed": "all",
            "suite": OOD,
            "step": data.final_step(arm),
            "metric": metric,
            **found[arm].figure,
            "p_value": found[arm].p_value,
            "p_holm": p_holm.get(arm),
        }
        for arm in others
    ]


def summarise_run(data: RunData, *, n_resamples: int = 2000) -> pd.DataFrame:
    """`summary.csv`: one row per arm, suite, step and metric; seeds pooled as clusters, plus one row per seed at the end.

    Columns: ``arm, seed, suite, step, metric, value, lo, hi, n, unit, method, p_value, p_holm``; seed is ``"all"`` where
    seeds are pooled.
    """
    frame = data.frame
    pooled = frame[frame.suite.isin(data.ood_suites)].assign(suite=OOD)
    both = pd.concat([frame, pooled], ignore_index=True)
    rows = [
        {"seed": "all", **row, "metric": METRIC_NAMES[row["metric"]]}
        for row in summary_rows(both, by=("arm", "suite", "step", "context"), n_resamples=n_resamples)
        if row["metric"] in METRIC_NAMES
    ]
    if frame.seed.nunique() > 1:
        last_step = {arm: data.final_step(arm) for arm in frame.arm.unique()}
        last = both[both.step == both.arm.map(last_step)]
        rows += [
            {**row, "metric": METRIC_NAMES[row["metric"]]}
            for row in summary_rows(last, by=("arm", "seed", "suite", "step", "context"), n_resamples=n_resamples)
            if row["metric"] in METRIC_NAMES
        ]
    for against in COMPARED_WITH:
        rows += contrast_rows(data, against, f"ood_difference_vs_{against}")
    columns = [
        "arm",
        "seed",
        "suite",
        "step",
        "metric",
        "value",
        "lo",
        "hi",
        "n",
        "unit",
        "method",
        "p_value",
        "p_holm",
    ]
    return pd.DataFrame(rows).reindex(columns=columns)
