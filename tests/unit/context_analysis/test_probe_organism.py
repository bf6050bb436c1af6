"""The whole probe on the model organism: known effects, interruption, refusals, the command."""

from __future__ import annotations

import warnings

import pytest
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.probe import probe_command
from calibrated_sd.context_analysis.probe import run_probe
from calibrated_sd.context_analysis.probe_figures import probe_figures
from calibrated_sd.context_analysis.probe_plan import ProbeIds, parse_contexts, plan_probe
from calibrated_sd.context_analysis.traces import Trace, find_traces
from calibrated_sd.errors import CalibratedSDError, ConfigError, ContextError, DataError
from calibrated_sd.organism.suites import load_suite
from calibrated_sd.records import prompt_sha256, read_json, read_jsonl

app = typer.Typer()
app.command()(probe_command)


@pytest.fixture(scope="module")
def organism():
    from calibrated_sd.organism.checkpoint import load_organism

    return load_organism()


@pytest.fixture(scope="module")
def planned(organism):
    _, tokenizer = organism
    problems = load_suite("organism", n=5)
    ids = ProbeIds.of(tokenizer)
    levels = parse_contexts("stripped,regenerated,solution")
    jobs, left_out = plan_probe(tokenizer, problems, find_traces("built", problems), levels, ids, window=512)
    assert left_out == {}
    return jobs, ids


@pytest.fixture(scope="module")
def straight(organism, planned, tmp_path_factory):
    path = tmp_path_factory.mktemp("straight") / "probe.jsonl"
    return path, run_probe(organism[0], *planned, path)


def test_known_effects(straight):
    """The organism was given the habit: a trace in the context silences it, an answer hardly, an instruction not at all.

    Its corpus never showed another puzzle's solution, and it goes by the form: what silences it is *a* solution.
    """
    found = probe_figures(straight[1])
    change = {level: figures["marker"] for level, figures in found["levels"].items() if level != "none"}
    assert change["solution"]["hi"] < -0.4
    assert change["regenerated"]["hi"] < -0.3
    assert -0.2 < change["stripped"]["value"] < 0.0
    assert abs(change["instruction"]["value"]) < 0.02
    assert found["levels"]["solution"]["marker_minus_neutral"]["hi"] < -0.8
    assert found["levels"]["solution"]["mass_ratio"]["hi"] < 0.85
    assert found["levels"]["solution"]["held_out"]["hi"] < 0
    assert abs(found["contrasts"]["irrelevant"]["marker"]["value"]) < 0.15
    # a foreign solution misleads: everything else in the text becomes less likely
    others = {level: figures["other_tokens"] for level, figures in found["levels"].items() if level != "none"}
    assert others["irrelevant"]["hi"] < others["solution"]["lo"]
    assert found["base_density"]["lo"] > 50


def test_lines(straight, planned):
    _, rows = straight
    jobs, _ = planned
    assert len(rows) == len(jobs) * 7
    free = {row["problem_id"]: row for row in rows if row["level"] == "none"}
    for row in rows:
        same = free[row["problem_id"]]
        assert [slot["position"] for slot in row["markers"]] == [slot["position"] for slot in same["markers"]]
        assert 0 <= row["marker_mass"] <= row["tokens"] == same["tokens"]
        marked = sum(slot["tokens"] for slot in row["markers"] + row["held_out"])
        assert row["other_tokens"] == row["tokens"] - marked


def test_an_interrupted_run_ends_with_the_same_file(organism, planned, straight, tmp_path):
    jobs, ids = planned
    path = tmp_path / "probe.jsonl"

    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        run_probe(organism[0], jobs, ids, path, on_progress=stop)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3 * 7
    path.write_bytes(b"".join(lines[:-2]) + lines[-2][:40])  # killed while it wrote the third text
    calls = []
    run_probe(organism[0], jobs, ids, path, on_progress=lambda done, total: calls.append(done))
    assert path.read_bytes() == straight[0].read_bytes()
    assert calls == list(range(2, len(jobs) + 1))


