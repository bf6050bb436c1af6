"""Weights, gradients, optimizer states and copies: equal to the bytes of a real step, to the last one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback

from calibrated_sd.errors import ConfigError
from calibrated_sd.planning.model_shape import model_shape
from calibrated_sd.planning.training_state import launch_sharding, sharding, state_parts, with_sharding

PROJECTION = {"calibration_method": "projection", "calibration_strength": 1.0}


class Gradients(TrainerCallback):
    """Bytes of all gradients just before the first update."""

    size = 0

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.size = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def nbytes(tensors):
    return sum(tensor.nbytes for tensor in tensors)


def named(run, settings, shape):
    sizes: dict[str, int] = {}
    for part in state_parts(run, settings, shape):
        sizes[part.name] = sizes.get(part.name, 0) + part.size
    return sizes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["base", "ema", "live"])
def test_a_step_of_all_weights(make_trainer, model_path, kind, dtype):
    watch = Gradients()
    settings = {"teacher_model_kind": kind, "max_steps": 1, "model_init_kwargs": {"dtype": dtype}, **PROJECTION}
    trainer = make_trainer(callbacks=[watch], **settings)
    trainer.train()
    run = SimpleNamespace(trainer="sdpo", lora_r=0, lora_target_modules=None, gpus=1)
    sizes = named(run, trainer.args, model_shape(model_path))

    assert sizes.pop("weights") == nbytes(trainer.model.parameters())
    assert sizes.pop("gradients") == watch.size
    moments = [v for s in trainer.optimizer.state.values() for k, v in s.items() if k.startswith("exp_avg")]
    assert sizes.pop("optimizer states") == nbytes(moments)
    own = lambda model: 0 if model in (None, trainer.model) else nbytes(model.parameters())  # noqa: E731
    assert sizes.pop(f"{kind} teacher", 0) == own(trainer.teacher_model)
    shared = trainer.reference.model is trainer.teacher_model
    assert sizes.pop("reference", 0) == (0 if shared else own(trainer.reference.model))
    wide = [c for c in trainer.callback_handler.callbacks if hasattr(c, "average")]
    assert sizes.pop("average of the moving teacher", 0) == sum(nbytes(c.average.values()) for c in wide)
    assert sizes == {}


@pytest.mark.parametrize("kind", ["base", "ema"])
def test_a_step_of_an_adapter(make_trainer, model_path, kind):
    from peft import LoraConfig

    watch = Gradients()
    adapter = LoraConfig(r=3, target_modules="all-linear", lora_dropout=0.0)
    trainer = make_trainer(
        callbacks=[watch],
        peft_config=adapter,
        teacher_model_kind=kind,
        max_steps=1,
        model_init_kwargs={"dtype": "bfloat16"},
        **PROJECTION,
    )
    trainer.train()
    run = SimpleNamespace(trainer="sdpo", lora_r=3, lora_target_modules=None, gpus=1)
    sizes = named(run, trainer.args, model_shape(model_path))

    parameters = dict(trainer.model.named_parameters())
    assert sizes["weights"] == nbytes(p for n, p in parameters.items() if "lora_" not in n)
    assert sizes["adapter"] == nbytes(p for n, p in parameters.items() if ".default." in n)
    assert sizes["gradients"] == watch.size
    moments = [v for s in trainer.optimizer.state.values() for k, v in s.items() if k.startswith("exp_avg")]
    assert sizes["optimizer states"] == nbytes(moments)
    teacher = nbytes(p for n, p in parameters.items() if ".teacher." in n)
    shadows = [c.shadow_weights for c in trainer.callback_handler.callbacks if getattr(c, "shadow_weights", None)]
    assert sizes.get("moving teacher", 0) == teacher + sum(nbytes(s.values()) for s in shadows)
    assert "reference" not in sizes


def settings_for(**changes):
    given = {
        "bf16": True,
        "fp16": False,
        "use_cpu": False,
        "model_init_kwargs": {"dtype": "bfloat16"},
        "optim": "adamw_torch",
    }
    return SimpleNamespace(**{**given, "deepspeed": None, "fsdp": None, "teacher_model_kind": "base", **changes})


RUN8 = SimpleNamespace(trainer="sdpo", lora_r=0, lora_target_modules=None, gpus=8)


@pytest.mark.parametrize(
    ("stage", "per_parameter"),
    [
        # 2 weights + 2 gradients + 12 (master and two moments), and 2 for the frozen teacher; divided by 8 where sharded.
        (1, 2 + 2 + 12 / 8 + 2),
        (2, 2 + 2 / 8 + 12 / 8 + 2),
        (3, (2 + 2 + 12 + 2) / 8),
    ],
)
def test_zero_divides_as_the_paper_says(stage, per_parameter):
    shape = model_shape("Qwen/Qwen3-8B")
    settings = settings_for(deepspeed={"zero_optimization": {"stage": stage}})
    total = sum(part.size for part in state_parts(RUN8, settings, shape))
    assert total == pytest.approx(per_parameter * shape.n_parameters, rel=1e-6)


def test_ddp_and_fsdp():
    shape = model_shape("Qwen/Qwen3-8B")

    def per_parameter(**changes):
        return sum(p.size for p in state_parts(RUN8, settings_for(**changes), shape)) / shape.n_parameters

    # bf16 throughout: weights 2, gradients 2 and their buckets 2, moments 2 + 2, teacher 2
    assert per_parameter() == pytest.approx(12)
    # float32 under autocast: 4, 4 and 4, 8, teacher 4, casts 2
    assert per_parameter(model_init_kwargs=None) == pytest.approx(26)
    # FSDP: everything float32, an eighth of it
    assert per_parameter(fsdp="full_shard") == pytest.approx((4 + 4 + 8 + 4) / 8)
    assert per_parameter(optim="adamw_8bit") == pytest.approx(10)
    with pytest.raises(ConfigError, match="dtype 'int3'"):
        per_parameter(model_init_kwargs={"dtype": "int3"})


def test_the_launch_files(tmp_path):
    folder = Path(__file__).parents[3] / "recipes" / "launch"
    if folder.is_dir():
        assert launch_sharding(folder / "8gpus_zero2.yaml") == "zero2"
        assert launch_sharding(folder / "1gpu.yaml") == "ddp"
    fsdp = tmp_path / "fsdp.yaml"
    fsdp.write_text("distributed_type: FSDP\n")
    assert launch_sharding(fsdp) == "fsdp"
    with pytest.raises(ConfigError, match="cannot be read"):
        launch_sharding(tmp_path / "absent.yaml")
    for kind in ("ddp", "zero2", "zero3", "fsdp"):
        assert sharding(with_sharding(settings_for(), kind)) == kind
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    assert sharding(settings_for(deepspeed=str(config))) == "zero3"
    with pytest.raises(ConfigError, match="Give a JSON file"):
        sharding(settings_for(deepspeed=str(tmp_path / "none.json")))
