"""Settings: from Python, YAML and the command line; every mistake is one paragraph that says what to do."""

import json
import re
import warnings
from dataclasses import dataclass, fields

import pytest
from trl import TrlParser

from calibrated_sd.errors import ConfigError
from calibrated_sd.trainers import (
    CalibratedDistillationConfig,
    CalibratedSDFTConfig,
    CalibratedSDPOConfig,
    CalibratedSFTConfig,
    CalibrationFields,
)

PLAIN = {"use_cpu": True, "bf16": False, "report_to": "none"}

EVERY_FIELD = {
    "calibration_method": "floor",
    "calibration_strength": 0.5,
    "calibration_schedule": "linear:0->1@10%",
    "calibration_markers": "legacy",
    "calibration_kwargs": {"kappa": 0.8},
    "calibration_metrics": "full",
    "context_levels": "rollout:0.7,none:0.3",
    "context_mixing": "arith",
    "context_demo": "rollout",
    "demo_choice": "longest",
    "loss_reduction": "token_mean",
    "calibration_controller": "density:0.8",
    "context_schedule": "cosine:1->0@100",
    "hint_fraction": 0.25,
    "teacher_chat_template_kwargs": {"enable_thinking": False},
    "regenerated_cache": "cache.jsonl",
    "regenerated_temperature": 0.5,
    "regenerated_keep": "all",
    "chunk_size": 7,
    "topk_markers": True,
    "on_non_finite": "skip",
}
REGENERATED = {"context_levels": "regenerated:0.7,none:0.3"}
NEEDED = {
    "calibration_kwargs": {"calibration_method": "floor"},
    "hint_fraction": {"context_levels": "hint:0.7,none:0.3"},
    "regenerated_cache": REGENERATED,
    "regenerated_temperature": REGENERATED,
    "regenerated_keep": REGENERATED,
    "topk_markers": {"distillation_mode": "topk_logits", "distillation_topk": 5},
}
"""What else has to be set for a field to be allowed."""


def config(**settings):
    return CalibratedSDPOConfig("out", **PLAIN, **settings)


def parse(tmp_path, yaml="", *command_line):
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: out\nuse_cpu: true\nbf16: false\nreport_to: none\n" + yaml)
    (args,) = TrlParser(CalibratedSDPOConfig).parse_args_and_config(["--config", str(path), *command_line])
    return args


def test_default_is_off():
    args = config()
    assert args.calibration_strength == 0.0
    assert not args.is_calibrated
    assert args.context_plan() is None


def test_every_field_is_covered_here():
    assert {field.name for field in fields(CalibrationFields)} == set(EVERY_FIELD)


@pytest.mark.parametrize("name", EVERY_FIELD)
def test_every_field_from_yaml_and_from_the_command_line(tmp_path, name):
    value = EVERY_FIELD[name]
    others = {"context_levels": EVERY_FIELD["context_levels"]} if name.startswith("context_") else {}
    others |= NEEDED.get(name, {})
    before = "".join(f"{key}: '{given}'\n" for key, given in others.items() if key != name)
    written = json.dumps(value) if isinstance(value, dict) else str(value)
    from_yaml = parse(tmp_path, before + f"{name}: {written if isinstance(value, dict) else repr(value)}\n")
    assert getattr(from_yaml, name) == value
    from_command_line = parse(tmp_path, before, f"--{name}", written)
    assert getattr(from_command_line, name) == value


def test_the_command_line_wins_over_yaml(tmp_path):
    args = parse(tmp_path, "calibration_strength: 0.3\ncalibration_method: mixture\n", "--calibration_strength", "0.9")
    assert (args.calibration_method, args.calibration_strength) == ("mixture", 0.9)


@pytest.mark.parametrize("written", ["rollout:0.7,none:0.3", '{"rollout": 0.7, "none": 0.3}'])
def test_levels_on_the_command_line(tmp_path, written):
    assert parse(tmp_path, "", "--context_levels", written).context_plan().levels == {"rollout": 0.7, "none": 0.3}


def test_levels_as_a_yaml_mapping(tmp_path):
    args = parse(tmp_path, "context_levels:\n  rollout: 0.7\n  none: 0.3\n")
    assert args.context_plan().levels == {"rollout": 0.7, "none": 0.3}


@pytest.mark.parametrize("name", ["generation_kwargs", "chat_template_kwargs", "model_init_kwargs"])
def test_trls_mapping_fields_take_json_on_the_command_line(tmp_path, name):
    assert getattr(parse(tmp_path, "", f"--{name}", '{"a": 1}'), name) == {"a": 1}


