"""A recipe of every kind with keys replaced, removed or added: `csd validate` knows it, or says in one paragraph what is wrong."""

import dataclasses
import math
import os

import yaml
from fuzzing import allowed, anything, fuzz, text
from hypothesis import given
from hypothesis import strategies as st

import calibrated_sd.trainers.sdpo
import calibrated_sd.trainers.sft.trainer  # now, so that the first case is not charged for it  # noqa: F401
from calibrated_sd.cli.recipes import recipes_root, validate_file
from calibrated_sd.experiments.train_recipe import parse_recipe


def shipped(name):
    return yaml.safe_load((recipes_root() / f"{name}.yaml").read_text(encoding="utf-8"))


SDPO, SFT, SWEEP = (
    shipped("organism/sdpo_projection"),
    shipped("organism/sft_d_sg_calibrated"),
    shipped("sweeps/strength"),
)
STUDY, PRETRAIN, LAUNCH = shipped("organism/reproduce"), shipped("organism/pretrain"), shipped("launch/4gpus_zero2")
STUDY["arms"] = dict(list(STUDY["arms"].items())[:7])  # those of all profiles; reading YAML is what takes time
RUN = (
    *("n_problems", "repeat_problems", "subset_seed", "reward", "lora_r", "lora_alpha", "lora_target_modules", "gpus"),
    *("gpu_memory_gib", "trainer", "env", "chat_template_kwargs", "context_levels", "calibration_kwargs", "chunk_size"),
    *("calibration_schedule", "calibration_markers", "generation_batch_size", "steps_per_generation", "eval_strategy"),
)
"""Keys that a training recipe may have beside those of the shipped one."""
small = st.sampled_from(
    [-1, 0, 1, 2, 3, 0.5, 1.0, math.inf, -math.inf, math.nan, 2**63, 10**12, True, "1", "5e-4", "seed"]
)


def changed(recipe, *more):
    """A good recipe with some keys replaced, removed or added."""
    keys = st.sampled_from(sorted({*recipe, *more})) | text
    return st.dictionaries(keys, anything | small | st.just(...), min_size=1, max_size=3).map(
        lambda changes: {k: v for k, v in {**recipe, **changes}.items() if v is not ...}
    )


def within(recipe, section, *more):
    """The same inside a section of it."""
    return changed(recipe.get(section, {}), *more).map(lambda inner: {**recipe, section: inner})


def write(tmp_path, raw):
    path = tmp_path / "recipe.yaml"
    written = raw if isinstance(raw, str) else "# a recipe\n" + yaml.safe_dump(raw)
    path.write_bytes(written.encode("utf-8", "surrogatepass"))
    return path


def check(tmp_path, raw):
    before = dict(os.environ)
    kind = allowed(validate_file, write(tmp_path, raw))
    assert dict(os.environ) == before  # looking at a recipe changes nothing
    return kind


@fuzz
@given(changed(SDPO, *RUN) | changed(SFT, *RUN))
def test_training_recipes(tmp_path, raw):
    kind = check(tmp_path, raw)
    if kind == "train":
        raw.pop("env", None)
        for part in parse_recipe(write(tmp_path, raw), [], on_this_machine=False):
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                if isinstance(field.default, bool):
                    assert isinstance(value, (bool, str)) or value is None, field.name
                elif isinstance(field.default, (int, float)):
                    assert isinstance(value, (int, float, str)), field.name
                    assert value == value, field.name  # no NaN


@fuzz
@given(
    changed(SWEEP, "grid", "landmarks", "curve", "slurm", "keep_models", "seeds")
    | within(SWEEP, "evaluation", "eval_steps", "suites", "mid_problems", "mid_samples", "question_seed")
    | within(SWEEP, "settings", *RUN)
    | within(SWEEP, "grid", "calibration_strength", "learning_rate", "n_problems", "calibration_kwargs.kappa", "model")
)
def test_sweeps(tmp_path, raw):
    check(tmp_path, raw)


ARM = ("profiles", "kind", "data", "data_samples", "coverage_of", "steps", "eval_steps", "subset_seed", "eval_samples")


@fuzz
@given(
    changed(STUDY, "steps", "seeds", "eval_steps")
    | changed(STUDY["profiles"]["quick"], "workers", "model", "best").map(
        lambda quick: {**STUDY, "profiles": {**STUDY["profiles"], "quick": quick}}
    )
    | changed(STUDY["arms"]["projection"], *ARM).map(
        lambda arm: {**STUDY, "arms": {**STUDY["arms"], "projection": arm}}
    )
)
def test_reproductions(tmp_path, raw):
    check(tmp_path, raw)


@fuzz
@given(changed(PRETRAIN) | within(PRETRAIN, "habits") | within(PRETRAIN, "mixture"))
def test_pretraining(tmp_path, raw):
    check(tmp_path, raw)


@fuzz
@given(changed(LAUNCH) | within(LAUNCH, "deepspeed_config"))
def test_launch_files(tmp_path, raw):
    check(tmp_path, raw)


PIECES = ["a", "b: ", "- ", "\n", " ", "&x ", "*x", "{", "}", "[", "]", ",", ": ", "? ", "!!set ", "!!binary ", "<<: ", "|", "'", '"',
          "2024-01-01", "0o7", "1:60", "9" * 5000, ".nan", "on", "model: ", "base: ", "profiles: ", "n_updates: ", "%"]  # fmt: skip


@fuzz
@given(text | anything | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_whatever_is_called_a_recipe(tmp_path, raw):
    check(tmp_path, raw)


@fuzz
@given(st.binary(max_size=60))
def test_any_bytes(tmp_path, data):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    allowed(validate_file, path)
