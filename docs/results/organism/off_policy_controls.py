"""Section 4 of arXiv:2603.24472 on the model organism, with the controls that the paper lacks, by commands alone.

    python docs/results/organism/off_policy_controls.py OUT

Runs `csd ladder`, `csd off-policy`, then `csd train` and `csd evaluate` for each data set and seed, and writes
OUT/off_policy_controls.json. What is in OUT already is not made again.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from calibrated_sd.evaluation.metrics import summarise, values_by_question
from calibrated_sd.evaluation.statistics import holm, paired_difference
from calibrated_sd.experiments.provenance import provenance
from calibrated_sd.records import read_completions, read_json, write_json

ARMS = {
    "base": None,
    "D_ug": "sft_d_ug",
    "D_sg": "sft_d_sg",
    "D_ug_token_matched": "sft_d_ug",
    "D_sg_token_matched": "sft_d_sg",
    "D_ug_length_matched": "sft_d_ug",
    "D_sg_length_matched": "sft_d_sg",
    "D_sg, calibrated": "sft_d_sg_calibrated",
}
PAIRS = (
    *((arm, "base") for arm in ARMS if arm != "base"),
    ("D_sg", "D_ug"),
    ("D_sg", "D_ug_token_matched"),
    ("D_sg_token_matched", "D_ug"),
    ("D_sg_length_matched", "D_ug_length_matched"),
    ("D_sg, calibrated", "D_sg"),
)
SEEDS = (0, 1, 2)
SHOWN = ("accuracy", "n_tokens", "lexical_per_response", "lexical_per_1k", "held_out_per_1k", "truncated_share")
TRAINED = "train"
LADDER = shlex.split(
    "--model organism --problems organism:train --levels none,solution --select all --solution-from column "
    "--n 8 --temperature 1 --top-p 1"
)


def csd(*words: str) -> None:
    """One command; stops the study if it fails."""
    subprocess.run([sys.executable, "-m", "calibrated_sd.cli.main", *words], check=True)


def ood(records: list[dict]) -> list[dict]:
    """Answers to problems that were not trained on, as one suite."""
    return [
        {**r, "suite": "ood", "problem_id": f"{r['suite']}/{r['problem_id']}"} for r in records if r["suite"] != TRAINED
    ]


def main(folder: Path) -> None:
    ladder, data = folder / "ladder", folder / "off_policy"
    if not (data / "report.json").exists():
        csd("ladder", *LADDER, "--output", str(ladder), "--if-exists", "overwrite")
        csd("off-policy", str(ladder), "--output", str(data), "--if-exists", "overwrite")
    records: dict[str, list[dict]] = {}
    for arm, recipe in ARMS.items():
        for seed in SEEDS:
            place = folder / arm.replace(", ", "_") / f"seed_{seed}"
            model = "organism"
            if not (place / "evaluation" / "metrics.json").exists():
                if recipe:
                    file = data / f"{arm.partition(', ')[0]}.jsonl"
                    trained = str(place / "training")
                    settings = ("--problems", str(file), "--seed", str(seed), "--if-exists", "overwrite")
                    csd("train", "--config", f"organism/{recipe}", "--output", trained, *settings)
                    model = f"{trained}/model"
                sampling = ("--suite", "organism", "--n", "2", "--limit", "48", "--seed", str(seed), "--arm", arm)
                out = str(place / "evaluation")
                csd("evaluate", "--model", model, *sampling, "--output", out, "--if-exists", "overwrite")
            records.setdefault(arm, []).extend(read_completions(place / "evaluation" / "completions.jsonl"))

    figures: dict[str, dict] = {}
    for arm, rows in records.items():
        trained = [r for r in rows if r["suite"] == TRAINED]
        for suite, part in ((TRAINED, trained), ("ood", ood(rows))):
            shown = summarise(part)
            figures.setdefault(arm, {})[suite] = {name: shown[name] for name in SHOWN}
    correct = {arm: values_by_question(ood(rows), "correct") for arm, rows in records.items()}
    found = {f"{a} − {b}": paired_difference(correct[a], correct[b]) for a, b in PAIRS}
    adjusted = holm([one.p_value for one in found.values()])
    differences = {name: {**one.figure, "p_holm": p} for (name, one), p in zip(found.items(), adjusted, strict=True)}
    report = read_json(data / "report.json")
    data_figures = {key: report[key] for key in ("sets", "pairs", "length_matched", "token_matched")}
    block = provenance(command="python docs/results/organism/off_policy_controls.py OUT")
    content = {"schema_version": 1, "arms": figures, "ood_accuracy_differences": differences, "data": data_figures}
    write_json(folder / "off_policy_controls.json", {**content, "provenance": block})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
