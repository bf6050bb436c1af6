"""Tables of arms: one row per arm with its differences, and any part of ``summary.csv`` as it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from calibrated_sd.errors import unknown_name
from calibrated_sd.reports.archived_samples import add_samples
from calibrated_sd.reports.canvas import counted, seeds_in_words
from calibrated_sd.reports.folder import BASE, Arm, ReproduceFolder
from calibrated_sd.reports.published.markdown import PublishedTable, counts_text, score_text
from calibrated_sd.reports.published.paired import contrast
from calibrated_sd.reports.scores import OOD, Contrast, Score, Scores
from calibrated_sd.reports.tables import PLAIN_ARM, p_text

STYLE = (
    ("markers_per_1k", "markers/1k ≈", 1),
    ("markers_per_response", "markers/response ≈", 1),
    ("held_out_per_1k", "held-out/1k ≈", 1),
    ("length", "length", 0),
)
"""Metric, heading, digits. ≈ stands where the base model's level is the aim."""
DIGITS = {"length": 0, "markers_per_1k": 1, "markers_per_response": 1, "held_out_per_1k": 1, "legacy_per_1k": 1}
IN_DOMAIN = "train"


def arms_table(folder: ReproduceFolder, options: Mapping[str, Any]) -> PublishedTable:
    """One row per arm: accuracy in-domain and OOD, differences from base and from another arm, style, seeds.

    Args:
        folder: of :func:`~calibrated_sd.reports.published.measured.load_measured`.
        options: ``arms`` (names, all by default), ``against`` (an arm, ``sdpo`` by default; a list for several columns),
            ``suites: all`` for a column per suite.

    Raises:
        ConfigError: an unknown arm.
    """
    scores = Scores(folder)
    arms = chosen_arms(folder, options.get("arms"))
    names = {arm.name for arm in folder.arms}
    others = options.get("against", PLAIN_ARM if PLAIN_ARM in names else [])
    others = [others] if isinstance(others, str) else list(others)
    for other in others:
        if other not in names:
            raise unknown_name("arm under 'against'", other, names)
    if any(
        scores.contrast(arm.name, other) is None for arm in arms for other in others if arm.name not in (BASE, other)
    ):
        add_samples(folder)
    apart = {(arm.name, other): contrast(scores, arm.name, other) for arm in arms for other in (BASE, *others)}
    others = [other for other in (BASE, *others) if any(apart[arm.name, other] for arm in arms)]
    suites = [suite.name for suite in folder.suites] if options.get("suites") == "all" else [IN_DOMAIN]
    suites = [suite for suite in suites if any(scores.get(arm.name, suite, "accuracy") for arm in arms)]
    labels = {suite.name: "in-domain" if suite.role == "train" else suite.label for suite in folder.suites}
    columns = ["arm", *(f"{labels.get(suite, suite)} ↑" for suite in suites), "OOD ↑"]
    columns += [f"OOD − {'base' if other == BASE else label_of(folder, other)} ↑" for other in others]
    columns += [heading for _, heading, _ in STYLE] + ["seeds"]
    rows, shown, trained = [], [], []
    for arm in arms:
        cells = [scores.get(arm.name, suite, "accuracy") for suite in suites]
        trained += [score for suite, score in zip(suites, cells, strict=True) if suite == IN_DOMAIN]
        pooled = scores.get(arm.name, OOD, "accuracy")
        shown.append(pooled)
        texts = [score_text(score, 2) for score in (*cells, pooled)]
        texts += [contrast_text(apart[arm.name, other]) for other in others]
        texts += [score_text(scores.get(arm.name, OOD, metric), digits) for metric, _, digits in STYLE]
        rows.append((arm.label, *texts, seeds_text(folder, arm.name)))
    conditions = counts_text(shown, "OOD questions")
    known = sorted({score.n for score in trained if score is not None and score.n})
    conditions += f" (in-domain {'–'.join(map(str, (known[0], known[-1])[: len(known)]))})" if known else ""
    notes = [
        "OOD: all suites but the trained one pooled, every question counts once; markers, held-out markers (doubt in words that "
        "no calibrator is given) and length are of its questions. ↑ more is better, ≈ the base model's level is the aim.",
    ]
    if others:
        notes.append(_how_compared([found for found in apart.values() if found]))
    return PublishedTable(
        tuple(columns),
        tuple(rows),
        f"{conditions}; {seeds_line(folder)}; value [95 % interval] over questions and seeds.",
        partial_warning(folder, [arm.name for arm in arms]),
        tuple(notes),
    )


def _how_compared(contrasts: list[Contrast]) -> str:
    text = "Differences are paired by question"
    if any(found.p_value is not None for found in contrasts):
        text += (
            "; p is from a sign-flip permutation test over questions, Holm-corrected over all arms of the folder that are compared "
            "with the same one"
        )
    return f"{text}."


