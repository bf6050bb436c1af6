"""Hand-made completions of an arm, for verdicts that can be worked out by hand."""

from pathlib import Path

import pytest

from calibrated_sd.experiments.claim_checks import measures
from calibrated_sd.experiments.collect import RunData

OOD = ("heldout", "far")
N = 60


def rows(
    arm, accuracy, markers, tokens, *, seed=0, step=10, suites=("train", *OOD), samples=2, context="none", text=""
):
    """`accuracy` of the questions are right in every sample; question i and sample s get a little variety."""
    made = []
    for suite in suites:
        for i in range(N):
            for s in range(samples):
                made.append(
                    {
                        "schema_version": 1,
                        "suite": suite,
                        "problem_id": f"{suite}-{i}",
                        "sample": s,
                        "prompt_sha256": "",
                        "completion": text or "wait " * max(0, markers + i % 2),
                        "finish_reason": "stop",
                        "n_tokens": tokens + (i + s) % 3,
                        "correct": (i * 7 + s) % N < accuracy * N,
                        "markers": {"legacy": markers, "lexical": max(0, markers + i % 2), "held_out": 1},
                        "context": context,
                        "arm": arm,
                        "seed": seed,
                        "step": step,
                    }
                )
    return made


def data(*arms, ladder_records=(), **fields):
    """The data of a run with these arms; `fields` go to RunData."""
    records = [record for arm in arms for record in arm]
    return RunData(Path("nowhere"), OOD, records, list(ladder_records), calibrated=("best", "other"), **fields)


def by_hand(figure, digits=9):
    """Value of a figure, rounded."""
    return round(figure["value"], digits)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """No verdict below hangs on the last digit of an interval."""
    monkeypatch.setattr(measures, "N_PAIRED", 300)
