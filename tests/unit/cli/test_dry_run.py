"""`--dry-run`: every shipped recipe, offline and without data; markers in the prompts; exit 2 where it cannot fit."""

from __future__ import annotations

import io
import shutil

import pytest
import typer
import yaml
from rich.console import Console

from calibrated_sd.cli import dry_run, dry_run_prompts
from calibrated_sd.cli.recipes import recipes_root, shipped_recipes
from calibrated_sd.experiments.train_recipe import parse_recipe


def training_recipes():
    recipes = [p for p in shipped_recipes() if isinstance(yaml.safe_load(p.read_text()).get("trainer"), str)]
    return [p.relative_to(recipes_root()).as_posix() for p in recipes]


@pytest.fixture
def plan(monkeypatch):
    """Plan a recipe; returns what is printed, ending with "exit 2" where it would not fit."""

    def run(recipe, rows=None, **overrides):
        out = io.StringIO()
        console = Console(file=out, width=200, color_system=None, soft_wrap=True)
        for module, name in ((dry_run, "console"), (dry_run, "error_console"), (dry_run_prompts, "console")):
            monkeypatch.setattr(module, name, console)
        options = [part for name, value in overrides.items() for part in (f"--{name}", str(value))]
        arguments, settings = parse_recipe(recipe, options, on_this_machine=False)
        try:
            dry_run.show_plan(arguments, settings, rows, recipe)
        except typer.Exit as stop:
            out.write(f"exit {stop.exit_code}")
        return out.getvalue()

    return run


def check(plan, name):
    printed = plan(recipes_root() / name)
    assert "memory of one GPU" in printed
    assert "exit" not in printed.splitlines()[-1], printed.splitlines()[-2]
    return printed


@pytest.mark.parametrize("name", training_recipes())
def test_every_recipe(plan, name):
    check(plan, name)


def recipe_of(tmp_path, model_path, **keys):
    keys = {"trainer": "sdpo", "model": str(model_path), "problems": "absent/problems.jsonl", **keys}
    path = tmp_path / "mine.yaml"
    path.write_text("# mine\n# data: csd data prepare somewhere --output absent\n" + yaml.safe_dump(keys))
    return path


ROWS = [
    {
        "prompt": [{"role": "user", "content": "question one plus two"}],
        "answer": "3",
        "solution": "Maybe three. Wait, no: it is three.",
    },
    {"prompt": [{"role": "user", "content": "question six"}], "answer": "6", "solution": "six"},
]
SMALL = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 16, "output_dir": "out"}


def test_prompts_with_marker_hits(plan, tmp_path, model_path):
    path = recipe_of(tmp_path, model_path, **SMALL, context_levels="solution", max_steps=3)
    printed = plan(path, rows=ROWS)
    # The word tokenizer: <|user|> question one plus two <|assistant|>
    assert "student reads: 6 tokens, 0 markers" in printed
    assert "<|user|> question one plus two" in printed
    assert "teacher reads (solution)" in printed
    assert "2 markers (maybe, wait)" in printed
    assert "prompt lengths                     4 to 6 tokens, median 5" in printed
    assert "rollouts in all                    6" in printed
    assert "context_levels                     solution" in printed
    assert "learning_rate" not in printed  # TRL's default
    assert "calibration_method" not in printed  # nothing acts
    acting = plan(recipe_of(tmp_path, model_path, **SMALL, max_steps=3, calibration_strength=1.0), rows=ROWS)
    assert "calibration_method                 projection" in acting  # the default, and it acts


@pytest.mark.parametrize("trainer", ["sdft", "distillation", "grpo", "sft"])
def test_every_trainer(plan, tmp_path, model_path, trainer):
    own = {"num_generations": 2} if trainer in ("sdft", "grpo") else {}
    longest = {"max_length": 32} if trainer == "sft" else {"max_completion_length": 16}
    keys = {"trainer": trainer, "per_device_train_batch_size": 2, "output_dir": "out", **own, **longest}
    rows = [{**row, "completion": [{"role": "assistant", "content": "so maybe"}]} for row in ROWS]
    printed = plan(recipe_of(tmp_path, model_path, **keys), rows=rows)
    assert "memory of one GPU" in printed
    assert ("teacher reads (solution)" in printed) == (trainer in ("sdft", "distillation"))
    if trainer in ("sdft", "distillation"):  # their own template: question, empty line, solution
        assert "question one plus two\n\nMaybe three. Wait, no: it is three." in printed
    assert ("and learns to write" in printed) == (trainer == "sft")
    assert ("rollouts in all" in printed) == (trainer != "sft")


def test_the_recipes_own_templates_and_free_levels(plan, tmp_path, model_path):
    own = {"context_levels": "solution:0.5,none:0.5", "reprompt_template": "{prompt} BECAUSE {solution}{feedback}"}
    printed = plan(recipe_of(tmp_path, model_path, **SMALL, **own), rows=ROWS)
    assert "question one plus two BECAUSE" in printed
    none = printed.split("teacher reads (none)")[1]
    assert none.splitlines()[1].startswith("<|user|> question one plus two <|assistant|>")


def test_missing_data_and_a_missing_tokenizer_are_said(plan, tmp_path, model_path):
    folder = tmp_path / "weights-later"
    folder.mkdir()
    shutil.copy(f"{model_path}/config.json", folder)
    printed = plan(recipe_of(tmp_path, folder, **SMALL))
    assert "not here yet" in printed
    assert "`csd data prepare somewhere --output absent`" in printed
    assert "holds no tokenizer" in printed
    assert "[user] What is 17" in printed
    assert "as many as the data make" in printed  # epochs of unknown data


def test_an_impossible_plan_exits_with_2(plan, tmp_path, model_path):
    printed = plan(recipe_of(tmp_path, model_path, **SMALL, gpu_memory_gib=0.5), rows=ROWS)
    last = printed.splitlines()
    assert last[-1] == "exit 2"
    assert last[-2].startswith("Error: This run does not fit: it needs about 1.0")


def test_too_few_problems(plan, tmp_path, model_path):
    from calibrated_sd.errors import DataError

    path = recipe_of(tmp_path, model_path, **{**SMALL, "per_device_train_batch_size": 8})
    with pytest.raises(DataError, match="has 2 problems, but one generation batch takes 4"):
        plan(path, rows=ROWS)
