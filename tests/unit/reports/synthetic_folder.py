"""Writes a small reproduce folder with made-up numbers: deterministic, no model, shaped like the real thing.

`python synthetic_folder.py DIR` writes one to look at.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from calibrated_sd.records import figure, read_json, read_jsonl, write_json, write_jsonl

SUITES = (
    ("train", "congruence, trained problems", "train"),
    ("heldout", "congruence, other moduli", "heldout"),
    ("far_linear", "linear congruence", "far"),
    ("far_sumproduct", "sum and product", "far"),
)
# name, label, context, method, strength, distillation weight, final accuracy, final markers per response
ARMS = (
    ("base", "base", "–", None, 0.0, None, 0.66, 9.5),
    ("policy_gradient", "policy gradient", "–", None, 0.0, 0.0, 0.76, 10.5),
    ("sdpo", "SDPO, c = s", "s", None, 0.0, 1.0, 0.30, 0.9),
    ("sdpo_stripped", "SDPO, c = s∖think", "s∖think", None, 0.0, 1.0, 0.42, 3.0),
    ("projection", "SDPO + projection", "s", "projection", 1.0, 1.0, 0.57, 8.7),
    ("mix_to_floor", "SDPO + mix to floor", "s", "mix_to_floor", 1.0, 1.0, 0.61, 9.2),
    ("hybrid", "hybrid, uncalibrated", "s", None, 0.0, 0.7, 0.38, 1.5),
    ("hybrid_floor", "hybrid + mix to floor", "s", "mix_to_floor", 1.0, 0.7, 0.75, 10.1),
)
LADDER = (("none", 0.34, 9.4), ("stripped", 0.74, 8.2), ("regenerated", 0.9, 1.2), ("solution", 0.96, 0.4))
HYPOTHESES = ("maybe x =", "perhaps x =", "x might be", "it seems x =", "i suppose x =", "likely x =")
REJECT = ("hmm no .", "wait no .", "actually no .", "no .", "hold on no .", "not quite .")
EVAL_STEPS = (0, 4, 8, 12)


def completion(rng: random.Random, markers: float, correct: bool) -> tuple[str, dict[str, int], int]:
    """A trace with about `markers` expressions of doubt, with its counts of each set and its length in words."""
    words, lexical, held_out = ["<think>"], 0, 0
    value = rng.randint(2, 60)
    for _ in range(max(0, round(rng.gauss(markers / 2, 1)))):
        guess, reject = rng.choice(HYPOTHESES), rng.choice(REJECT)
        words += f"{guess} {value} . check {value} mod 5 = {value % 5} need 3 , {reject}".split()
        lexical += sum(
            w in ("maybe", "perhaps", "might", "seems", "likely", "hmm", "wait", "actually") for w in words[-20:]
        )
        held_out += ("suppose" in guess) + ("hold" in reject) + ("quite" in reject)
        value = rng.randint(2, 60)
    answer = 13 if correct else 14
    words += f"clearly x = {answer} . so x = {answer} . </think> the answer is \\boxed{{ {answer} }} .".split()
    text = " ".join(words)
    lexical = sum(words.count(w) for w in ("maybe", "perhaps", "might", "seems", "likely", "hmm", "wait", "actually"))
    return text, {"legacy": lexical + text.count("check"), "lexical": lexical, "held_out": held_out}, len(words) + 1


def completions(
    arm: str, seed: int, step: int, accuracy: float, markers: float, suites: Iterable[str], n: int, samples: int,
    context: str = "none",
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    for suite in suites:
        rng = random.Random(f"{arm} {seed} {step} {suite} {context}")
        for i in range(n):
            easy = random.Random(f"{suite} {i}").uniform(-0.25, 0.25)
            for sample in range(samples):
                correct = rng.random() < min(1.0, max(0.0, accuracy + easy))
                text, counts, length = completion(rng, markers, correct)
                rows.append({
                    "schema_version": 1, "suite": suite, "problem_id": f"{suite}-{i}", "sample": sample,
                    "prompt_sha256": "0" * 64, "completion": text, "finish_reason": "stop", "n_tokens": length,
                    "correct": correct, "markers": counts, "context": context, "arm": arm, "seed": seed, "step": step,
                })  # fmt: skip
    return rows


def make_folder(
    directory: Path,
    *,
    arms: Iterable[str] | None = None,
    seeds: Iterable[int] = (0, 1),
    profile: str = "default",
    n: int = 8,
    samples: int = 2,
    summary: bool = False,
    statuses: dict[tuple[str, int], str] | None = None,
) -> Path:
    """Write a folder.

    Args:
        directory: where.
        arms: the arms that were planned; all by default. Base is always there.
        seeds: training seeds.
        profile: as in the manifest.
        n, samples: problems per suite and samples per problem.
        summary: also write summary.csv rows of the contrasts.
        statuses: (arm, seed) → status other than "ok"; such a run has half of its training and no last evaluation.
    """
    directory, seeds, statuses = Path(directory), list(seeds), statuses or {}
    planned = [a for a in ARMS if a[0] == "base" or arms is None or a[0] in set(arms)]
    write_json(directory / "manifest.json", _manifest(planned, seeds, profile))
    names = [s[0] for s in SUITES]
    base = ARMS[0]
    runs = directory / "runs"
    write_jsonl(
        runs / "base/seed_0/eval/step_0/completions.jsonl",
        completions("base", 0, 0, base[6], base[7], names, n, samples),
    )
    for name, *_, accuracy, markers in planned[1:]:
        for seed in seeds:
            status = statuses.get((name, seed), "ok")
            if status == "not run":
                continue
            place, last = runs / name / f"seed_{seed}", EVAL_STEPS[-1] if status == "ok" else 6
            error = "loss is not finite at step 6" if status == "failed" else None
            write_json(
                place / "run.json", {"arm": name, "seed": seed, "status": status, "wall_time_s": 61.5, "error": error}
            )
            share = {step: 1 - 0.5 ** (step / 2) for step in range(last + 1)}
            write_jsonl(place / "train.jsonl", [
                {"step": step, "loss": 0.5, "epistemic/per_response": base[7] + (markers - base[7]) * share[step]
                 + random.Random(f"{name}{seed}{step}").gauss(0, 0.3)} for step in range(1, last + 1)])  # fmt: skip
            for step in (s for s in EVAL_STEPS[1:] if s <= last):
                at = [
                    base[6] + (accuracy - base[6]) * share[step] + 0.02 * (seed - 1),
                    base[7] + (markers - base[7]) * share[step],
                ]
                write_jsonl(
                    place / f"eval/step_{step}/completions.jsonl", completions(name, seed, step, *at, names, n, samples)
                )
    rows = [
        r for c, acc, m in LADDER for r in completions("base", 0, 0, acc, m, ["congruence", "linear"], n, samples, c)
    ]
    write_jsonl(runs / "ladder/completions.jsonl", rows)
    write_jsonl(directory / "traces.jsonl", _traces())
    write_jsonl(directory / "examples.jsonl", _examples([a[0] for a in planned]))
    write_json(directory / "claims.json", {"claims": _claims(), "provenance": {}})
    if summary:
        _write_summary(directory / "summary.csv", [a[0] for a in planned[1:]])
    return directory


def _manifest(planned: list[tuple[Any, ...]], seeds: list[int], profile: str) -> dict[str, Any]:
    return {
        "schema_version": 1, "kind": "reproduce", "profile": profile, "seeds": seeds, "eval_steps": list(EVAL_STEPS),
        "arms": [
            {"name": a[0], "label": a[1], "context": a[2], "calibration_method": a[3], "calibration_strength": a[4],
             "distillation_weight": a[5], "learning_rate": 3e-4, "color_key": a[0]} for a in planned
        ],
        "suites": [{"name": s, "label": label, "role": role} for s, label, role in SUITES],
        "notes": ["Synthetic numbers, for tests of the report only."],
        "provenance": {
            "commit": "0123456789abcdef", "dirty": False, "versions": {"python": "3.11.9", "trl": "1.16.0"},
            "hardware": "2 CPU cores", "marker_set_hash": {"lexical": "aaaabbbbcccc"}, "recipe_hash": "ddddeeeeffff",
            "model_sha256": "ab" * 32, "seed": 0, "wall_time_s": 512.4, "command": "csd reproduce --output out",
        },
    }  # fmt: skip


def _traces() -> list[dict[str, Any]]:
    text = "<think> maybe x = 12 . check 12 mod 5 = 2 need 3 , hmm no . i suppose x = 13 . check 13 mod 5 = 3 need 3 , yes . so x = 13 . </think> the answer is \\boxed{ 13 } ."
    tokens = text.split()
    doubt = {"maybe", "check", "hmm", "no", "suppose"}
    rows = []
    for i in range(2):
        for context, pull in (("s", 3.5), ("s∖think", 0.8), ("none", 0.0)):
            rng = random.Random(f"{context} {i}")
            ratio = [
                (-pull * rng.uniform(0.6, 1.6) if t in doubt else rng.uniform(-0.1, 0.5) * min(pull, 1)) for t in tokens
            ]
            rows.append({
                "id": f"congruence-{i}", "problem": "find x below 35 such that x mod 7 = 6 and x mod 5 = 3 .", "answer": "13",
                "context_label": context, "tokens": tokens, "is_marker": [t in {"maybe", "hmm", "suppose"} for t in tokens],
                "log_ratio": [None, *ratio[1:]],
            })  # fmt: skip
    return rows


def _examples(arms: list[str]) -> list[dict[str, Any]]:
    rows = []
    for i, suite in enumerate(("heldout", "far_linear")):
        for arm in arms:
            markers = next(a[7] for a in ARMS if a[0] == arm)
            rng = random.Random(f"{arm} {i}")
            text, _, length = completion(rng, markers, correct=markers > 5)
            rows.append({
                "arm": arm, "suite": suite, "problem_id": f"{suite}-{i}", "completion": text, "correct": markers > 5,
                "problem": "find x below 35 such that x mod 7 = 6 and x mod 5 = 3 .", "n_tokens": length,
            })  # fmt: skip
    return rows


def _claims() -> list[dict[str, Any]]:
    method = "95 % BCa bootstrap, 2000 resamples; covers questions only, 1 seed"
    return [
        {"id": "C1", "statement": "Markers and length fall as the context gets richer (none > s∖think > ỹ > s).",
         "paper": {"text": "markers 182.5 / 159.8 / 24.1 / 8.8 (Table 1)"}, "verdict": "shown",
         "criterion": "none − s > 0 with the 95 % interval excluding 0; density ratio s / none ≤ 0.6",
         "ours": {"markers none − s": figure(9.0, 8.1, 9.9, 96, "per response", method)}, "command": "csd reproduce --output out"},
        {"id": "C5", "statement": "SDPO with c = s suppresses markers and falls below the base model out of distribution.",
         "paper": {"text": "AIME24 −40.7 %"}, "verdict": "not shown", "criterion": "OOD accuracy below step 0 by ≥ 3 standard errors",
         "ours": {"OOD SDPO − base": figure(-0.03, -0.08, 0.02, 288, "share", method)}, "command": "csd reproduce --output out"},
        {"id": "C6", "statement": "Policy gradient on the same data does not degrade.", "paper": {"text": "54.7 → 56.0"},
         "verdict": "contradicted", "criterion": "policy gradient − SDPO ≥ 3 standard errors",
         "ours": {"OOD PG − SDPO": figure(-0.2, -0.3, -0.1, 288, "share", method)}, "command": "csd reproduce --output out"},
        {"id": "C8", "statement": "A frozen teacher is better than a moving one.", "paper": {"text": "Fig. 6"},
         "verdict": "not run", "criterion": "OOD: frozen − EMA ≥ 1 standard error", "ours": {}, "command": None},
    ]  # fmt: skip


def _write_summary(path: Path, arms: list[str]) -> None:
    columns = ["arm", "seed", "suite", "step", "metric", "value", "lo", "hi", "n", "unit", "method"]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for arm in arms:
            for against, value in (("base", -0.1), ("sdpo", 0.31)):
                if arm != against:
                    writer.writerow([arm, "all", "ood", 12, f"ood_difference_vs_{against}", value, value - 0.05, value + 0.05,
                                     288, "share", "paired BCa bootstrap; sign-flip permutation, Holm p = 0.004"])  # fmt: skip


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]), seeds=(0, 1, 2), n=96, samples=4, summary=True)


def put_into_every_text(folder: Path, text: str) -> None:
    """What a model, a data set or a recipe could have written, wherever the report shows such text."""
    for name in ("examples.jsonl", "traces.jsonl"):
        rows = read_jsonl(folder / name)
        for row in rows:
            row["problem"] = text
            if "completion" in row:
                row["completion"] = text
            else:
                row["tokens"][0], row["context_label"] = text, text
        write_jsonl(folder / name, rows)
    manifest = read_json(folder / "manifest.json")
    manifest["arms"][1]["label"] = manifest["notes"][0] = manifest["provenance"]["command"] = text
    write_json(folder / "manifest.json", manifest)
    claims = read_json(folder / "claims.json")
    claims["claims"][0]["statement"] = text
    write_json(folder / "claims.json", claims)
