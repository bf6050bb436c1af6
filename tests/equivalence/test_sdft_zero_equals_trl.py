"""SDFT at strength 0 is TRL's, bit for bit; above 0 every method that needs no rewards acts, chunked or not."""

import math

import pytest
from fixed_batches import DISTILLING, SHAPING
from sdft_runs import make_sdft

from calibrated_sd.calibrators import CALIBRATORS
from calibrator_kit import settings_of

MODES = {
    "sampled_token": {"distillation_mode": "sampled_token", "distillation_alpha": 1.0},
    "topk_logits, tail": {"distillation_mode": "topk_logits", "distillation_topk": 5, "distillation_add_tail": True},
    "full_logits": {},
}


@pytest.fixture
def run(model_path, tmp_path, finish):
    return lambda **settings: finish(make_sdft(model_path, tmp_path, **settings))


def assert_equal(ours, trl):
    assert len(trl.losses) >= 2
    assert trl.losses[0] != 0
    assert ours.differs_from(trl) == []


@pytest.mark.parametrize("mode", MODES)
def test_modes(run, mode):
    assert_equal(run(**MODES[mode]), run(upstream=True, **MODES[mode]))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"teacher_model_kind": "live"}, id="live teacher"),
        pytest.param({"teacher_model_kind": "ema", "teacher_update_rate": 0.5}, id="ema teacher"),
        pytest.param({"num_loss_tokens_to_skip": 2, "temperature": 0.7}, id="skipped tokens, temperature"),
        pytest.param({"generate_from_teacher": True}, id="teacher's own rollouts"),
        pytest.param(
            {
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 1,
                "steps_per_generation": 2,
                "distillation_is_clip": 1.1,
            },
            id="clipped ratio",
        ),
    ],
)
def test_other_settings(run, settings):
    assert_equal(run(**settings), run(upstream=True, **settings))


@pytest.fixture(scope="module")
def kept():
    return {}


def trl_default(run, kept):
    if not kept:
        kept["run"] = run(upstream=True, max_steps=2)
    return kept["run"]


@pytest.mark.parametrize("method", CALIBRATORS)
def test_every_calibrator_at_strength_zero(run, kept, method):
    ours = run(calibration_method=method, calibration_strength=0.0, calibration_metrics="full", max_steps=2)
    assert ours.trainer.reference is not None  # measured, and still equal
    assert_equal(ours, trl_default(run, kept))


NEEDS_REWARDS = {"pass_rate"}


@pytest.mark.parametrize("method", sorted(set(DISTILLING) - NEEDS_REWARDS))
def test_every_calibrator_above_zero(run, kept, method):
    """Both steps chunked and whole: the same losses up to rounding, and other ones than TRL's."""
    whole, chunked = (run(max_steps=2, chunk_size=size, **settings_of(method)) for size in (None, 3))
    assert whole.losses[1] != pytest.approx(trl_default(run, kept).losses[1], rel=1e-4)
    assert chunked.losses == pytest.approx(whole.losses, rel=2e-5)
    assert all(math.isfinite(value) for value in whole.losses + whole.grad_norms)


@pytest.mark.parametrize("method", [*SHAPING, *NEEDS_REWARDS])
def test_methods_that_need_rewards_are_refused(run, method):
    settings = {key: value for key, value in settings_of(method).items() if key != "distillation_weight"}
    with pytest.raises(ValueError, match=f"calibration_method='{method}'"):
        run(**settings)


def test_skipped_tokens_do_not_count_with_a_calibrator_either(model_path, tmp_path):
    """Two tokens less at the beginning of each row, in the figures as well."""
    counts = []
    for skipped in (0, 2):
        trainer = make_sdft(
            model_path, tmp_path, calibration_strength=1.0, num_loss_tokens_to_skip=skipped, max_steps=1
        )
        seen = []
        add = trainer.add_sums

        def noting(mode, sums, seen=seen, add=add):
            seen.append(float(sums.get("n_tokens", 0)))
            add(mode, sums)

        trainer.add_sums = noting
        trainer.train()
        counts.append(sum(seen))
    assert counts[0] - counts[1] == 2 * 4
