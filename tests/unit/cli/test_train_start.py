"""What `csd train` looks at before it loads a model: where a run goes on, and whether its weights can move."""

import warnings
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file

from calibrated_sd.cli.recipes import shipped_recipes
from calibrated_sd.cli.train import check_report_to, last_checkpoint, make_trainer, warn_of_lost_updates
from calibrated_sd.errors import ConfigError, OutputError
from calibrated_sd.experiments.train_recipe import RunArguments, parse_recipe


def checkpoint(folder, step, *files):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in files:
        if name == "trainer_state.json":
            (path / name).write_text('{"global_step": 1}')
        elif name.endswith(".safetensors"):
            save_file({"weight": torch.zeros(2)}, path / name)
        else:
            torch.save({}, path / name)
    return path


STATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors")
WHOLE = (*STATE, "trainer_state.json")


def test_a_run_goes_on_from_its_last_finished_checkpoint(tmp_path):
    assert last_checkpoint(tmp_path / "none") is None
    checkpoint(tmp_path, 9, *WHOLE)
    last = checkpoint(tmp_path, 20, *WHOLE)  # as a word, "9" would come after "20"
    checkpoint(tmp_path, 40, *STATE)  # killed while it was written
    cut = checkpoint(tmp_path, 60, *STATE)
    (cut / "trainer_state.json").write_text('{"global_step')
    with pytest.warns(UserWarning, match=r"was passed over: it was not written to the end. The run goes on from chec"):
        assert last_checkpoint(tmp_path) == last


def test_weights_alone_are_no_place_to_go_on_from(tmp_path):
    checkpoint(tmp_path, 20, "trainer_state.json", "model.safetensors")
    with pytest.raises(OutputError, match="checkpoint-20 holds weights only"):
        last_checkpoint(tmp_path)


def settings(dtype, **given):
    return SimpleNamespace(
        **{"model_init_kwargs": {"dtype": dtype}, "fsdp": [], "deepspeed_plugin": None, "learning_rate": 1e-5, **given}
    )


def test_updates_that_rounding_loses_are_said():
    # bf16 has 8 significant bits: from 0.05 (above 2^-5) the next number is 2^-5 / 2^7 = 2^-12 = 2.4e-4 away.
    with pytest.warns(UserWarning, match="learning_rate=1e-05 are smaller than half a step"):
        warn_of_lost_updates(RunArguments(), settings("bfloat16"))


@pytest.mark.parametrize(
    ("run", "given"),
    [
        (RunArguments(lora_r=8), settings("bfloat16")),
        (RunArguments(), settings("float32")),
        (RunArguments(), settings("bfloat16", deepspeed_plugin=object())),
        (RunArguments(), settings("bfloat16", fsdp=["full_shard"])),
    ],
)
def test_adapters_float32_and_sharded_states_are_fine(run, given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_lost_updates(run, given)


def test_no_shipped_recipe_for_one_process_loses_its_updates():
    seen = []
    for path in shipped_recipes():
        if isinstance(yaml.safe_load(path.read_text(encoding="utf-8")).get("trainer"), str):
            run, read = parse_recipe(path, [], on_this_machine=False)
            if run.gpus == 1:  # several start with a DeepSpeed launch file
                with warnings.catch_warnings():
                    warnings.simplefilter("error", UserWarning)
                    warn_of_lost_updates(run, read)
                seen.append(path.stem)
    assert {"full", "lora"} <= set(seen)


def test_a_tracker_that_is_not_there_is_said_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["tensorboard"])
    for fine in ([], "none", ["none"], "all", "tensorboard", ["tensorboard"], ["flyte"], None):
        check_report_to(SimpleNamespace(report_to=fine))
    with pytest.raises(ConfigError, match="report_to names 'wandb', whose library is not installed"):
        check_report_to(SimpleNamespace(report_to=["tensorboard", "wandb"]))
    with pytest.raises(ConfigError, match=r"Unknown report_to 'wandbb'\. Did you mean 'wandb'"):
        check_report_to(SimpleNamespace(report_to=["wandbb"]))


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, ConnectionError, NotImplementedError])
def test_what_the_libraries_refuse_is_one_paragraph_with_its_cause(monkeypatch, tmp_path, error):
    def refuse(*arguments, **options):
        raise error("no such\n  module")

    monkeypatch.setattr("calibrated_sd.experiments.training.assemble", refuse)
    with pytest.raises(
        ConfigError, match=rf"sdpo trainer cannot be made .*\({error.__name__}: no such module\)"
    ) as found:
        make_trainer(RunArguments(), None, [], tmp_path)
    assert isinstance(found.value.__cause__, error)