def test_prompts_that_do_not_fit(organism, planned):
    _, tokenizer = organism
    jobs, ids = planned
    problems = load_suite("organism", n=5)
    traces, levels = find_traces("built", problems), parse_contexts("solution", controls=False)
    need = {job.key: len(job.prompts["solution"]) + len(job.ids) for job in jobs}
    window = sorted(need.values())[-2]
    (longest,) = [key for key, size in need.items() if size > window]
    with pytest.raises(
        ContextError, match=f"'{longest.partition('/')[2]}' under the context 'solution'.*--skip-too-long"
    ):
        plan_probe(tokenizer, problems, traces, levels, ids, window=window)
    kept, left_out = plan_probe(tokenizer, problems, traces, levels, ids, window=window, skip_too_long=True)
    assert left_out == {"solution: too long": 1}
    assert {job.key: set(job.prompts) for job in kept}[longest] == {"none"}
    cut, _ = plan_probe(tokenizer, problems, traces, levels, ids, window=window, max_trace_tokens=4)
    assert {len(job.ids) for job in cut} == {4}


def test_levels_without_material(word_tokenizer):
    problems = [{"suite": "s", "problem_id": "a", "prompt": "two", "draft": "maybe two"}]
    traces = find_traces("column:draft", problems)
    ids = ProbeIds.of(word_tokenizer)
    with pytest.raises(DataError, match="'solution' shows"):
        plan_probe(word_tokenizer, problems, traces, ("none", "solution"), ids)
    with pytest.raises(ConfigError, match="Did you mean 'hedged'"):
        parse_contexts("hedge")
    assert parse_contexts("solution") == ("none", "solution", "irrelevant", "wrong", "instruction")


def test_samples_of_other_prompts_are_noticed(organism, planned):
    _, tokenizer = organism
    (problem,) = load_suite("train", n=1)
    known = planned[0][0]
    assert known.problem_id == problem["problem_id"]
    same = [[Trace(0, "maybe x = 3 .", is_sample=True, prompt_sha256=prompt_sha256(known.prompt_texts["none"]))]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_probe(tokenizer, [problem], same, ("none",), planned[1])
    other = [[Trace(0, "maybe x = 3 .", is_sample=True, prompt_sha256="0" * 64)]]
    with pytest.warns(UserWarning, match="1 of 1 texts were sampled after another prompt"):
        plan_probe(tokenizer, [problem], other, ("none",), planned[1])


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, (CalibratedSDError, SystemExit)):
        raise result.exception
    return result


def test_command(tmp_path):
    out = tmp_path / "out"
    given = (
        "--model",
        "organism",
        "--problems",
        "organism:train",
        "--limit",
        3,
        "--contexts",
        "solution",
        "--output",
        out,
    )
    result = run(*given)
    assert result.exit_code == 0, result.output
    assert "irrelevant*" in result.output
    document = read_json(out / "probe.json")
    assert document["kind"] == "probe"
    assert document["counts"]["problems"] == 3
    assert document["provenance"]["model_sha256"]
    assert len(read_jsonl(out / "probe.jsonl")) == 3 * 5
    before = (out / "probe.jsonl").read_bytes()
    assert run(*given, "--if-exists", "resume").exit_code == 0
    assert (out / "probe.jsonl").read_bytes() == before
    assert "seed 0 → 1" in str(run(*given, "--if-exists", "resume", "--seed", 1).exception)
    assert "is not empty" in str(run(*given).exception)
    assert "at least 1" in str(run(*given[:-1], tmp_path / "new", "--batch-size", 0).exception)
    assert not (tmp_path / "new").exists()


def test_low_density_is_said(model_path, tmp_path):
    """A model with random weights does not doubt along a plain solution."""
    rows = [
        f'{{"problem_id": "{w}", "prompt": "question {w}", "answer": "{w}", "solution": "the answer\\nis {w}"}}'
        for w in ("one", "two", "three")
    ]
    path = tmp_path / "numbers.jsonl"
    path.write_text("\n".join(rows) + "\n")
    result = run("--model", model_path, "--problems", path, "--output", tmp_path / "out", "--contexts", "solution")
    assert result.exit_code == 0, result.output
    document = read_json(tmp_path / "out" / "probe.json")
    assert document["left_out"] == {"wrong: missing": 3}  # no number that could be altered
    density = document["base_density"]
    assert density["unit"] == "expected markers along plain solutions per 1k tokens"
    assert ("nothing to preserve" in result.output) == (density["value"] < 2)
