"""The probe: how a context changes what a model would say at every point of a given text, doubt above all.

For a problem x, a text y and a context c the quantity is Δ = log p(marker | x, c, y<t) − log p(marker | x, y<t), summed over
the tokens of the marker. Nothing is sampled. A context that is read changes the probability of everything, and a solution
of *another* problem does so, too; so Δ of a marker means little beside those of neutral words at the same places, of other
tokens, and of the same marker under the controls. `probe_figures` makes those comparisons.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from calibrated_sd.context_analysis.probe_plan import Job, ProbeIds
from calibrated_sd.context_analysis.scoring import Scored, TraceScorer
from calibrated_sd.context_analysis.slots import Slot
from calibrated_sd.records import SCHEMA_VERSION, append_jsonl, prompt_sha256, read_jsonl, repair_tail, write_jsonl


def run_probe(
    model: Any,
    jobs: Sequence[Job],
    ids: ProbeIds,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 8,
    chunk_positions: int | None = 256,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Score all jobs and store one line per text and level; what `path` already holds is kept.

    A text is written with all its levels at once, and always computed in the same batches, so that an interrupted run
    goes on where it stopped and ends with the file of a straight one.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        jobs: from :func:`plan_probe`.
        ids: the same.
        path: ``probe.jsonl``.
        batch_size, chunk_positions: see :class:`~calibrated_sd.context_analysis.scoring.TraceScorer`.
        on_progress: called with (done, total) texts before the first and after every one.

    Returns:
        All lines: docs/how-to/probe_a_model.md says what is in them.
    """
    path = Path(path)
    rows = _kept(path, jobs)
    done = {_row_key(row) for row in rows}
    report = on_progress or (lambda done, total: None)
    scorer = TraceScorer(
        model,
        [ids.marker_ids] + ([] if ids.neutral_ids is None else [ids.neutral_ids]),
        batch_size=batch_size,
        chunk_positions=chunk_positions,
    )
    finished = sum((job.key, job.trace) in done for job in jobs)
    report(finished, len(jobs))
    for job in jobs:
        if (job.key, job.trace) in done:
            continue
        made = _score(scorer, job)
        append_jsonl(path, made)
        rows += made
        finished += 1
        report(finished, len(jobs))
    return rows


def _score(scorer: TraceScorer, job: Job) -> list[dict[str, Any]]:
    # Levels whose prompts are the same (s without thinking that has none, say) are computed once.
    distinct = list(dict.fromkeys(job.prompts.values()))
    wanted = {slot.start: slot.neutral_ids for slot in job.slots if slot.neutral_ids}
    results = dict(zip(distinct, scorer.score(distinct, job.ids, wanted), strict=True))
    rows = [_row(job, level, len(prompt), results[prompt]) for level, prompt in job.prompts.items()]
    if job.plain_ids:
        (plain,) = scorer.score([job.prompts["none"]], job.plain_ids)
        mass = {"plain_tokens": len(job.plain_ids), "plain_marker_mass": round(float(plain.masses[0].sum()), 6)}
        rows = [row | mass if row["level"] == "none" else row for row in rows]
    return rows


def _row(job: Job, level: str, n_prompt: int, scored: Scored) -> dict[str, Any]:
    is_other = torch.ones(len(job.ids), dtype=torch.bool)
    for slot in (*job.slots, *job.held_out):
        is_other[slot.start : slot.stop] = False
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": job.suite,
        "problem_id": job.problem_id,
        "trace": job.trace,
        "level": level,
        "is_sample": job.is_sample,
        "prompt_sha256": prompt_sha256(job.prompt_texts[level]),
        "prompt_tokens": n_prompt,
        "tokens": len(job.ids),
        "marker_mass": round(float(scored.masses[0].sum()), 6),
        "neutral_mass": round(float(scored.masses[1].sum()), 6) if len(scored.masses) > 1 else None,
        "other_tokens": int(is_other.sum()),
        "other_logp": round(float(scored.logps[is_other].sum()), 5),
        "markers": [_slot_row(slot, scored) for slot in job.slots],
        "held_out": [_slot_row(slot, scored) for slot in job.held_out],
    }


def _slot_row(slot: Slot, scored: Scored) -> dict[str, Any]:
    neutral = scored.alternatives.get(slot.start)
    return {
        "phrase": slot.phrase,
        "position": slot.start,
        "tokens": slot.stop - slot.start,
        "logp": round(float(scored.logps[slot.start : slot.stop].sum()), 5),
        "neutral_logp": None if neutral is None else round(float(neutral.mean()), 5),
        "neutral_words": len(slot.neutral_ids),
    }


def _row_key(row: Mapping[str, Any]) -> tuple[str, int]:
    return f"{row['suite']}/{row['problem_id']}", row["trace"]


def _kept(path: Path, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """The finished lines of a file that is continued; a text that was cut off half-way is dropped from the file."""
    if not path.exists():
        return []
    repair_tail(path)
    rows = read_jsonl(path)
    counts = Counter(_row_key(row) for row in rows)
    whole = {(job.key, job.trace) for job in jobs if counts[(job.key, job.trace)] == len(job.prompts)}
    kept = [row for row in rows if _row_key(row) in whole]
    if len(kept) < len(rows):
        write_jsonl(path, kept)
    return kept
