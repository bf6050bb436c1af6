"""E5, weight by need: values by hand and the guarantee on marker mass."""

import pytest
import torch

from calibrated_sd.calibrators import MixToFloor
from calibrated_sd.objectives import log_marker_mass


def test_weight_by_hand(make_views):
    # (0.6·0.5 − 0.1)/(0.5 − 0.1) = ½, so the target is the plain average
    views = make_views([0.5, 0.5], [0.1, 0.9], [0.5, 0.5])
    assert MixToFloor().mixing_weight(views, 0.6).item() == pytest.approx(0.5)
    assert MixToFloor().edit_teacher(views, 0.6).exp().flatten().tolist() == pytest.approx([0.3, 0.7])


def test_kappa_one_switches_to_the_reference(make_views):
    views = make_views([0.5, 0.5], [0.1, 0.9], [0.5, 0.5])
    assert torch.equal(MixToFloor().edit_teacher(views, 1.0), views.reference)


def test_enough_doubt_keeps_the_teacher_exactly(make_views):
    for teacher in ([0.5, 0.5], [0.7, 0.3], [0.31, 0.69]):
        views = make_views([0.5, 0.5], teacher, [0.5, 0.5])
        assert torch.equal(MixToFloor().edit_teacher(views, 0.6), views.teacher)


def test_min_mass_leaves_irrelevant_positions_alone(make_views):
    views = make_views([0.5, 0.5], [1e-6, 1 - 1e-6], [5e-4, 1 - 5e-4])
    assert MixToFloor().mixing_weight(views, 1.0).item() == 1.0
    assert MixToFloor(min_mass=1e-3).mixing_weight(views, 1.0).item() == 0.0


@pytest.mark.parametrize("strength", [0.2, 0.7, 1.0])
def test_mass_is_exactly_what_was_asked_for(strength, random_views):
    views = random_views(seed=4, b=6)
    m_t, m_r, m = (
        log_marker_mass(x, views.marker_ids).exp()
        for x in (views.teacher, views.reference, MixToFloor().edit_teacher(views, strength))
    )
    torch.testing.assert_close(m, torch.maximum(m_t, strength * m_r), atol=1e-12, rtol=1e-9)


def test_it_moves_the_rest_of_the_distribution_too(make_views):
    # The projection would keep 2:1 among the others; mixing moves them toward the reference's 1:3.
    views = make_views([0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.6, 0.1, 0.3])
    target = MixToFloor().edit_teacher(views, 0.5).exp().flatten()
    weight = (0.3 - 0.1) / 0.5
    assert target.tolist() == pytest.approx([0.3, 0.6 * (1 - weight) + 0.1 * weight, 0.3])
