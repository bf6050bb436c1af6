"""`chunk_size` changes nothing but the memory: losses of single tokens, gradients, and what is never built."""

import pytest
import torch
from fixed_batches import (
    DISTILLING,
    SHAPING,
    fixed_batch,
    loss_and_gradients,
    losses_and_gradients,
    nudge,
    relative_gap,
)
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from calibrated_sd.errors import ConfigError
from calibrated_sd.objectives import HeadScores, LogitScores
from calibrator_kit import settings_of

CHUNK = 3  # divides none of the counts of positions below

DIVERGENCES = {
    "sampled token": {"distillation_mode": "sampled_token", "distillation_alpha": 1.0},
    "JSD": {"distillation_alpha": 0.5},
    "forward KL": {"distillation_alpha": 0.0},
    "reverse KL": {"distillation_alpha": 1.0},
    "skewed": {"distillation_alpha": 0.2},
    "top-k": {"distillation_mode": "topk_logits", "distillation_topk": 5},
    "top-k, tail": {"distillation_mode": "topk_logits", "distillation_topk": 5, "distillation_add_tail": True},
    "top-k and markers": {
        "distillation_mode": "topk_logits",
        "distillation_topk": 5,
        "distillation_add_tail": True,
        "topk_markers": True,
    },
}


def lora(**settings):
    return LoraConfig(r=4, lora_alpha=8, **{"target_modules": ["q_proj", "v_proj"], **settings}, task_type="CAUSAL_LM")


@pytest.fixture
def both(make_trainer):
    """A trainer that holds all logits and one that holds those of three positions, with the same moved student."""

    def make(**settings):
        peft, make_model = settings.pop("make_peft", None), settings.pop("make_model", None)
        trainers = []
        for chunk_size in (None, CHUNK):
            torch.manual_seed(3)  # adapters start at random
            if make_model:
                settings["model"] = make_model()
            trainer = make_trainer(chunk_size=chunk_size, peft_config=peft() if peft else None, **settings)
            nudge(trainer)
            trainers.append(trainer)
        return trainers

    return make


def assert_equal(full, chunked, change=None):
    """Losses of all counted positions to 1e-6 of the largest, gradients of their sum and of the whole objective to 1e-5."""
    inputs = fixed_batch(full)
    for key, value in (change or {}).items():
        inputs[key] = value(inputs)
    theirs, ours = (losses_and_gradients(trainer, inputs) for trainer in (full, chunked))
    assert len(theirs[0]) > CHUNK
    largest = (
        theirs[0].abs().max().item()
    )  # a loss of sampled tokens multiplies differences of logs: theirs is the rounding
    assert torch.allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-6 * max(1.0, largest))
    assert relative_gap(ours[1], theirs[1]) < 1e-5
    theirs, ours = (loss_and_gradients(trainer, inputs) for trainer in (full, chunked))
    assert ours[0] == pytest.approx(theirs[0], abs=1e-6 * max(1.0, largest))  # large ones of both signs may cancel
    assert theirs[0] != 0
    assert relative_gap(ours[1], theirs[1]) < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_divergences(both, divergence, temperature):
    """Without a calibrator the full one is TRL's own loss (but for `topk_markers`, which TRL has not)."""
    full, chunked = both(temperature=temperature, **DIVERGENCES[divergence])
    assert full.follows_upstream == (divergence != "top-k and markers")
    assert_equal(full, chunked)


@pytest.mark.parametrize("method", DISTILLING)
def test_every_calibrator(both, method):
    assert_equal(*both(temperature=0.7, **settings_of(method)))


@pytest.mark.parametrize("method", DISTILLING)
def test_every_calibrator_in_a_hybrid(both, method):
    assert_equal(*both(**settings_of(method) | {"distillation_weight": 0.5}))


