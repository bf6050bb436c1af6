"""The tutorial of the swapped trainer as it reads: its script with TRL's import, then with ours, and its commands, at a small size."""

import math
import runpy
import shlex

import pytest
from pages import ROOT, blocks

PAGE = ROOT / "docs/tutorials/04_swap_the_trainer.md"
SMALL = ["--max_steps", "1", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"]
SMALL += ["--num_generations", "4", "--max_completion_length", "96"]


def run(line: str, monkeypatch):
    """What a `python FILE …` of the page leaves behind: the script's trainer."""
    _, script, *words = shlex.split(line)
    monkeypatch.setattr("sys.argv", [script, *words, *SMALL])
    return runpy.run_path(script, run_name="__main__")["trainer"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The trainers by output folder, after the page's commands in their order; the `diff` is applied where it stands."""
    monkeypatch.chdir(tmp_path)
    trainers = {}
    for block in blocks(PAGE):
        match block.language:
            case "python":
                script = tmp_path / block.file
                script.write_text(block.code, encoding="utf-8")
            case "yaml":
                script.with_suffix(".yaml").write_text(block.code, encoding="utf-8")
            case "diff":
                old, new = block.code.splitlines()
                text = script.read_text(encoding="utf-8")
                assert text.count(old.removeprefix("-")) == 1
                script.write_text(text.replace(old.removeprefix("-"), new.removeprefix("+")), encoding="utf-8")
            case "bash":
                for line in block.code.splitlines():
                    if line.startswith("python "):
                        trainer = run(line, monkeypatch)
                        trainers[trainer.args.output_dir] = trainer
    return trainers


@pytest.mark.slow
def test_the_script_works_with_both_imports_and_with_the_dial(runs, tmp_path):
    from trl.experimental.sdpo import SDPOTrainer

    from calibrated_sd import SDPOTrainer as Ours

    assert list(runs) == ["plain", "same", "kept"]
    assert [type(trainer) for trainer in runs.values()] == [SDPOTrainer, Ours, Ours]
    first = {}
    for name, trainer in runs.items():
        assert trainer.state.global_step == 1
        assert (tmp_path / name / "model" / "model.safetensors").is_file()
        first[name] = trainer.state.log_history[0]
        assert math.isfinite(first[name]["loss"])
        assert first[name]["grad_norm"] > 0
    for key in ("loss", "grad_norm"):
        assert first["same"][key] == first["plain"][key]  # what the page says of its ten steps
    assert first["kept"]["loss"] != first["plain"]["loss"]
    assert [("epistemic/per_1k" in log, "calibration/retention" in log) for log in first.values()] == [
        (False, False),
        (True, False),
        (True, True),
    ]
