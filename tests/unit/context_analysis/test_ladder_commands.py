"""`csd ladder` and `csd off-policy` on the organism, from the command line: files, resume after a kill, refusals."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.ladder import ladder_command
from calibrated_sd.cli.off_policy import off_policy_command
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.evaluation import completions
from calibrated_sd.records import prompt_sha256, read_completions, read_json, read_jsonl

app = typer.Typer()
app.command("ladder")(ladder_command)
app.command("off-policy")(off_policy_command)

SETTINGS = {
    "model": "organism",
    "problems": "organism:far_linear",
    "limit": 12,
    "n": 2,
    "n_screen": 4,
    "max_problems": 4,
    "min_pass_rate": 0.25,
    "max_pass_rate": 0.75,
    "temperature": 1.0,
    "top_p": 1.0,
    "max_new_tokens": 160,
    "batch_size": 12,
}


def csd(command, *arguments, **options):
    """Run a command; returns (message of the error or None, printed text)."""
    parts = [command, *map(str, arguments)]
    parts += [part for k, v in options.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    result = CliRunner().invoke(app, parts)
    if result.exception is not None and not isinstance(result.exception, CalibratedSDError):
        raise result.exception
    return None if result.exception is None else str(result.exception), result.output


def samples(folder):
    """Every file a ladder writes while it runs, by its place."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jsonl"))}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder") / "straight"
    error, printed = csd("ladder", output=folder, **SETTINGS)
    assert error is None
    return folder, printed


def test_what_a_ladder_writes(straight):
    folder, printed = straight
    found = read_json(folder / "ladder.json")
    problems = {row["problem_id"]: row for row in read_jsonl(folder / "problems.jsonl")}
    selection = read_json(folder / "selection.json")
    assert 1 <= len(problems) <= 4
    for choice in selection["problems"]:
        if choice["selected"]:
            assert choice["n_correct"] in (1, 2, 3)
    assert list(found["levels"]) == ["none", "stripped", "regenerated", "solution"]
    rewrites = {r["problem_id"]: r["completion"] for r in read_completions(folder / "rewrites" / "completions.jsonl")}
    screen = [r for part in folder.glob("screen/*.jsonl") for r in read_completions(part)]
    assert len(screen) == 4 * selection["seen"]
    for name, row in problems.items():
        right = next(r for r in screen if r["problem_id"] == name and r["correct"] and r["finish_reason"] == "stop")
        assert row["solution"] == right["completion"]  # as in the paper
        assert row["regenerated"] == rewrites[name]  # really sampled
    for level in found["levels"]:
        records = read_completions(folder / level / "completions.jsonl")
        assert {(r["problem_id"], r["sample"]) for r in records} == {(p, s) for p in problems for s in (0, 1)}
        assert {r["context"] for r in records} == {level}
        assert found["levels"][level]["accuracy"]["value"] == pytest.approx(
            sum(r["correct"] for r in records) / len(records)
        )
    assert "(1) c = ∅" in printed
    assert "C1 length, none > stripped" in printed
    assert found["provenance"]["seed"] == 0


def test_screening_samples_are_not_the_samples_of_the_ladder(straight):
    folder, _ = straight
    screen = {(r["problem_id"], r["sample"]): r for p in folder.glob("screen/*.jsonl") for r in read_completions(p)}
    none = read_completions(folder / "none" / "completions.jsonl")
    assert any(r["completion"] != screen[r["problem_id"], r["sample"]]["completion"] for r in none)
    assert all(r["prompt_sha256"] == screen[r["problem_id"], r["sample"]]["prompt_sha256"] for r in none)
    given_s = read_completions(folder / "solution" / "completions.jsonl")
    rewrites = {r["problem_id"]: r for r in read_completions(folder / "rewrites" / "completions.jsonl")}
    assert all(r["prompt_sha256"] == rewrites[r["problem_id"]]["prompt_sha256"] for r in given_s)