@pytest.mark.parametrize("method", SHAPING)
def test_every_shaped_advantage(both, method):
    assert_equal(*both(**settings_of(method)))


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_every_policy_loss(both, loss_type, level):
    """With old log-probabilities, so that ratios are not 1 and some of them are clipped."""
    full, chunked = both(distillation_weight=0.5, loss_type=loss_type, importance_sampling_level=level)
    generator = torch.Generator().manual_seed(2)
    old = -2.0 + 0.5 * torch.randn(4, 7, generator=generator)
    assert_equal(full, chunked, {"old_per_token_logps": lambda inputs: old})


@pytest.mark.parametrize("settings", [{}, settings_of("projection"), settings_of("floor")], ids=str)
@pytest.mark.parametrize("kind", ["base", "ema", "live"])
def test_lora_and_gradient_checkpointing(both, settings, kind):
    """A live teacher agrees with the student: there the calibrator alone makes a loss."""
    full, chunked = both(make_peft=lora, teacher_model_kind=kind, gradient_checkpointing=True, **settings)
    for trainer in (full, chunked):
        assert trainer.model.is_gradient_checkpointing
    assert_equal(full, chunked)


@pytest.mark.parametrize("reduction", ["upstream", "active_rows", "token_mean"])
def test_reductions_and_gradient_checkpointing(both, reduction):
    assert_equal(*both(gradient_checkpointing=True, loss_reduction=reduction))


@pytest.mark.parametrize("mixing", ["arith", "geo", "mix_to_floor"])
@pytest.mark.parametrize("method", [None, "projection"])
def test_mixtures_of_levels(both, mixing, method):
    settings = settings_of(method) if method else {}
    assert_equal(*both(context_levels="rollout:0.6,none:0.4", context_mixing=mixing, **settings))


def test_clipped_ratio(both):
    full, chunked = both(
        per_device_train_batch_size=4, gradient_accumulation_steps=1, steps_per_generation=2, distillation_is_clip=1.1
    )
    old = torch.linspace(-5.0, -1.0, 28).reshape(4, 7)
    assert_equal(full, chunked, {"old_per_token_logps": lambda inputs: old})


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_whole_run_on_used_rollouts(run, weight):
    """Two optimizer steps for each generation: old log-probabilities, computed by micro-batch, and what follows."""
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "distillation_is_clip": 1.05,
        "distillation_weight": weight,
        "learning_rate": 1e-3,
        "max_steps": 4,
    }
    whole, chunked = run(upstream=True, **settings), run(chunk_size=CHUNK, **settings)
    assert chunked.losses == pytest.approx(whole.losses, rel=1e-4, abs=1e-6)
    assert chunked.grad_norms == pytest.approx(whole.grad_norms, rel=1e-3)


def test_old_log_probabilities_are_read_a_micro_batch_at_a_time(make_trainer):
    """TRL runs all rollouts of a generation at once."""
    seen, found = {}, {}
    for chunk_size in (None, CHUNK):
        trainer = make_trainer(per_device_train_batch_size=2, steps_per_generation=4, chunk_size=chunk_size)
        inputs = fixed_batch(trainer)
        rows = seen.setdefault(chunk_size, [])
        trainer.model.register_forward_pre_hook(
            lambda module, args, kwargs, rows=rows: rows.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        found[chunk_size] = trainer._compute_rollout_logps(*[inputs[name] for name in names])
    assert seen[None] == [4]
    assert seen[CHUNK][-2:] == [2, 2]
    assert max(seen[CHUNK]) == 2
    mask = inputs["completion_mask"].bool()
    assert torch.allclose(found[CHUNK][mask], found[None][mask], atol=1e-6)
    assert not found[CHUNK].requires_grad


# ---- heads -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def other_model(word_tokenizer, tmp_path):
    """A folder with a tiny model of another architecture."""

    def make(architecture):
        import transformers

        small = {
            "vocab_size": len(word_tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.3,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": None,
        }
        name, more = {
            "softcap": ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}),
            "scale": ("Cohere", {"logit_scale": 0.25}),
            "divisor": ("Granite", {"logits_scaling": 4.0}),
            "bias": ("Phi", {"num_key_value_heads": 4}),
        }[architecture]
        model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**{**small, **more}))
        if architecture == "bias":
            torch.nn.init.normal_(model.lm_head.bias)
        path = tmp_path / architecture
        model.save_pretrained(path)
        word_tokenizer.save_pretrained(path)
        return str(path)

    return make