def test_unknown_yaml_keys_are_refused(tmp_path):
    with pytest.raises(ValueError, match="calibration_strenght"):
        parse(tmp_path, "calibration_strenght: 0.3\n")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"calibration_method": "projecton"}, ["Did you mean 'projection'", "mix_to_floor"]),
        ({"calibration_strength": -0.1}, ["between 0 and 2", "-0.1"]),
        ({"calibration_strength": float("nan")}, ["calibration_strength"]),
        ({"calibration_method": "mixture", "calibration_strength": 1.5}, ["between 0 and 1", "1.5"]),
        ({"calibration_schedule": "liner:0->1@10"}, ["Did you mean 'linear'"]),
        ({"calibration_method": "floor", "calibration_kwargs": {"kapa": 1.0}}, ["Did you mean 'kappa'"]),
        ({"calibration_kwargs": "kappa=1"}, ["no JSON object", "kappa=1"]),
        ({"calibration_kwargs": [1]}, ["must be a mapping"]),
        ({"calibration_metrics": "ful"}, ["Did you mean 'full'"]),
        ({"context_levels": "solutoin:1"}, ["Did you mean 'solution'"]),
        ({"context_levels": "solution:0.7,none:0.2"}, ["sum to 0.9"]),
        ({"context_levels": "rollout:1", "context_mixing": "aritmetic"}, ["Did you mean 'arith'"]),
        ({"context_mixing": "arith"}, ["needs context_levels"]),
        ({"context_demo": "solution"}, ["needs context_levels"]),
        ({"context_levels": "rollout", "context_demo": "solution"}, ["has no such level"]),
        ({"context_levels": "rollout", "context_mixing": "mix_to_floor"}, ["the level 'none'"]),
        ({"context_levels": "none", "context_mixing": "mix_to_floor"}, ["does not hold both"]),
        ({"context_levels": "rollout", "remove_thinking_from_demonstration": True}, ["'stripped'"]),
        ({"demo_choice": "shrotest"}, ["Did you mean 'shortest'"]),
        ({"loss_reduction": "mean"}, ["Did you mean 'token_mean'"]),
        ({"teacher_model_kind": "emma"}, ["Did you mean 'ema'"]),
        ({"distillation_mode": "topk_logits", "distillation_alpha": 0.5}, ["distillation_topk"]),
        (
            {"calibration_strength": 1.0, "distillation_weight": 0.0},
            ["distillation_weight=0", "calibration_method='projection'"],
        ),
        ({"loss_reduction": "token_mean", "distillation_weight": 0.0}, ["distillation_weight=0"]),
        ({"calibration_strength": 1.0, "use_teacher_server": True}, ["use_teacher_server"]),
        (
            {"context_levels": "rollout:0.5,none:0.5", "context_mixing": "geo", "use_teacher_server": True},
            ["use_teacher_server", "context_mixing='geo'"],
        ),
    ],
)
def test_mistakes(settings, words):
    with pytest.raises(ConfigError) as error:
        config(**settings)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_strength_zero_is_allowed_where_a_strength_is_not():
    assert config(distillation_weight=0.0).calibration_strength == 0.0


def test_beta_warns():
    with pytest.warns(UserWarning, match=r"beta=0.1 has no effect"):
        config(beta=0.1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has no effect.*")
        config()


@pytest.mark.parametrize(
    ("settings", "levels", "choice"),
    [
        ({"demo_choice": "random"}, {"rollout": 1.0}, "random"),
        ({"remove_thinking_from_demonstration": True}, {"stripped": 1.0}, "first"),
        ({"context_levels": "solution"}, {"solution": 1.0}, "first"),
    ],
)
def test_when_our_context_builder_takes_over(settings, levels, choice):
    args = config(**settings)
    plan = args.context_plan(args.remove_thinking_from_demonstration)
    assert (plan.levels, plan.choice, plan.forwards_all) == (levels, choice, False)


def test_several_levels_are_all_run_unless_one_is_drawn():
    assert not config(context_levels="rollout:0.5,none:0.5").context_plan().forwards_all
    assert config(context_levels="rollout:0.5,none:0.5", context_mixing="geo").context_plan().forwards_all
    assert not config(context_levels="rollout", context_mixing="geo").context_plan().forwards_all


OWN_SETTINGS = [
    (
        CalibratedSDPOConfig,
        {"calibration_method": []},
        "calibration_method in CalibratedSDPOConfig must be text, got []",
    ),
    (CalibratedSDPOConfig, {"topk_markers": "yes"}, "must be true or false, got 'yes'"),
    (
        CalibratedSDFTConfig,
        {"calibration_strength": None},
        "calibration_strength in CalibratedSDFTConfig must be a number",
    ),
    (CalibratedSDFTConfig, {"hint_fraction": float("nan")}, "must be a number, got nan"),
    (CalibratedDistillationConfig, {"teacher_prompt_template": None}, "must be text, got None"),
    (CalibratedDistillationConfig, {"max_reprompt_len": "long"}, "must be a whole number or null, got 'long'"),
    (CalibratedSFTConfig, {"calibration_kl": {}}, "calibration_kl in CalibratedSFTConfig must be text, got {}"),
    (CalibratedSFTConfig, {"token_weights": [1]}, "must be a mapping or text or null, got [1]"),
]


@pytest.mark.parametrize(("kind", "wrong", "message"), OWN_SETTINGS)
def test_a_value_of_another_type_is_named(kind, wrong, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kind("out", **PLAIN, **wrong)


def test_a_class_derived_from_a_config_may_annotate_as_it_likes():
    @dataclass
    class Mine(CalibratedSDPOConfig):
        own: "NamedNowhere | None" = None  # noqa: F821

    assert Mine("out", **PLAIN, own=3).own == 3
    with pytest.raises(ConfigError, match="calibration_method in Mine must be text"):
        Mine("out", **PLAIN, calibration_method=3)


def test_a_path_stands_for_its_text(tmp_path):
    markers = tmp_path / "doubt.yaml"
    markers.write_text("name: doubt\nversion: 1\nmode: word\nphrases: [wait]\n", encoding="utf-8")
    assert config(calibration_markers=markers).calibration_markers == markers
