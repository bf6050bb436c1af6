"""Live figures: by hand on two positions, then sums that can be added up."""

import dataclasses
import math

import pytest
import torch

from calibrated_sd.calibrators import Views, diagnostics, ratios


def by_hand():
    """Token 0 is the marker. Position 0: m_S, m_T, m_R = ¼, ½, ½. Position 1: ½, ½, ¼·10⁻³ (below the threshold)."""

    def rows(*masses):
        return torch.tensor([[[m, 1 - m] for m in masses]], dtype=torch.float64).log()

    return Views(rows(0.25, 0.5), rows(0.5, 0.5), rows(0.5, 0.00025), torch.tensor([0]))


def test_by_hand():
    got = ratios(diagnostics(by_hand(), torch.ones(1, 2)))
    assert got["retention"] == pytest.approx((0.25 + 0.5) / (0.5 + 0.00025))
    assert got["suppression"] == pytest.approx(0.0)  # ln(½/½) at position 0 only
    assert got["true_kl"] == pytest.approx(0.5 * math.log(4 / 3) / 2)  # position 1 agrees
    assert got["marker_share_of_kl"] == pytest.approx(1.0)  # one other token: all KL is about the mass
    assert got["teacher_entropy"] == pytest.approx(math.log(2))
    coin = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert got["student_entropy"] == pytest.approx((coin + math.log(2)) / 2)


def test_suppression_is_the_mean_log_ratio(make_views):
    views = make_views([0.5, 0.5], [0.02, 0.98], [0.2, 0.8])
    assert ratios(diagnostics(views, torch.ones(1, 1)))["suppression"] == pytest.approx(-math.log(10))


def test_only_counted_positions_even_if_the_rest_is_not_a_number():
    views = by_hand()
    for logps in (views.student, views.teacher, views.reference):
        logps[0, 1] = float("nan")
    got = ratios(diagnostics(views, torch.tensor([[1, 0]])))
    assert got["retention"] == pytest.approx(0.5)
    assert got["true_kl"] == pytest.approx(0.5 * math.log(4 / 3))


def test_nothing_counted_gives_no_figures():
    assert ratios(diagnostics(by_hand(), torch.zeros(1, 2))) == {}


def test_without_reference(random_views):
    got = ratios(diagnostics(dataclasses.replace(random_views(), reference=None), torch.ones(2, 5)))
    assert set(got) == {"marker_share_of_kl", "true_kl", "teacher_entropy", "student_entropy"}


def test_sums_of_parts_are_the_sums_of_the_whole(random_views):
    views = random_views(b=4, t=6)
    mask = torch.tensor([[1] * 6, [1] * 2 + [0] * 4, [0] * 6, [1] * 5 + [0]])
    whole = diagnostics(views, mask)
    parts = [
        diagnostics(
            Views(views.student[rows], views.teacher[rows], views.reference[rows], views.marker_ids), mask[rows]
        )
        for rows in (slice(0, 1), slice(1, 4))
    ]
    for key, value in whole.items():
        assert value.shape == ()
        assert not value.requires_grad
        torch.testing.assert_close(value, parts[0][key] + parts[1][key])


@pytest.mark.parametrize("elements", [1, 30, 100, 10_000])
def test_chunks_change_nothing(elements, random_views):
    views, mask = random_views(b=3, t=7), torch.ones(3, 7)
    expected = diagnostics(views, mask)
    for key, value in diagnostics(views, mask, chunk_elements=elements).items():
        torch.testing.assert_close(value, expected[key])
