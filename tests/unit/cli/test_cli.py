"""The command line: help, exit codes, one-paragraph errors, nothing overwritten."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from calibrated_sd.cli.main import app, main
from calibrated_sd.errors import CalibratedSDError, ConfigError, unknown_name


def commands_of(group, before=()):
    """Every command of the program, also those of its groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*before, name))
        else:
            yield [*before, name]


COMMANDS = list(commands_of(get_command(app)))
runner = CliRunner()


def csd(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "calibrated_sd.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_two_examples(command):
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    examples = re.findall(rf"csd {' '.join(command)}", result.output)
    assert len(examples) >= 2, result.output


def test_help_starts_quickly_because_it_imports_no_torch():
    code = "import sys; import calibrated_sd.cli.main; assert 'torch' not in sys.modules, 'torch was imported'"
    since = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - since < 10  # a torch import alone takes several seconds on a busy machine


def test_a_user_error_is_one_paragraph_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["csd", "cat", "organism/reproduc.yaml"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: Unknown recipe 'organism/reproduc.yaml'. Did you mean 'organism/reproduce.yaml'?")
    assert "Traceback" not in error


def test_cat_of_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes("# größe".encode("latin-1"))
    result = runner.invoke(app, ["cat", str(tmp_path / "x.yaml")])
    assert isinstance(result.exception, ConfigError)
    assert "is not UTF-8 text" in str(result.exception)


def test_unknown_name_suggests_the_nearest_and_lists_all():
    message = str(unknown_name("calibration_method", "projecton", ["floor", "projection"]))
    assert message == (
        "Unknown calibration_method 'projecton'. Did you mean 'projection'? Choose one of: floor, projection."
    )
    assert "Did you mean" not in str(unknown_name("x", "zzz", ["floor"]))
    many = str(unknown_name("recipe", "a07", [f"a{i:02d}" for i in range(60)]))
    assert "Did you mean 'a07'" in many
    assert "There are 60; the nearest: a07, " in many
    assert many.count(",") == 7


def test_cp_never_overwrites(tmp_path):
    target = tmp_path / "mine.yaml"
    assert runner.invoke(app, ["cp", "organism/reproduce.yaml", str(target)]).exit_code == 0
    target.write_text("mine")
    result = runner.invoke(app, ["cp", "organism/reproduce.yaml", str(target)])
    assert isinstance(result.exception, CalibratedSDError)
    assert target.read_text() == "mine"


def test_ls_cat_validate_and_version():
    assert "organism/reproduce.yaml" in runner.invoke(app, ["ls"]).output
    assert "profiles:" in runner.invoke(app, ["cat", "organism/reproduce"]).output
    assert "valid" in runner.invoke(app, ["validate"]).output
    assert re.fullmatch(r"calibrated-sd \d+\.\d+\.\d+\n", runner.invoke(app, ["--version"]).output)


def test_env_names_versions_and_marker_sets():
    block = json.loads(runner.invoke(app, ["env", "--json"]).output)
    assert {"torch", "trl", "transformers"} <= set(block["versions"])
    assert set(block["marker_set_hash"]) == {"legacy", "lexical", "held_out"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration_method", "projektion", "--calibration_strength", "1"], "Did you mean 'projection'"),
        (["--calibration_strength", "-1"], "calibration_strength"),
        (["--calibration_strenght", "1"], "--calibration_strength"),
        (["--context_levels", "solutoin:1"], "Did you mean 'solution'"),
        (["--context_levels", "rollout:0.7,none:0.7"], "sum"),
        (["--context_levels", "solution"], "solution"),  # the organism's problems have no such column
        (["--calibration_strength", "1", "--distillation_weight", "0"], "distillation_weight"),
        (["--n_problems", "1"], "prompts"),  # fewer than a generation batch: TRL would train 0 steps
        (["--model", "no/such/model"], "no/such/model"),
        (["--problems", "missing.jsonl"], "missing.jsonl"),
        (["--max_completion_length", "600"], "600"),  # longer than the model's window
        (["--grader", "exactly"], "grader"),
        (["--learning_rate", "fast"], "learning_rate"),
    ],
)
def test_bad_input_to_train_is_explained_and_writes_no_model(tmp_path, arguments, message):
    done = csd("train", "--config", "organism/sdpo_projection", "--output", tmp_path / "out", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out" / "model").exists()


def test_a_used_output_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = csd("train", "--config", "organism/sdpo_projection", "--output", tmp_path)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    overwrite = csd("train", "--config", "organism/sdpo_projection", "--output", tmp_path, "--if-exists", "overwrite")
    assert overwrite.returncode == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_train_two_steps_then_resume_to_three(tmp_path):
    small = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1", "--save_steps", "1"]
    out = tmp_path / "out"
    first = csd("train", "--config", "organism/sdpo_projection", "--output", out, "--max_steps", "2", *small)
    assert first.returncode == 0, first.stderr[-2000:]
    more = csd(
        *("train", "--config", "organism/sdpo_projection", "--output", out, "--max_steps", "3", *small),
        *("--if-exists", "resume"),
    )
    assert more.returncode == 0, more.stderr[-2000:]
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3]
    assert (out / "model" / "model.safetensors").is_file()


def test_dry_run_shows_the_plan_and_writes_nothing(tmp_path):
    done = csd("train", "--config", "organism/sdpo_projection", "--output", tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"rollouts at a time +128 .16 prompts", done.stdout)
    assert "teacher reads" in done.stdout
    assert not (tmp_path / "out").exists()
