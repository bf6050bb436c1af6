"""Steps of a whole model: what is measured on a CPU at tiny size, and the search for the longest completion."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from calibrated_sd.benchmarks import model_steps
from calibrated_sd.benchmarks.model_steps import longest_that_fits, model_step_section
from calibrated_sd.benchmarks.profiles import GPU_SECTIONS, LARGE_MODEL, SECTIONS, check_sections, load_profile
from calibrated_sd.errors import ConfigError

TINY = load_profile("quick").model_steps


def test_every_variant_and_length():
    said = []
    section = model_step_section(TINY, "cpu", said.append)
    # tied embedding, two blocks of q k v o, three feed-forward matrices, two norms, two norms of heads; last norm
    block = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32 + 2 * 16 + 2 * 8
    assert section["n_parameters"] == 512 * 16 + 2 * block + 16
    assert [v["name"] for v in section["variants"]] == ["trl", "chunked", "projection", "projection_chunked"]
    losses = {}
    for variant in section["variants"]:
        assert [row["completion_tokens"] for row in variant["lengths"]] == [16, 32]
        for row in variant["lengths"]:
            assert row["seconds"]["n"] == TINY.repeats == 1
            assert row["seconds"]["value"] > 0
            losses[variant["name"], row["completion_tokens"]] = row["measurements"][0]["loss"]
        assert "GPU" in variant["longest"]["not_measured"]
    for tokens in (16, 32):
        # chunks change nothing but memory, and a projection changes the target
        assert losses["chunked", tokens] == pytest.approx(losses["trl", tokens], rel=1e-4)
        assert losses["projection_chunked", tokens] == pytest.approx(losses["projection", tokens], rel=1e-4)
    assert len(said) == 8


@pytest.fixture
def one_variant(monkeypatch):
    every = model_steps.variants
    monkeypatch.setattr(model_steps, "variants", lambda chunk_size: every(chunk_size)[:1])


def test_a_length_that_does_not_fit_is_recorded(monkeypatch, one_variant):
    def too_long(trainer, plan, tokens):
        return None if tokens > 16 else {"seconds": 1.0, "peak_bytes": 2 * 2**30, "loss": 0.1}

    monkeypatch.setattr(model_steps, "_step", too_long)
    variant = model_step_section(replace(TINY, repeats=2), "cpu", lambda line: None)["variants"][0]
    short, long = variant["lengths"]
    assert short["seconds"]["n"] == 2
    assert short["peak_bytes"]["value"] == 2 * 2**30
    assert long == {"completion_tokens": 32, "measurements": [], "not_measured": "out of memory"}


def test_running_out_of_memory_ends_a_step_quietly(monkeypatch, one_variant):
    from calibrated_sd.trainers.sdpo import CalibratedSDPOTrainer

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CalibratedSDPOTrainer, "compute_loss", fail)
    section = model_step_section(TINY, "cpu", lambda line: None)
    assert {row["not_measured"] for v in section["variants"] for row in v["lengths"]} == {"out of memory"}


@pytest.mark.parametrize(
    ("most", "limit", "expected"),
    [
        (5000, 65_536, 4608),
        (511, 65_536, 0),
        (512, 65_536, 512),
        (10**9, 4096, 4096),
        (10**9, 5000, 4608),
        (4700, 5000, 4608),
    ],
)
def test_the_longest_that_fits(most, limit, expected):
    asked = []

    def fits(tokens):
        asked.append(tokens)
        return tokens <= most

    assert longest_that_fits(fits, 512, limit, 512) == expected
    assert all(tokens % 512 == 0 for tokens in asked)
    assert len(asked) == len(set(asked)) <= 16  # a step takes seconds


def test_the_gpu_profile():
    profile = load_profile("gpu")
    assert {group.size["vocab"] for group in profile.losses} == {151_936}
    assert profile.model_steps is LARGE_MODEL
    from calibrated_sd.planning import read_shape

    assert read_shape({**LARGE_MODEL.config, "model_type": "qwen3"}, "x", "a test").n_parameters == 596_049_920
    assert "model_step" not in SECTIONS  # not on a CPU unless it is asked for
    check_sections(GPU_SECTIONS)
    with pytest.raises(ConfigError, match="model_step"):
        check_sections(["model_steps"])
