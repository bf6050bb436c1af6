"""Marker mass by hand, and at its ends."""

from __future__ import annotations

import math

import pytest
import torch

from calibrated_sd.markers import (
    log_marker_mass,
    log_marker_mass_from_logits,
    marker_mass,
    retention,
    suppression,
)

IDS = torch.tensor([1, 3])
INF = math.inf


def logps(*rows):
    """Log-probabilities (1, T, V) from rows of probabilities."""
    return torch.tensor([rows], dtype=torch.float32).log()


def test_mass_is_the_sum_of_the_markers_probabilities():
    # 0.2 + 0.1 and 0.05 + 0.05
    x = logps([0.3, 0.2, 0.4, 0.1], [0.6, 0.05, 0.3, 0.05])
    torch.testing.assert_close(marker_mass(x, IDS), torch.tensor([[0.3, 0.1]]))
    torch.testing.assert_close(log_marker_mass(x, IDS), torch.tensor([[0.3, 0.1]]).log())


def test_mass_from_logits():
    # scores 0, ln 2, ln 3, ln 4 are probabilities .1 .2 .3 .4: the markers at 1 and 3 have .6
    logits = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]).log() + 7.0
    torch.testing.assert_close(log_marker_mass_from_logits(logits, IDS), torch.tensor([[0.6]]).log())


def test_mass_is_float32_also_from_bfloat16():
    x = logps([0.25, 0.25, 0.25, 0.25]).bfloat16()
    mass = log_marker_mass(x, IDS)
    assert mass.dtype == torch.float32
    assert mass.item() == pytest.approx(math.log(0.5), abs=0.01)
    assert log_marker_mass_from_logits(x, IDS).item() == pytest.approx(math.log(0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("row", "mass"), [([0.5, 0.0, 0.5, 0.0], 0.0), ([0.0, 0.5, 0.0, 0.5], 1.0), ([0.0, 1.0, 0.0, 0.0], 1.0)]
)
def test_mass_and_gradient_are_not_nan_at_the_ends(row, mass):
    x = logps(row).requires_grad_()
    log_mass = log_marker_mass(x, IDS)
    assert log_mass.exp().item() == mass
    assert log_mass.item() <= 0
    log_mass.sum().backward()
    assert not x.grad.isnan().any()
    assert x.grad[0, 0, 0] == 0  # no marker


def test_gradient_is_the_conditional_probability():
    # d log m / d log p(v) = p(v) / m: 0.2 / 0.3 and 0.1 / 0.3
    x = logps([0.3, 0.2, 0.4, 0.1]).requires_grad_()
    log_marker_mass(x, IDS).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[[0.0, 2 / 3, 0.0, 1 / 3]]]))


def test_from_logits_not_nan_where_markers_are_masked_out():
    logits = torch.tensor([[[1.0, -INF, 2.0, -INF]]], requires_grad=True)
    log_mass = log_marker_mass_from_logits(logits, IDS)
    assert log_mass.item() == -INF
    log_mass.exp().sum().backward()
    assert not logits.grad.isnan().any()


def test_retention_is_a_ratio_of_sums():
    m_S = torch.tensor([[0.1, 0.3, math.nan]])
    m_R = torch.tensor([[0.4, 0.4, math.nan]])
    mask = torch.tensor([[1, 1, 0]])
    assert retention(m_S, m_R, mask).item() == pytest.approx(0.5)  # 0.4 / 0.8; the nan is padding
    # a mean of ratios would be (0.25 + 0.75) / 2, the same here; not so with a tiny reference:
    assert retention(torch.tensor([[1e-3, 0.5]]), torch.tensor([[1e-6, 0.5]]), torch.ones(1, 2)).item() == (
        pytest.approx(0.501 / 0.500001)
    )


def test_retention_of_nothing():
    zero, some, mask = torch.zeros(1, 2), torch.full((1, 2), 0.1), torch.ones(1, 2)
    assert retention(zero, zero, mask).item() == 1.0
    assert retention(some, zero, mask).item() == INF
    assert retention(zero, some, mask).item() == 0.0
    assert retention(some, some, torch.zeros(1, 2)).item() == 1.0


def test_suppression_is_a_log_ratio():
    log_m_T = torch.tensor([[0.01, 0.2, 0.0, 0.0]]).log()
    log_m_R = torch.tensor([[0.1, 0.1, 0.0, 0.1]]).log()
    expected = torch.tensor([[math.log(0.1), math.log(2.0), 0.0, -INF]])
    torch.testing.assert_close(suppression(log_m_T, log_m_R), expected)