def summary_rows_table(folder: ReproduceFolder, options: Mapping[str, Any]) -> PublishedTable:
    """Any part of ``summary.csv``: a row per arm, suite and step, a column per metric.

    Args:
        folder: of :func:`~calibrated_sd.reports.published.measured.load_measured`.
        options: ``arms``, ``metrics`` (``accuracy`` by default), ``suites`` (the pooled one by default; ``all``), ``steps``
            (numbers or ``all``; the last one by default).

    Raises:
        ConfigError: an unknown arm, suite or metric.
    """
    assert folder.summary is not None
    scores = Scores(folder)
    arms = chosen_arms(folder, options.get("arms"))
    metrics = list(options.get("metrics") or ["accuracy"])
    for metric in metrics:
        if metric not in set(folder.summary["metric"]):
            raise unknown_name("metric", metric, set(folder.summary["metric"]))
    suites = options.get("suites") or [OOD]
    known = [*(suite.name for suite in folder.suites), OOD]
    suites = known if suites == "all" else list(suites)
    for suite in suites:
        if suite not in known:
            raise unknown_name("suite", suite, known)
    steps = options.get("steps")
    labels = {suite.name: suite.label for suite in folder.suites} | {OOD: "OOD pooled"}
    rows, shown = [], []
    for arm in arms:
        at = scores.steps(arm.name)
        for step in at[-1:] if steps is None else at if steps == "all" else [step for step in at if step in steps]:
            for suite in suites:
                found = [scores.get(arm.name, suite, metric, step) for metric in metrics]
                if any(score is not None for score in found):
                    shown += found
                    texts = [score_text(s, DIGITS.get(m, 2)) for s, m in zip(found, metrics, strict=True)]
                    rows.append((arm.label, str(step), labels[suite], *texts))
    return PublishedTable(
        ("arm", "step", "suite", *(metric.replace("_", " ") for metric in metrics)),
        tuple(rows),
        f"{counts_text(shown)}; {seeds_line(folder)}; value [95 % interval] over questions and seeds.",
        partial_warning(folder, [arm.name for arm in arms]),
    )


def chosen_arms(folder: ReproduceFolder, names: Iterable[str] | None) -> list[Arm]:
    """The arms of a table, in the order asked for.

    Raises:
        ConfigError: an unknown arm.
    """
    arms = {arm.name: arm for arm in folder.arms}
    for name in names or ():
        if name not in arms:
            raise unknown_name("arm", name, arms)
    return [arms[name] for name in names] if names else list(arms.values())


def label_of(folder: ReproduceFolder, arm: str) -> str:
    """An arm's label; its name where the folder does not know it."""
    return next((known.label for known in folder.arms if known.name == arm), arm)


def contrast_text(contrast: Contrast | None) -> str:
    """``−0.57 [−0.60, −0.53] (p = 0.009)``."""
    if contrast is None:
        return "–"
    p = p_text(contrast.p_value)
    return score_text(contrast.score, 2, signed=True) + (f" ({p})" if p else "")


def seeds_text(folder: ReproduceFolder, arm: str) -> str:
    """Finished training seeds of an arm, ``2 of 3, partial`` where some are missing; empty for the base model."""
    runs = [run for run in folder.runs if run.arm == arm]
    finished = sum(run.status == "ok" for run in runs)
    if not runs:
        return ""
    return str(finished) if finished == len(runs) else f"{finished} of {len(runs)}, partial"


def seeds_line(folder: ReproduceFolder) -> str:
    """``3 training seeds (100, 101, 102)``; ``1 of 3 training seeds finished in every arm (…)`` where some are missing."""
    return f"{seeds_in_words(folder)} ({', '.join(map(str, folder.seeds))})"


def partial_warning(folder: ReproduceFolder, arms: Iterable[str]) -> str:
    """A warning where an arm of the table has fewer finished seeds than were planned; also for smoke runs."""
    words = ["Smoke run: no result"] if folder.is_smoke else []
    missing = [arm for arm in arms if "partial" in seeds_text(folder, arm)]
    if missing:
        words.append(
            f"Partial: {counted(len(missing), 'arm')} with fewer finished seeds than planned; it ranks nothing"
        )
    return f"{'. '.join(words)}." if words else ""


def of_base(score: Score | None, base: Score | None) -> Score | None:
    """A score over the base model's, with bounds that hold whatever the two have in common: lo/hi and hi/lo."""
    if score is None or base is None or score.value is None or not base.value:
        return None
    bounded = score.has_interval and base.has_interval and base.lo
    return Score(
        score.value / base.value,
        score.lo / base.hi if bounded and base.hi else None,
        score.hi / base.lo if bounded else None,
        score.n,
        "ratio",
        score.method,
    )
