"""E2 by hand: one marker among three tokens, and the two ends of the marker mass."""

import math

import pytest
import torch

from calibrated_sd.calibrators import Projection
from calibrated_sd.objectives import forward_kl, log_marker_mass

TEACHER, REFERENCE = [0.1, 0.6, 0.3], [0.4, 0.1, 0.5]


def project(views, strength):
    return Projection().edit_teacher(views, strength).exp().flatten().tolist()


def test_kappa_one_by_hand(make_views):
    # c = 0.4; the rest shares 0.6 as 2:1
    assert project(make_views(TEACHER, TEACHER, REFERENCE), 1.0) == pytest.approx([0.4, 0.4, 0.2])


def test_kappa_half_by_hand(make_views):
    # c = 0.2; the rest shares 0.8 as 2:1
    assert project(make_views(TEACHER, TEACHER, REFERENCE), 0.5) == pytest.approx([0.2, 1.6 / 3, 0.8 / 3])


def test_two_markers_keep_their_proportion(make_views):
    # markers 1:3 with mass 0.2 go to mass 0.6; the rest keeps 1:1
    views = make_views([0.25] * 4, [0.05, 0.15, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2], markers=2)
    assert project(views, 1.0) == pytest.approx([0.15, 0.45, 0.2, 0.2])


def test_the_shift_is_the_difference_of_logits(make_views):
    # b = logit(0.4) − logit(0.1) = ln(2/3) + ln 9 = ln 6
    on_markers, elsewhere = Projection().shifts(make_views(TEACHER, TEACHER, REFERENCE), 1.0)
    assert (on_markers - elsewhere).item() == pytest.approx(math.log(6.0))


def test_a_teacher_with_enough_doubt_is_returned_exactly(make_views):
    views = make_views(TEACHER, [0.5, 0.3, 0.2], REFERENCE)
    assert torch.equal(Projection().edit_teacher(views, 1.0), views.teacher)


def test_cost_of_the_edit(make_views):
    # KL(q‖p_T) = KLb(0.4‖0.1) = 0.4·ln 4 + 0.6·ln(2/3)
    views = make_views(TEACHER, TEACHER, REFERENCE)
    cost = forward_kl(student=views.teacher, teacher=Projection().edit_teacher(views, 1.0))
    assert cost.item() == pytest.approx(0.4 * math.log(4) + 0.6 * math.log(2 / 3))


def test_kappa_above_one_asks_for_more_than_the_reference_but_never_for_certainty(make_views):
    assert project(make_views(TEACHER, TEACHER, REFERENCE), 2.0)[0] == pytest.approx(0.8)
    views = make_views(TEACHER, TEACHER, [0.9, 0.05, 0.05], dtype=torch.float32)
    edited = Projection().edit_teacher(views, 2.0)
    assert torch.isfinite(edited).all()
    assert edited.exp().sum().item() == pytest.approx(1.0)


def test_a_dead_marker_is_lifted_over_hundreds_of_nats(make_views):
    views = make_views(TEACHER, [math.exp(-300), 0.5, 0.5], REFERENCE)
    assert project(views, 1.0) == pytest.approx([0.4, 0.3, 0.3])


def test_a_teacher_that_rules_markers_out_is_left_alone(make_views):
    views = make_views(TEACHER, [0.0, 0.5, 0.5], REFERENCE)
    assert torch.equal(Projection().edit_teacher(views, 1.0), views.teacher)


def test_normalised_in_float32_over_a_large_vocabulary():
    from calibrated_sd.calibrators import Views

    generator = torch.Generator().manual_seed(3)
    logits = [4 * torch.randn(1, 4, 50_000, generator=generator) for _ in range(2)]
    markers = torch.randperm(50_000, generator=generator)[:40].sort().values
    logits[1][..., markers] += 6
    # Normalised in float64: torch's own float32 log-softmax over so many words is off by 1e-5 on some CPUs.
    logps = [one.double().log_softmax(-1).float() for one in logits]
    edited = Projection().edit_teacher(Views(logps[0], logps[0], logps[1], markers), 1.0)
    assert edited.double().logsumexp(-1).abs().max().item() < 1e-5
    torch.testing.assert_close(log_marker_mass(edited, markers), log_marker_mass(logps[1], markers), atol=1e-5, rtol=0)
