"""The table of a study's hypotheses: what was predicted, and what its criterion says to the measured figures.

The hypotheses stand in a YAML file beside the study's folders: ``id, statement, criterion, check`` and the check's own
options, ``from`` among them. A check is one function of this file; verdicts are computed, never written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.evaluation.statistics import holm, standard_error
from calibrated_sd.records.recipe_files import YAML_ERRORS
from calibrated_sd.reports.archived_samples import add_samples
from calibrated_sd.reports.folder import BASE
from calibrated_sd.reports.published.arms_table import label_of, partial_warning, seeds_text
from calibrated_sd.reports.published.markdown import PublishedTable, score_text
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.published.paired import contrast, density_ratio
from calibrated_sd.reports.published.sweep_tables import KEPT, LOST, is_gamed
from calibrated_sd.reports.scores import OOD, Score, Scores
from calibrated_sd.reports.sweep_folder import load_sweep_folder

HOLDS, FAILS, OPEN, NOT_RUN = "holds", "fails", "not decidable", "not run"
SIGNIFICANT = 0.05
STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        verdict: ``holds``, ``fails`` or ``not decidable``.
        told: the figures that decide it.
        arms: the arms it rests on.
        reason: why it is not decidable; empty otherwise.
    """

    verdict: str
    told: str
    arms: tuple[str, ...]
    reason: str = ""


class Study:
    """One folder of the study and what is asked of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = load_measured(path)
        add_samples(self.folder)
        self.scores = Scores(self.folder)

    def arm(self, name: str) -> str:
        """The name itself.

        Raises:
            ConfigError: the folder does not know the arm.
        """
        known = [arm.name for arm in self.folder.arms]
        if name not in known:
            raise unknown_name(f"arm of {self.path.name}", name, known)
        return name

    def label(self, arm: str) -> str:
        return label_of(self.folder, arm)

    def measured(self, arms: Iterable[str]) -> bool:
        return all(self.scores.get(arm, OOD, "accuracy") is not None for arm in arms)

    def difference(self, arm: str, against: str) -> Score | None:
        found = contrast(self.scores, arm, against)
        return found.score if found else None

    def retention(self, arm: str) -> Score | None:
        return self.scores.get(arm, OOD, "retention") or density_ratio(self.scores, arm, "lexical")

    def p_value(self, arm: str, against: str) -> float | None:
        """Uncorrected, of the table's test of OOD accuracy; None where the table has none."""
        rows = self.folder.summary
        assert rows is not None
        rows = rows[(rows["arm"] == arm) & (rows["metric"] == f"ood_difference_vs_{against}")]
        values = [] if rows.empty or "p_value" not in rows else [rows.iloc[-1]["p_value"]]
        return float(values[0]) if values and str(values[0]) not in ("", "nan") else None


def standard_errors(score: Score) -> float | None:
    """How many standard errors the value lies from 0; None without an interval that has a width."""
    if score.value is None or score.lo is None or score.hi is None or score.hi <= score.lo:
        return None
    return score.value / standard_error({"lo": score.lo, "hi": score.hi})


def raised(study: Study, options: Mapping[str, Any]) -> Finding:
    """Holds if any arm's OOD accuracy is above that of ``against``, by a p-value Holm-corrected over ``arms``."""
    arms, against = tuple(map(study.arm, options["arms"])), study.arm(options["against"])
    p = {arm: value for arm in arms if (value := study.p_value(arm, against)) is not None}
    if len(p) < len(arms):
        return Finding(OPEN, "", arms, f"{len(arms) - len(p)} arms have no p-value")
    adjusted = holm(p)
    differences = {arm: found for arm in arms if (found := study.difference(arm, against)) and found.value is not None}
    above = [arm for arm in differences if adjusted[arm] < SIGNIFICANT and differences[arm].value > 0]
    best = max(differences, key=lambda arm: differences[arm].value)
    told = f"{len(above)} of {len(arms)} arms above; largest: {study.label(best)} {score_text(differences[best], 2, signed=True)}"
    told += f", p = {adjusted[best]:.2g}; largest p: {max(adjusted.values()):.2g}"
    return Finding(HOLDS if above else FAILS, told, (*arms, against))


