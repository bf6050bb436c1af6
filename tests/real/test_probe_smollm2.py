"""The probe on a small real model with its own BPE tokenizer. Set CSD_REAL_MODEL to its folder."""

from __future__ import annotations

import json
import os

import pytest
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.probe import probe_command
from calibrated_sd.records import read_json, read_jsonl

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("CSD_REAL_MODEL" not in os.environ, reason="CSD_REAL_MODEL names no model folder"),
]

ASK = "\nPlease reason step by step, and put your final answer within \\boxed{}."
PROBLEMS = [
    (
        "A baker makes 6 trays of 12 rolls and sells 50 rolls. How many rolls are left?",
        "He makes 6 * 12 = 72 rolls.\nAfter selling 50 rolls, 72 - 50 = 22 are left.",
        22,
    ),
    (
        "Mia has 15 stickers and gets 3 packs of 8. She gives half of all to Ben. How many does she keep?",
        "The packs hold 3 * 8 = 24 stickers.\nTogether she has 15 + 24 = 39 stickers, and Ben's half is 39 / 2 = 19.5.\n"
        "She keeps 19.5.",
        "19.5",
    ),
    (
        "A train goes 60 km per hour for 2 hours and 80 km per hour for 3 hours. How far does it go?",
        "In the first 2 hours it goes 2 * 60 = 120 km.\nIn the next 3 hours it goes 3 * 80 = 240 km.\n"
        "That is 120 + 240 = 360 km.",
        360,
    ),
    (
        "Four friends share a bill of 86 dollars and a tip of 14 dollars. What does each pay?",
        "Bill and tip come to 86 + 14 = 100 dollars.\nEach pays 100 / 4 = 25 dollars.",
        25,
    ),
    (
        "A garden has 9 rows of 7 plants. A third of the plants are tomatoes. How many are not?",
        "There are 9 * 7 = 63 plants.\nTomatoes are 63 / 3 = 21 of them.\nSo 63 - 21 = 42 are not tomatoes.",
        42,
    ),
    (
        "Lea reads 25 pages a day. Her book has 310 pages and she has read 4 days. How many pages are left?",
        "She has read 4 * 25 = 100 pages.\nSo 310 - 100 = 210 pages are left.",
        210,
    ),
]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    rows = [
        {
            "problem_id": f"p{i}",
            "prompt": [{"role": "user", "content": question + ASK}],
            "answer": str(answer),
            "solution": f"{solution}\n\\boxed{{{answer}}}",
        }
        for i, (question, solution, answer) in enumerate(PROBLEMS)
    ]
    (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    app = typer.Typer()
    app.command()(probe_command)
    result = CliRunner().invoke(
        app,
        [
            *("--model", os.environ["CSD_REAL_MODEL"], "--problems", str(folder / "problems.jsonl")),
            *("--contexts", "solution,hedged", "--dtype", "bfloat16", "--output", str(folder / "out")),
        ],
        catch_exceptions=False,
    )
    return read_json(folder / "out" / "probe.json"), read_jsonl(folder / "out" / "probe.jsonl"), result.output


def test_the_context_is_read(document):
    figures, _, _ = document
    levels = figures["levels"]
    assert levels["solution"]["other_tokens"]["lo"] > 0.2  # the lines of the solution are copied
    assert levels["irrelevant"]["other_tokens"]["hi"] < 0.2
    assert levels["hedged"]["marker"]["lo"] > 1.0  # the probe sees doubt where the context breeds it


def test_and_silences_no_doubt(document):
    """The known null: nothing to preserve, and a right solution lowers the markers no more than a foreign one."""
    figures, _, printed = document
    assert figures["base_density"]["hi"] < 2.0
    assert "nothing to preserve" in printed
    beyond = figures["contrasts"]["irrelevant"]["marker_minus_neutral"]
    assert beyond["hi"] > -0.1
    assert figures["levels"]["solution"]["marker"]["value"] > -0.25


def test_markers_of_several_tokens_are_whole_words(document):
    _, rows, _ = document
    sizes = {}
    for row in rows:
        for slot in row["markers"]:
            sizes.setdefault(slot["phrase"], set()).add(slot["tokens"])
    assert max(sizes["hmm"]) > 1
    assert sizes["maybe"] == {1}
