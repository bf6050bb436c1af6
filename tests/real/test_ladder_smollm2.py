"""The ladder on a small real model with its own BPE tokenizer. Set CSD_REAL_MODEL to its folder. About two minutes."""

from __future__ import annotations

import json
import os

import pytest
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.ladder import ladder_command
from calibrated_sd.records import read_completions, read_json, read_jsonl

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("CSD_REAL_MODEL" not in os.environ, reason="CSD_REAL_MODEL names no model folder"),
]

PROBLEMS = [
    (
        "A baker makes 6 trays of 12 rolls and sells 50 rolls. How many rolls are left?",
        "6 * 12 = 72. 72 - 50 = 22.",
        22,
    ),
    ("Mia has 15 stickers and gets 3 packs of 8. How many has she now?", "3 * 8 = 24. 15 + 24 = 39.", 39),
]
LEVELS = ("none", "stripped", "regenerated", "solution", "wrong")


def test_the_ladder_runs_and_resumes_on_a_real_model(tmp_path):
    path = tmp_path / "words.jsonl"
    rows = [
        {"problem": text, "solution": f"{s}\nThe answer is \\boxed{{{answer}}}.", "answer": str(answer)}
        for text, s, answer in PROBLEMS
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    app = typer.Typer()
    app.command()(ladder_command)
    arguments = [
        *("--model", os.environ["CSD_REAL_MODEL"], "--problems", str(path), "--output", str(tmp_path / "out")),
        *("--select", "all", "--solution-from", "column", "--n", "2", "--max-new-tokens", "24", "--batch-size", "4"),
        *("--levels", ",".join(LEVELS)),
    ]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    found = read_json(tmp_path / "out" / "ladder.json")
    assert set(found["levels"]) == set(LEVELS)
    for level in LEVELS:
        records = read_completions(tmp_path / "out" / level / "completions.jsonl")
        assert len({(r["problem_id"], r["sample"]) for r in records}) == len(records) == 4
        assert all(r["n_tokens"] <= 24 for r in records)
    rewrites = {r["problem_id"]: r["completion"] for r in read_completions(tmp_path / "out/rewrites/completions.jsonl")}
    for row in read_jsonl(tmp_path / "out" / "problems.jsonl"):
        assert row["regenerated"] == rewrites[row["problem_id"]]

    file = tmp_path / "out" / "solution" / "completions.jsonl"
    straight = file.read_bytes()
    file.write_bytes(straight[: len(straight) // 3])  # killed while writing
    again = CliRunner().invoke(app, [*arguments, "--if-exists", "resume"], catch_exceptions=False)
    assert again.exit_code == 0
    assert file.read_bytes() == straight