def falls(study: Study, options: Mapping[str, Any]) -> Finding:
    """Holds if each of ``arms`` is below ``against`` (base) by ``standard_errors`` (3), and none of ``not`` is."""
    against = study.arm(options.get("against", BASE))
    wanted = [
        *((study.arm(a), True) for a in options["arms"]),
        *((study.arm(a), False) for a in options.get("not", ())),
    ]
    told, right = [], []
    for arm, should_fall in wanted:
        found = study.difference(arm, against)
        errors = standard_errors(found) if found else None
        if found is None or errors is None:
            return Finding(OPEN, "", (arm, against), f"{study.label(arm)} has no interval")
        right.append((errors <= -STANDARD_ERRORS) == should_fall)
        by = f"{errors:+.1f}".replace("-", "−")
        told.append(f"{study.label(arm)} {score_text(found, 3, signed=True)}, {by} SE")
    return Finding(HOLDS if all(right) else FAILS, "; ".join(told), (*(a for a, _ in wanted), against))


def worse_when_matched(study: Study, options: Mapping[str, Any]) -> Finding:
    """Holds if ``series`` is below the best of ``rivals`` where each keeps ``target`` of the base model's markers."""
    sweep = load_sweep_folder(study.path)
    target, name, rivals = float(options["target"]), str(options["series"]), list(map(str, options["rivals"]))
    for series in (name, *rivals):
        if series not in sweep.series:
            raise unknown_name(f"curve of {study.path.name}", series, sweep.series)
    arms = tuple(point.name for series in (name, *rivals) for point in sweep.series[series])
    at = {entry.series: entry for entry in sweep.matched if entry.target == target}
    reached = {s: at[s].accuracy for s in rivals if s in at and at[s].reached and at[s].accuracy.value is not None}
    own = at.get(name)
    if own is None or not reached:
        return Finding(OPEN, "", arms, f"nothing was compared at retention {target:g}")
    best = max(reached, key=lambda series: reached[series].value or 0.0)
    told = f"{best} at {target:g}: {score_text(reached[best], 2)}"
    if not own.reached:
        top = max((p for p in sweep.series[name] if p.has("accuracy")), key=lambda p: p.scores["accuracy"].value or 0.0)
        told += f"; {name} reaches retention {own.low:.2f} to {own.high:.2f}, OOD at most {score_text(top.scores['accuracy'], 2)}"
        return Finding(OPEN, told, arms, f"{name} reaches no retention of {target:g} at any strength measured")
    apart = own.accuracy.hi is not None and reached[best].lo is not None and own.accuracy.hi < reached[best].lo
    told += f"; {name} {score_text(own.accuracy, 2)}"
    return Finding(HOLDS if apart else FAILS, told, arms)


def gamed(study: Study, options: Mapping[str, Any]) -> Finding:
    """Holds if some arm keeps trained markers within ±20 % and loses more than 30 % of the held-out ones; names them."""
    series = load_sweep_folder(study.path).series
    wanted = list(options.get("series") or series)
    arms = [point.name for name in wanted for point in series[name]]
    told, unknown = [], []
    for arm in arms:
        held_out = density_ratio(study.scores, arm, "held_out")
        found = is_gamed(study.retention(arm), held_out)
        if found is None:
            unknown.append(arm)
        elif found:
            told.append(
                f"{study.label(arm)}: {score_text(study.retention(arm), 2)} trained, {score_text(held_out, 2)} held-out"
            )
    if unknown and not told:
        return Finding(OPEN, "", tuple(arms), f"{len(unknown)} arms have no samples")
    return Finding(HOLDS if told else FAILS, "; ".join(told) or f"none of {len(arms)}", tuple(arms))


def level(study: Study, options: Mapping[str, Any]) -> Finding:
    """Holds if the interval of ``arm`` − ``against`` lies within ± ``margin``; fails if it excludes 0; else not decidable."""
    arm, against, margin = study.arm(options["arm"]), study.arm(options["against"]), float(options["margin"])
    found = study.difference(arm, against)
    if found is None or found.lo is None or found.hi is None:
        return Finding(OPEN, "", (arm, against), "there is no interval")
    told = f"{study.label(arm)} − {study.label(against)}: {score_text(found, 3, signed=True)}"
    if -margin <= found.lo and found.hi <= margin:
        return Finding(HOLDS, told, (arm, against))
    if found.lo > 0 or found.hi < 0:
        return Finding(FAILS, told, (arm, against))
    return Finding(OPEN, told, (arm, against), f"the interval includes 0 and is not within ±{margin:g}")


