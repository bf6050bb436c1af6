"""The split of KL into marker mass and the two conditionals, against numbers from paper and naive conditionals."""

import math

import pytest
import torch

from calibrated_sd.objectives import binary_kl, kl_decomposition, log_complement, log_marker_mass

MARKERS = torch.tensor([0, 1])


def logs(*probabilities: float, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=dtype).log().reshape(1, 1, -1)


def test_mass_by_hand():
    assert log_marker_mass(logs(0.1, 0.2, 0.7), MARKERS).exp().item() == pytest.approx(0.3)


def test_mass_of_impossible_markers_is_zero_with_zero_gradient():
    logps = logs(0.0, 0.0, 1.0).requires_grad_()
    mass = log_marker_mass(logps, MARKERS)
    assert mass.exp().item() == 0.0
    mass.sum().backward()
    assert torch.equal(logps.grad, torch.zeros_like(logps))


def test_mass_never_exceeds_one():
    logps = torch.full((1, 1, 1000), -math.log(1000.0)) + 1e-6
    assert log_marker_mass(logps, torch.arange(1000)).item() <= 0.0


def test_mass_in_half_precision_is_summed_in_float32():
    # 1,024 tokens of 2⁻¹¹ each: a bfloat16 running sum would stop growing at 2⁻³.
    logps = torch.full((1, 1, 2048), -11 * math.log(2.0)).bfloat16()
    expected = 1024 * math.exp(float(logps[0, 0, 0]))
    assert log_marker_mass(logps, torch.arange(1024)).exp().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mass", [1e-300, 1e-30, 1e-9, 0.3, 0.5, 0.9, 1 - 1e-9])
def test_complement(mass):
    log_mass = torch.tensor([math.log(mass)], dtype=torch.float64)
    assert log_complement(log_mass).item() == pytest.approx(math.log1p(-mass), rel=1e-6)


@pytest.mark.parametrize("log_mass", [0.0, -1e4, -0.6931471805599453])
def test_complement_has_finite_value_and_gradient_at_the_ends(log_mass):
    x = torch.tensor([log_mass], requires_grad=True)
    y = log_complement(x)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(x.grad).all()


def test_binary_kl_by_hand():
    # ½·ln(½/¼) + ½·ln(½/¾) = ½·ln(4/3)
    half, quarter = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    assert binary_kl(half, quarter).item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-15)
    assert binary_kl(half, half).item() == 0.0


def test_only_the_coarse_part_when_conditionals_agree():
    # P: mass ½ split 1:3, rest split 1:1. Q: mass ¼ split 1:3, rest split 1:1.
    p, q = logs(0.125, 0.375, 0.25, 0.25), logs(0.0625, 0.1875, 0.375, 0.375)
    parts = kl_decomposition(p, q, MARKERS)
    assert parts.coarse.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-15)
    assert parts.inside.item() == pytest.approx(0.0, abs=1e-15)
    assert parts.outside.item() == pytest.approx(0.0, abs=1e-15)
    assert parts.marker_share.item() == pytest.approx(1.0)


def test_inside_and_outside_by_hand():
    # Same mass ½ on markers. Inside: (½,½) against (¼,¾); outside: (¼,¾) against (½,½).
    p, q = logs(0.25, 0.25, 0.125, 0.375), logs(0.125, 0.375, 0.25, 0.25)
    parts = kl_decomposition(p, q, MARKERS)
    assert parts.coarse.item() == pytest.approx(0.0, abs=1e-15)
    assert parts.inside.item() == pytest.approx(0.5 * 0.5 * math.log(4 / 3), abs=1e-15)
    assert parts.outside.item() == pytest.approx(0.5 * (-0.25 * math.log(2) + 0.75 * math.log(1.5)), abs=1e-15)


def test_share_of_nothing_is_zero():
    p = logs(0.25, 0.25, 0.5)
    assert kl_decomposition(p, p, MARKERS).marker_share.item() == 0.0


def test_parts_survive_a_missing_half():
    """All or none of the probability on markers: no NaN, and the parts still sum to the total."""
    for p in (logs(0.0, 0.0, 0.5, 0.5, dtype=torch.float32), logs(0.5, 0.5, 0.0, 0.0, dtype=torch.float32)):
        parts = kl_decomposition(p, logs(0.1, 0.2, 0.3, 0.4, dtype=torch.float32), MARKERS)
        assert torch.isfinite(torch.stack([parts.total, parts.coarse, parts.inside, parts.outside])).all()
        # All mass on one side: the total is ½·ln(½/q₁) + ½·ln(½/q₂) on the side that is left.
        a, b = (0.3, 0.4) if p[0, 0, 0] == -math.inf else (0.1, 0.2)
        assert parts.total.item() == pytest.approx(0.5 * math.log(0.25 / (a * b)), rel=1e-5)
        assert parts.coarse.item() == pytest.approx(-math.log(a + b), rel=1e-4)