@pytest.mark.parametrize("finished", [2, pytest.param(7, marks=pytest.mark.slow)])
def test_a_killed_ladder_resumes_to_the_same_files(straight, tmp_path, monkeypatch, finished):
    # Screening takes 4 batches, the rewrites one, every level one: killed while screening, and in a level.
    append, calls = completions.append_jsonl, []

    def killed(path, rows):
        calls.append(path)
        if len(calls) > finished:
            with open(path, "a", encoding="utf-8") as file:
                file.write('{"schema_version": 1, "suite"')  # half a line reached the disk
            raise KeyboardInterrupt
        append(path, rows)

    folder = tmp_path / "killed"
    monkeypatch.setattr(completions, "append_jsonl", killed)
    assert "Error" not in CliRunner().invoke(app, ["ladder", *_arguments(folder)]).output
    assert len(calls) == finished + 1
    assert not (folder / "ladder.json").exists()
    monkeypatch.setattr(completions, "append_jsonl", append)
    error, _ = csd("ladder", output=folder, if_exists="resume", **SETTINGS)
    assert error is None
    assert samples(folder) == samples(straight[0])
    without = [{**read_json(f / "ladder.json"), "provenance": None} for f in (folder, straight[0])]
    assert without[0] == without[1]


def _arguments(folder):
    return [part for k, v in {**SETTINGS, "output": folder}.items() for part in (f"--{k.replace('_', '-')}", str(v))]


def test_the_papers_selection_reuses_its_samples_and_says_so(straight, tmp_path):
    settings = {**SETTINGS, "n": 4, "select": "paper", "levels": "none"}
    error, printed = csd("ladder", output=tmp_path / "out", **settings)
    assert error is None
    assert "Biased" in printed
    assert read_json(tmp_path / "out" / "selection.json")["biased"] is True
    none = read_completions(tmp_path / "out" / "none" / "completions.jsonl")
    screen = [r for p in tmp_path.glob("out/screen/*.jsonl") for r in read_completions(p)]
    assert all(r in screen for r in none)


def test_a_ladder_becomes_training_data(straight, tmp_path):
    error, printed = csd("off-policy", straight[0], output=tmp_path / "data")
    assert error is None
    report = read_json(tmp_path / "data" / "report.json")
    problems = {row["problem_id"]: row for row in read_jsonl(straight[0] / "problems.jsonl")}
    for name, shown in report["sets"].items():
        rows = read_jsonl(tmp_path / "data" / f"{name}.jsonl")
        assert len(rows) == shown["examples"]
        assert sum(row["n_tokens"] for row in rows) == shown["tokens"]
        for row in rows:
            assert row["prompt"] == problems[row["problem_id"]]["prompt"]  # without any context
            assert f"\\boxed{{ {row['answer']} }}" in row["completion"][0]["content"]
            assert row["context"] == ("none" if name.startswith("D_ug") else "solution")
    assert report["lost_by_chat_template"] == 0
    assert "D_sg_token_matched" in report["sets"]
    assert "D_ug" in printed