@pytest.mark.parametrize("architecture", ["softcap", "scale", "divisor", "bias"])
def test_heads_that_do_more_than_multiply(both, other_model, architecture):
    """In float64, where padding allows it: some of these models hardly tell their two contexts apart."""
    path = other_model(architecture)

    def make():
        dtype = torch.float32 if architecture == "softcap" else torch.float64
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)

    assert_equal(*both(make_model=make, temperature=0.7))
    assert_equal(*both(make_model=make, distillation_weight=0.5, **settings_of("floor")))


@pytest.mark.parametrize(
    "settings", [{"target_modules": ["q_proj", "lm_head"]}, {"modules_to_save": ["lm_head"]}], ids=["lora", "saved"]
)
def test_a_head_with_an_adapter_is_refused(make_trainer, settings):
    trainer = make_trainer(peft_config=lora(**settings), chunk_size=CHUNK)
    with pytest.raises(ConfigError, match=r"Leave lm_head out of LoRA's target_modules and modules_to_save"):
        loss_and_gradients(trainer, fixed_batch(trainer))


def test_logits_that_are_changed_in_an_unknown_way_are_refused(make_trainer):
    trainer = make_trainer(chunk_size=CHUNK)
    trainer.model.register_forward_hook(lambda module, args, out: out.__setitem__("logits", out.logits.exp()) or out)
    with pytest.raises(ConfigError, match=r"differ from the model's own.*Set chunk_size=None"):
        loss_and_gradients(trainer, fixed_batch(trainer))


def test_the_head_is_itself_again_afterwards(make_trainer):
    trainer = make_trainer(chunk_size=CHUNK)
    inputs = fixed_batch(trainer)
    trainer._forward_logits(trainer.model, inputs["prompt_ids"], inputs["prompt_mask"], 2)
    loss_and_gradients(trainer, inputs)
    logits = trainer._forward_logits(trainer.model, inputs["prompt_ids"], inputs["prompt_mask"], 2)
    assert logits.shape[-1] == trainer.model.config.vocab_size
    assert "forward" not in trainer.model.lm_head.__dict__


# ---- nothing to learn from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, CHUNK])
@pytest.mark.parametrize("peft", [None, lora], ids=["full", "lora"])
@pytest.mark.parametrize("method", [None, *DISTILLING])
def test_without_active_rows_every_gradient_is_zero_and_there(make_trainer, chunk_size, peft, method):
    """DDP waits for the gradient of every parameter, also on a process that has nothing to learn from."""
    settings = settings_of(method) if method else {}
    trainer = make_trainer(chunk_size=chunk_size, peft_config=peft() if peft else None, **settings)
    loss, found = loss_and_gradients(trainer, fixed_batch(trainer, active=(0.0, 0.0, 0.0, 0.0)))
    assert loss == 0.0
    assert all(value.abs().sum() == 0 for value in found.values())


@pytest.mark.parametrize("chunk_size", [None, CHUNK])
def test_what_the_student_is_run_through(make_trainer, chunk_size):
    """The kind of scores: so that a test of `chunk_size` that does not chunk is noticed."""
    trainer = make_trainer(chunk_size=chunk_size, calibration_strength=1.0)
    inputs = fixed_batch(trainer)
    micro = trainer._compute_teacher_student_logits(trainer.model, trainer.teacher_model, inputs)
    assert isinstance(micro.student, LogitScores if chunk_size is None else HeadScores)
