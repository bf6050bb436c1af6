"""The warning about models that hardly doubt: when it comes, when it does not, and that it comes once."""

from __future__ import annotations

import warnings

import pytest
import torch

from calibrated_sd.trainers.monitoring import low_density
from calibrated_sd.trainers.monitoring.low_density import BaseDensity, low_density_message


def observe(density: BaseDensity, *batches: tuple[int, int], step: int = 0, mode: str = "train") -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for markers, tokens in batches:
            density.observe({"markers": markers, "completion_tokens": torch.tensor(tokens)}, step, mode)
    return [str(one.message) for one in caught]


def test_warns_once_when_enough_tokens_hold_too_few_markers():
    density = BaseDensity("lexical")
    assert observe(density, (1, 1000), (1, 999)) == []  # 1999 tokens decide nothing
    (message,) = observe(density, (1, 401), (0, 5000))  # 3 in 2400: 1.25 per 1k
    assert "1.2 times per 1000 tokens" in message
    assert "3 markers in the first 2400" in message


def test_two_per_1k_are_enough():
    assert observe(BaseDensity("lexical"), (4, 2000), (0, 9000)) == []  # judged once, on the first 2000 tokens
    assert low_density_message(2.0) is None
    assert low_density_message(1.99)


@pytest.mark.parametrize(
    ("warns", "step", "mode"), [(True, low_density.LAST_STEP, "train"), (False, 0, "train"), (True, 0, "eval")]
)
def test_stays_silent(warns, step, mode):
    assert observe(BaseDensity("lexical", warns=warns), (0, 5000), step=step, mode=mode) == []


def test_a_trained_model_is_never_judged():
    density = BaseDensity("lexical")
    assert observe(density, (0, 1500), step=0) == []
    assert observe(density, (0, 1500), step=low_density.LAST_STEP) == []
    assert observe(density, (0, 1500), step=0) == []


@pytest.mark.parametrize("needed", [40, 10_000])
def test_trainers_warn_once(make_trainer, monkeypatch, needed):
    """Four steps of 8 rollouts of at most 12 tokens by a model that hardly finds markers: judged, or too few to judge."""
    monkeypatch.setattr(low_density, "MIN_TOKENS", needed)
    monkeypatch.setattr(low_density, "LOW_DENSITY", 1000.0)
    trainer = make_trainer(max_steps=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    said = [str(one.message) for one in caught if "nothing to preserve" in str(one.message)]
    assert len(said) == (needed == 40)