def test_the_data_can_be_trained_on(straight, tmp_path):
    from datasets import Dataset

    from calibrated_sd.organism.checkpoint import organism_path
    from calibrated_sd.trainers import CalibratedSFTConfig, CalibratedSFTTrainer
    from tiny_runs import QUIET

    csd("off-policy", straight[0], output=tmp_path / "data")
    dataset = Dataset.from_json(str(tmp_path / "data" / "D_ug.jsonl"), cache_dir=str(tmp_path / "cache"))
    quiet = {k: v for k, v in QUIET.items() if k in CalibratedSFTConfig.__dataclass_fields__}
    args = CalibratedSFTConfig(str(tmp_path / "out"), **{**quiet, "max_steps": 1, "per_device_train_batch_size": 2})
    trainer = CalibratedSFTTrainer(str(organism_path()), args=args, train_dataset=dataset)
    tokenizer = trainer.processing_class
    for row, tokenized in zip(dataset, trainer.train_dataset, strict=True):
        learnt = [i for i in tokenized["labels"] if i != -100]
        ending = tokenizer(tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        assert learnt == tokenizer(row["completion"][0]["content"], add_special_tokens=False)["input_ids"] + ending
        assert len(learnt) == row["n_tokens"]  # nothing of the prompt, and the end of the turn once
    assert trainer.train().training_loss > 0


def test_settings_of_a_started_ladder_cannot_change(straight):
    before = samples(straight[0])
    error, _ = csd("ladder", output=straight[0], if_exists="resume", **{**SETTINGS, "n": 3})
    assert "n 2 → 3" in error
    assert samples(straight[0]) == before


def test_refusals_come_before_anything_is_written(tmp_path):
    out = tmp_path / "out"
    for changed, message in (
        ({"levels": "none,solutoin"}, "Did you mean 'solution'"),
        ({"select": "paper"}, "--n (2) and --n-screen (4)"),
        ({"solution_from": "file"}, "source of solutions"),
        ({"template": "papers"}, "Did you mean 'paper'"),
        ({"n": 0}, "at least 1"),
        ({"temperature": -1}, "temperature"),
        ({"grading_workers": 0}, "at least one worker"),
        ({"grader": "no_such_grader:f"}, "cannot be loaded"),
        ({"problems": tmp_path / "none.jsonl"}, "no problem file"),
    ):
        error, _ = csd("ladder", output=out, **{**SETTINGS, **changed})
        assert error is not None
        assert message in error
    assert not out.exists()


def test_a_band_that_holds_no_problem(tmp_path):
    settings = {**SETTINGS, "limit": 2, "min_pass_rate": 0.01, "max_pass_rate": 0.02}
    error, _ = csd("ladder", output=tmp_path / "out", **settings)
    assert "None of 2 problems can be used" in error
    assert "--select all" in error


def test_off_policy_wants_a_finished_ladder(straight, tmp_path):
    assert "is no finished ladder" in csd("off-policy", tmp_path, output=tmp_path / "out")[0]
    assert "hint" in csd("off-policy", straight[0], output=tmp_path / "out", guided="hint")[0]
    assert "--length-tolerance" in csd("off-policy", straight[0], output=tmp_path / "out", length_tolerance=2)[0]
    assert not (tmp_path / "out").exists()


def test_columns_of_a_file(tmp_path):
    rows = [
        {"problem": f"find x below 7 such that {k} * x mod 7 = 1 .", "answer": str(x), "worked": f"x = {x}"}
        for k, x in ((2, 4), (3, 5))
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {**SETTINGS, "problems": path, "solution_column": "worked", "solution_from": "column", "select": "all"}
    error, _ = csd("ladder", output=tmp_path / "out", **{**settings, "levels": "none,solution", "max_new_tokens": 20})
    assert error is None
    found = read_jsonl(tmp_path / "out" / "problems.jsonl")
    assert [row["solution"] for row in found] == ["x = 4", "x = 5"]
    assert found[0]["prompt"] == [{"role": "user", "content": rows[0]["problem"]}]  # text becomes a user turn
    assert not (tmp_path / "out" / "screen").exists()
    assert len({r["prompt_sha256"] for r in read_completions(tmp_path / "out" / "none" / "completions.jsonl")}) == 2
    assert prompt_sha256(found[0]["prompt"]) != prompt_sha256(found[1]["prompt"])


def test_a_template_that_drops_the_thinking_is_noticed(byte_model_path):
    from calibrated_sd.cli.off_policy import _lost_by_template, _opening, _tokenizer

    prompt = [{"role": "user", "content": "2 + 2?"}]
    rows = [
        {"prompt": prompt, "completion": [{"role": "assistant", "content": text}]}
        for text in ("<think>\nmaybe 4</think>4", "4")
    ]
    names = ("deepseek_r1_distill", "deepseek_r1_distill_training", "qwen3")
    tokenizers = {name: _tokenizer(byte_model_path(name)) for name in names}
    assert [_lost_by_template(tokenizers[name], rows, {}) for name in names[:2]] == [1, 0]
    assert [_opening(tokenizers[name], prompt, {}) for name in names] == ["<think>\n", "<think>\n", ""]
    assert _tokenizer("nobody/nothing") is None
    assert _lost_by_template(None, rows, {}) is None
    assert _opening(None, prompt, {}) == ""
    # What TRL asks of a row: the chat begins with the prompt as the model saw it.
    keeps = tokenizers["deepseek_r1_distill_training"]
    seen = keeps.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    assert keeps.apply_chat_template([*prompt, *rows[0]["completion"]], tokenize=False).startswith(seen)