def retains(study: Study, options: Mapping[str, Any]) -> Finding:
    """Holds if the retention of each of ``arms`` is within ± ``margin`` of ``target`` at the end of training."""
    arms, target, margin = tuple(map(study.arm, options["arms"])), float(options["target"]), float(options["margin"])
    found = {arm: study.retention(arm) for arm in arms}
    if any(score is None or score.value is None for score in found.values()):
        return Finding(OPEN, "", arms, "an arm's retention was not measured")
    within = [abs((score.value or 0.0) - target) <= margin for score in found.values() if score]
    told = "; ".join(f"{study.label(arm)} {score_text(score, 2)}" for arm, score in found.items())
    return Finding(HOLDS if all(within) else FAILS, told, arms)


CHECKS: dict[str, tuple[Callable[[Study, Mapping[str, Any]], Finding], tuple[str, ...]]] = {
    "raised": (raised, ("arms", "against")),
    "falls": (falls, ("arms",)),
    "worse_when_matched": (worse_when_matched, ("series", "rivals", "target")),
    "gamed": (gamed, ()),
    "level": (level, ("arm", "against", "margin")),
    "retains": (retains, ("arms", "target", "margin")),
}
"""Name → check and the options it needs."""


def hypotheses_table(file: Path, options: Mapping[str, Any]) -> PublishedTable:
    """One row per hypothesis, with its verdict.

    Args:
        file: YAML, a list under ``hypotheses``; ``from`` of each is a folder relative to the file.
        options: none.

    Raises:
        ConfigError: an unknown check, arm or curve, or an option is missing.
        DataError: no such file.
    """
    studies: dict[Path, Study] = {}
    rows, notes, counted = [], [], dict.fromkeys((HOLDS, FAILS, OPEN, NOT_RUN), 0)
    for entry in read_hypotheses(file):
        place = file.parent / str(entry["from"])
        verdict, told, seeds = NOT_RUN, "–", "–"
        if any((place / name).is_file() for name in ("summary.csv", "results.csv", "results.json")):
            study = studies[place] if place in studies else studies.setdefault(place, Study(place))
            check, _ = CHECKS[entry["check"]]
            found = check(study, entry)
            verdict, told = found.verdict, found.told or "–"
            finished = sorted({seeds_text(study.folder, arm) for arm in found.arms} - {""})
            seeds = ", ".join(finished) or "–"
            partial = partial_warning(study.folder, found.arms)
            if partial:
                verdict = OPEN
            if found.reason or partial:
                notes.append(f"{entry['id']}: {found.reason or 'fewer finished seeds than planned'}.")
        counted[verdict] += 1
        rows.append((str(entry["id"]), str(entry["statement"]), f"**{verdict}**", told, seeds, str(entry["criterion"])))
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counted.items() if n)
    return PublishedTable(
        ("", "hypothesis", "verdict", "figures [95 % interval]", "seeds", "criterion"),
        tuple(rows),
        f"{summary}. Verdicts are computed by the criterion. Differences are of OOD accuracy, paired by question; SE: standard errors; "
        f"retention: markers per 1k tokens over the base model's. Kept: within [{KEPT[0]:g}, {KEPT[1]:g}]; lost: upper bound under {LOST:g}.",
        notes=tuple(notes),
    )


def read_hypotheses(file: Path) -> list[dict[str, Any]]:
    """The entries of the file.

    Raises:
        DataError: no such file, or not a list under ``hypotheses``.
        ConfigError: an entry lacks a field, or names an unknown check.
    """
    if not file.is_file():
        raise DataError(f"There is no {file}. Name the YAML file that lists the hypotheses.")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except YAML_ERRORS as error:
        raise ConfigError(f"{file} is not valid YAML ({' '.join(str(error).split())}). Correct it.") from error
    entries = content.get("hypotheses") if isinstance(content, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError(f"{file} holds no list under 'hypotheses'. Add it.")
    for entry in entries:
        check = entry.get("check")
        if check not in CHECKS:
            raise unknown_name(f"check of {entry.get('id')} in {file}", str(check), CHECKS)
        for key in ("id", "statement", "criterion", "from", *CHECKS[check][1]):
            if key not in entry:
                raise ConfigError(f"The hypothesis {entry.get('id')} of {file} needs {key!r}. Add it.")
    return [dict(entry) for entry in entries]
