"""`csd data` from the command line: what is written, what is printed, what is refused."""

from __future__ import annotations

import json
import sys

import pytest

from calibrated_sd.cli.main import main
from calibrated_sd.data.instructions import BOXED
from calibrated_sd.evaluation.datasets import load_problems
from calibrated_sd.records import read_json, read_jsonl

ROWS = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(9)]


@pytest.fixture
def csd(monkeypatch, capsys):
    """`csd("data", …)`: the exit code and everything printed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["csd", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return ended.value.code or 0, " ".join((shown.out + shown.err).split())

    return run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, ROWS[0]]))
    return path


def test_a_prepared_file(csd, file, tmp_path):
    code, shown = csd("data", "prepare", file, "--output", tmp_path / "data")
    assert code == 0
    assert "10 rows read, 9 problems kept" in shown
    assert "dropped 1: repeats a problem row 10 (first in row 1): 0 + 1?" in shown
    folder = tmp_path / "data" / "sums"
    assert read_jsonl(folder / "problems.jsonl", check_version=False)[0] == {
        "problem_id": "sums-00000",
        "prompt": [{"role": "user", "content": f"0 + 1?\n{BOXED}"}],
        "answer": "1",
        "source": "sums",
    }
    suite = read_json(folder / "suite.json")
    assert suite["source"]["files"][0]["name"] == "sums.jsonl"
    assert suite["report"]["kept"] == 9
    assert suite["definition"] is None
    assert [p["suite"] for p in load_problems(folder / "problems.jsonl", limit=2)] == ["sums", "sums"]


def test_preparing_a_prepared_file_changes_nothing_and_never_in_place(csd, file, tmp_path):
    csd("data", "prepare", file, "--output", tmp_path / "data")
    once = tmp_path / "data" / "sums" / "problems.jsonl"
    before = once.read_bytes()
    code, shown = csd("data", "prepare", once, "--output", tmp_path / "data", "--if-exists", "overwrite")
    assert (code, once.read_bytes()) == (2, before)
    assert "never rewritten in place" in shown
    assert csd("data", "prepare", once, "--output", tmp_path / "again")[0] == 0
    assert (tmp_path / "again" / "sums" / "problems.jsonl").read_bytes() == before


def test_a_finished_suite_is_resumed_only_with_the_same_settings(csd, file, tmp_path):
    words = ("data", "prepare", file, "--output", tmp_path)
    assert csd(*words)[0] == 0
    code, shown = csd(*words)
    assert code == 2
    assert "is not empty" in shown
    code, shown = csd(*words, "--if-exists", "resume")
    assert code == 0
    assert "is prepared already" in shown
    code, shown = csd(*words, "--keep-prompts", "--if-exists", "resume")
    assert code == 2
    assert "boxed True → False" in shown
    file.write_text(json.dumps(ROWS[0]) + "\n")
    code, shown = csd(*words, "--if-exists", "resume")
    assert code == 2
    assert "sha256" in shown
    assert csd(*words, "--if-exists", "overwrite")[0] == 0
    assert len(read_jsonl(tmp_path / "sums" / "problems.jsonl", check_version=False)) == 1


def test_the_tokenizer_decides_what_is_long(csd, tmp_path, word_tokenizer):
    word_tokenizer.save_pretrained(tmp_path / "tokenizer")
    file = tmp_path / "words.csv"
    file.write_text("frage,antwort\nred,1\nred green blue,2\n")
    # The chat template adds three words: <|user|>, <|assistant|>, and nothing else; the instruction is not added here.
    limits = ("--max-prompt-tokens", 4, "--tokenizer", tmp_path / "tokenizer", "--keep-prompts")
    columns = ("--prompt-column", "frage", "--answer-column", "antwort")
    code, shown = csd("data", "prepare", file, *columns, *limits, "--output", tmp_path / "data")
    assert code == 0
    assert "dropped 1: longer than 4 tokens row 2 (5 tokens): red green blue" in shown
    code, shown = csd("data", "prepare", file, *columns, *limits[2:], "--output", tmp_path / "more")
    assert code == 2
    assert "--max-prompt-tokens" in shown
    code, shown = csd("data", "prepare", file, *columns, *limits[:3], tmp_path, "--output", tmp_path / "more")
    assert code == 2
    assert "cannot be loaded" in shown


def test_held_out_problems(csd, file, tmp_path):
    code, _ = csd("data", "prepare", file, "--hold-out", "0.33", "--output", tmp_path / "data")
    assert code == 0
    parts = {
        name: [row["problem_id"] for row in read_jsonl(tmp_path / "data" / "sums" / name, check_version=False)]
        for name in ("problems.jsonl", "train.jsonl", "held_out.jsonl")
    }
    assert [len(part) for part in parts.values()] == [9, 6, 3]  # 0.33 · 9 = 2.97
    assert sorted(parts["train.jsonl"] + parts["held_out.jsonl"]) == parts["problems.jsonl"]
    for share, words in [("0.01", "would hold out 0 of them"), ("1.5", "a share between 0 and 1")]:
        code, shown = csd("data", "prepare", file, "--hold-out", share, "--output", tmp_path / "more")
        assert code == 2
        assert words in shown
    assert not (tmp_path / "more").exists()


def test_coverage(csd, file, tmp_path):
    output = tmp_path / "coverage"
    words = ("data", "coverage", file, "--sizes", "1,4,full", "--rows", "8", "--output", output)
    code, shown = csd(*words)
    assert code == 0
    assert "1x8.jsonl: 8 rows, 1 different problems" in shown
    rows = {name: read_jsonl(output / f"{name}.jsonl", check_version=False) for name in ("1x8", "4x2", "full")}
    assert {name: len(r) for name, r in rows.items()} == {"1x8": 8, "4x2": 8, "full": 9}
    assert rows["full"][:4] == rows["4x2"][:4]
    report = read_json(output / "coverage.json")
    assert report["subsets"]["4x2"] == {"rows": 8, "problems": 4}
    assert report["report"]["kept"] == 9
    with pytest.warns(UserWarning, match="8 rows hold 4 different problems"):
        assert len(load_problems(output / "4x2.jsonl")) == 4
    assert csd(*words)[0] == 2
    assert csd(*words, "--if-exists", "overwrite")[0] == 0
    code, shown = csd("data", "coverage", "dapo-math-17k", "--output", tmp_path / "more")
    assert code == 2
    assert "no problem file dapo-math-17k. Prepare one with csd data prepare" in shown


def test_a_file_that_is_called_like_a_known_set_is_said_to_be_read_as_one(csd, file, tmp_path):
    assert "read as that set" not in csd("data", "prepare", file, "--output", tmp_path / "data")[1]
    mine = file.rename(tmp_path / "gsm8k.jsonl")
    code, shown = csd("data", "prepare", mine, "--output", tmp_path / "data")
    assert code == 0
    assert "gsm8k.jsonl is called like gsm8k (GSM8K, test set) and is read as that set." in shown


def test_coverage_of_other_settings_does_not_join_the_old_subsets(csd, file, tmp_path):
    words = ("data", "coverage", file, "--rows", "8", "--output", tmp_path / "c", "--if-exists", "resume")
    assert csd(*words, "--sizes", "1,4")[0] == 0
    code, shown = csd(*words, "--sizes", "1,4")
    assert (code, "is prepared already" in shown) == (0, True)
    code, shown = csd(*words, "--sizes", "2", "--seed", "1")
    assert code == 2
    assert "seed 0 → 1" in shown
    assert not (tmp_path / "c" / "2x4.jsonl").exists()


def test_a_failed_preparation_leaves_the_old_one(csd, file, tmp_path):
    assert csd("data", "prepare", file, "--output", tmp_path / "data")[0] == 0
    before = (tmp_path / "data" / "sums" / "problems.jsonl").read_bytes()
    file.write_text('{"question": "q"}\n')
    code, shown = csd("data", "prepare", file, "--output", tmp_path / "data", "--if-exists", "overwrite")
    assert code == 2
    assert "no column for the answer" in shown
    assert (tmp_path / "data" / "sums" / "problems.jsonl").read_bytes() == before


def test_ls(csd, file, tmp_path):
    csd("data", "prepare", "aime25", "--source-file", file, "--output", tmp_path)
    code, shown = csd("data", "ls", "--data-dir", tmp_path)
    assert code == 0
    assert f"9 problems in {tmp_path / 'aime25'}" in shown
    assert "math-ai/aime25 at 563bb8404243c5f09de6ec262f2db674fe5bce9b licence: problem statements" in shown
    code, shown = csd("data", "ls", "--json", "--data-dir", tmp_path)
    assert [row["prepared"] is None for row in json.loads(shown) if row["name"] in ("aime24", "aime25")] == [
        True,
        False,
    ]
