"""The moonshot's table: the three figures that decide it, and the verdict in the protocol's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibrated_sd.errors import ConfigError, unknown_name
from calibrated_sd.reports.archived_samples import add_samples
from calibrated_sd.reports.folder import BASE
from calibrated_sd.reports.published.arms_table import IN_DOMAIN, label_of, partial_warning, seeds_line
from calibrated_sd.reports.published.markdown import PublishedTable, counts_text, score_text
from calibrated_sd.reports.published.measured import load_measured
from calibrated_sd.reports.published.paired import contrast, density_ratio
from calibrated_sd.reports.published.sweep_tables import KEPT
from calibrated_sd.reports.scores import OOD, Score, Scores

MARGIN = 0.01
"""One point: how far below policy gradient the OOD accuracy may be."""
REACHED, IN_POINTS, MISSED, OPEN = "reached", "reached in point estimates", "missed", "not decidable"


def verdict(in_domain: Score | None, ood: Score | None, retention: Score | None) -> str:
    """*reached*, *reached in point estimates*, *missed*, or *not decidable* where a figure is not there.

    Args:
        in_domain, ood: accuracy minus policy gradient's, paired by question.
        retention: markers per 1k tokens over the base model's.
    """
    figures = (in_domain, ood, retention)
    if any(score is None or score.value is None for score in figures):
        return OPEN
    if all(score.has_interval for score in figures):
        within = retention.lo >= KEPT[0] and retention.hi <= KEPT[1]
        if in_domain.lo >= -MARGIN and ood.lo >= -MARGIN and within:
            return REACHED
    values = in_domain.value >= 0 and ood.value >= -MARGIN and KEPT[0] <= retention.value <= KEPT[1]
    return IN_POINTS if values else MISSED


def is_better(in_domain: Score | None, ood: Score | None) -> bool:
    """Whether "better than policy gradient" may be said: one interval above 0, the other's lower bound at least −1 point."""
    if in_domain is None or ood is None or not (in_domain.has_interval and ood.has_interval):
        return False
    return any(a.lo > 0 and b.lo >= -MARGIN for a, b in ((in_domain, ood), (ood, in_domain)))


def moonshot_table(directory: Path, options: Mapping[str, Any]) -> PublishedTable:
    """Winner against policy gradient: in-domain, OOD and markers, each with its bar, and the verdict.

    Args:
        directory: the sweep folder of the confirmation.
        options: ``winner`` (an arm, needed where there are several besides the landmarks), ``against``
            (``policy_gradient`` by default).

    Raises:
        ConfigError: an unknown arm, or several candidates and none named.
        DataError: no such folder.
    """
    folder = load_measured(directory)
    add_samples(folder)
    scores = Scores(folder)
    names = [arm.name for arm in folder.arms]
    against = options.get("against", "policy_gradient")
    winner = options.get("winner")
    if winner is None:
        candidates = [name for name in names if name not in (BASE, against, "sdpo")]
        if len(candidates) != 1:
            raise ConfigError(
                f"{directory} has {len(candidates)} arms that may be meant. Name one under 'winner': {', '.join(candidates)}."
            )
        winner = candidates[0]
    for name in (winner, against):
        if name not in names:
            raise unknown_name("arm", name, names)
    differences = {}
    for where in ("in_domain", "ood"):
        found = contrast(scores, winner, against, where)
        differences[where] = found.score if found else None
    retention = scores.get(winner, OOD, "retention") or density_ratio(scores, winner, "lexical")
    rows = []
    for where, suite, bar in (("in_domain", IN_DOMAIN, "at least 0"), ("ood", OOD, "at least −0.01")):
        pair = [score_text(scores.get(name, suite, "accuracy"), 3) for name in (winner, against)]
        name = "accuracy in-domain" if where == "in_domain" else "accuracy OOD"
        rows.append((name, *pair, score_text(differences[where], 3, signed=True), bar))
    density = [score_text(scores.get(name, OOD, "markers_per_1k"), 1) for name in (winner, against)]
    rows.append(
        ("markers/1k, OOD", *density, f"{score_text(retention, 2)} of base", f"{KEPT[0]:g} to {KEPT[1]:g} of base")
    )
    said = verdict(differences["in_domain"], differences["ood"], retention)
    better = is_better(differences["in_domain"], differences["ood"])
    notes = [
        f"Verdict: **{said}**. *Reached* asks for lower bounds of both differences of at least −0.01 and the interval of the marker "
        f"ratio within [{KEPT[0]:g}, {KEPT[1]:g}]; *in point estimates* for the three values.",
        f"Better than {label_of(folder, against)}: {'yes' if better else 'not said'} (an accuracy difference with its interval above 0 and "
        "the other's lower bound at least −0.01).",
    ]
    missing = [where.replace("_", "-") for where, score in differences.items() if score is None]
    if missing:
        notes.append(
            f"Neither the table nor an archive of the folder holds the paired difference {' and '.join(missing)}; without it the verdict stays open."
        )
    return PublishedTable(
        ("figure", label_of(folder, winner), label_of(folder, against), "difference", "bar"),
        tuple(rows),
        f"{counts_text([scores.get(winner, OOD, 'accuracy')], 'OOD questions')}, {counts_text([scores.get(winner, IN_DOMAIN, 'accuracy')], 'in-domain')}; "
        f"{seeds_line(folder)}; value [95 % interval]; differences paired by question.",
        partial_warning(folder, [winner, against]),
        tuple(notes),
    )
