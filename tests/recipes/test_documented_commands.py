"""The README's commands do what they say, from the first run to an interrupted one, and so does a sweep."""

import csv
import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from recipe_commands import CSD, run

from calibrated_sd.cli.recipes import recipes_root
from process_kit import take_interrupts

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_small_sweep_from_the_command_line(tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "# Two strengths, one step, fewer problems than a batch takes\n"
        "base: organism/sdpo_projection\n"
        "settings: {max_steps: 1, per_device_train_batch_size: 16, gradient_accumulation_steps: 1, n_problems: 1}\n"
        "grid: {calibration_strength: [0.5, 1.0]}\n"
        "landmarks: [base]\n"
        "evaluation: {eval_problems: 4, eval_samples: 1, max_new_tokens: 64}\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    listed = run("sweep", "--config", recipe, "--output", out, "--list")
    assert listed.returncode == 0, listed.stderr
    assert "waiting    strength=0.5/seed_0" in listed.stdout
    assert "3 runs: 3 waiting" in listed.stdout
    assert not out.exists()
    done = run("sweep", "--config", recipe, "--output", out)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("results.csv", "results.json", "pareto.png", "report.html", "manifest.json"):
        assert (out / name).stat().st_size > 0, name
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["calibration_strength"] for r in rows} == {"", "0.5", "1.0"}
    again = run("sweep", "--config", recipe, "--output", out, "--if-exists", "resume")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "started" not in again.stdout
    assert "3 ok" in run("sweep", "--config", recipe, "--output", out, "--list").stdout


def readme_command(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"<!-- command: {name} -->\n```bash\n(.+?)\n```", text, re.S).group(1)


def test_readme_commands_install_what_the_project_declares():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("main", "tests"):
        install = next(part for part in readme_command(name).split("&&") if "pip install" in part)
        words = shlex.split(install)
        assert (ROOT / words[words.index("-c") + 1]).is_file()
        for extra in re.findall(r"\[(\w+)\]", install):
            assert re.search(rf"^{extra} = \[", pyproject, re.M)
    assert shlex.split(readme_command("tests").split("&&")[-1])[0] == "pytest"


@pytest.mark.slow
def test_the_readmes_main_command_in_quick_form(tmp_path):
    command = shlex.split(readme_command("main").split("&&")[-1])
    assert command[:2] == ["csd", "reproduce"]
    out = tmp_path / command[command.index("--output") + 1]
    command[command.index("--output") + 1] = str(out)
    done = run(*command[1:], "--quick")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Smoke run" in done.stdout
    for name in ("claims.json", "summary.csv", "report.html", "manifest.json", "examples.jsonl", "traces.jsonl"):
        assert (out / name).stat().st_size > 0, name
    assert {p.name for p in (out / "figures").glob("*.png")} >= {"trajectory.png", "ood_vs_markers.png", "ladder.png"}
    claims = json.loads((out / "claims.json").read_text())["claims"]
    assert {c["id"] for c in claims} >= {"C1", "C2", "C5", "C6"}
    assert all(c["verdict"] in {"shown", "not shown", "contradicted", "not run"} for c in claims)
    # A second run refuses the folder and leaves it alone.
    before = (out / "claims.json").read_bytes()
    again = run("reproduce", "--quick", "--output", out)
    assert again.returncode == 2
    assert "not empty" in again.stderr
    assert (out / "claims.json").read_bytes() == before
    # Resuming a finished run changes no result.
    resumed = run("reproduce", "--quick", "--output", out, "--if-exists", "resume")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert _verdicts(out) == [(c["id"], c["verdict"], c["ours"]) for c in claims]
    # Another profile does not fit into this folder.
    other = run("reproduce", "--output", out, "--if-exists", "resume")
    assert other.returncode == 2
    assert "another recipe" in other.stderr


def _verdicts(folder):
    return [(c["id"], c["verdict"], c["ours"]) for c in json.loads((folder / "claims.json").read_text())["claims"]]


def _rows(folder):
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_an_interrupted_reproduction_continues_and_equals_the_straight_one(tmp_path):
    raw = yaml.safe_load((recipes_root() / "organism" / "reproduce.yaml").read_text(encoding="utf-8"))
    raw["arms"] = {name: raw["arms"][name] for name in ("sdpo", "hybrid_mix_to_floor")}
    raw["arms"]["hybrid_mix_to_floor"]["reference"] = "sdpo"
    raw["profiles"]["quick"] |= {"steps": 4, "eval_steps": [2, 4]}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    options = ["--quick", "--config", recipe]
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert run("reproduce", *options, "--output", straight).returncode == 0

    process = subprocess.Popen(
        [*CSD, "reproduce", *map(str, options), "--output", str(broken)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=take_interrupts,
    )
    deadline = time.monotonic() + 120
    while not list(broken.glob("runs/*/seed_0/eval/step_2/completions.jsonl")):  # in the middle of an arm
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--if-exists resume" in stderr
    assert b"Traceback" not in stderr
    assert not (broken / "claims.json").exists()

    done = run("reproduce", *options, "--output", broken, "--if-exists", "resume")
    assert done.returncode == 0, done.stderr[-2000:]
    assert _verdicts(broken) == _verdicts(straight)
    assert _rows(broken) == _rows(straight)
