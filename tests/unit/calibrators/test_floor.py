"""E1: values by hand, the gradient formula, and where a student settles."""

import math

import pytest
import torch

from calibrated_sd.calibrators import Floor, Projection, Views
from calibrated_sd.objectives import forward_kl, log_marker_mass


def test_value_by_hand(make_views):
    # KLb(½‖¼) = ½·ln 2 + ½·ln(2/3) = ½·ln(4/3)
    views = make_views([0.25, 0.75], [0.5, 0.5], [0.5, 0.5])
    assert Floor().penalty(views, 1.0).item() == pytest.approx(0.5 * math.log(4 / 3))


def test_kappa_by_hand(make_views):
    # κ = ½: KLb(½‖¼) again, now with m_R = 1 (up to the largest representable mass below 1)
    views = make_views([0.25, 0.75], [0.5, 0.5], [1.0, 0.0])
    assert Floor(kappa=0.5).penalty(views, 1.0).item() == pytest.approx(0.5 * math.log(4 / 3))


def test_the_term_is_not_scaled_by_the_strength(make_views):
    views = make_views([0.25, 0.75], [0.5, 0.5], [0.5, 0.5])
    assert Floor().penalty(views, 1.0).item() == Floor().penalty(views, 30.0).item()


def test_enough_doubt_costs_nothing(make_views):
    for student in ([0.5, 0.5], [0.9, 0.1]):
        views = make_views(student, [0.5, 0.5], [0.5, 0.5])
        value = Floor().penalty(views, 1.0)
        (gradient,) = torch.autograd.grad(value.sum(), views.student)
        assert value.item() == 0.0
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_student_equal_to_reference_costs_nothing(random_views):
    views = random_views()
    same = Views(views.reference.clone().requires_grad_(), views.teacher, views.reference, views.marker_ids)
    value = Floor().penalty(same, 1.0)
    (gradient,) = torch.autograd.grad(value.sum(), same.student)
    assert torch.equal(value, torch.zeros_like(value))
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_hinge_by_hand(make_views):
    # ln ½ − ln 1/16 − ln 2 = ln 4
    views = make_views([0.0625, 0.9375], [0.5, 0.5], [0.5, 0.5])
    assert Floor(form="loghinge").penalty(views, 1.0).item() == pytest.approx(math.log(4.0) ** 2)
    # within the slack of ln 2
    views = make_views([0.3, 0.7], [0.5, 0.5], [0.5, 0.5])
    assert Floor(form="loghinge").penalty(views, 1.0).item() == 0.0


def test_hinge_is_silent_where_the_reference_hardly_doubts(make_views):
    views = make_views([1e-9, 1.0], [0.5, 0.5], [5e-4, 0.9995])
    assert Floor(form="loghinge").penalty(views, 1.0).item() == 0.0
    assert Floor(form="loghinge", min_mass=1e-4).penalty(views, 1.0).item() > 0.0


@pytest.mark.parametrize("kappa", [0.4, 1.0])
def test_gradient_formula(kappa, random_views):
    """∂/∂logit_v = (m−a)·p(v)/m on markers and −(m−a)·p(v)/(1−m) elsewhere, where m < a = κ·m_R."""
    views = random_views(seed=5, b=4, t=8)
    logits = views.student.detach().requires_grad_()
    student = logits.log_softmax(-1)
    value = Floor(kappa=kappa).penalty(Views(student, views.teacher, views.reference, views.marker_ids), 1.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    p = student.detach().exp()
    m = p[..., views.marker_ids].sum(-1, keepdim=True)
    a = kappa * views.reference.exp()[..., views.marker_ids].sum(-1, keepdim=True)
    is_marker = torch.zeros(12, dtype=torch.bool).index_fill(0, views.marker_ids, True)
    formula = torch.where(is_marker, (m - a) * p / m, -(m - a) * p / (1 - m))
    expected = torch.where(m < a, formula, 0.0)
    assert 0 < (m < a).sum() < m.numel()  # both cases occur
    torch.testing.assert_close(gradient, expected, atol=1e-14, rtol=1e-10)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(4, 8, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("form", ["kl", "loghinge"])
def test_autograd_against_finite_differences(form, random_views):
    views = random_views(seed=6)

    def penalty(logits):
        student = logits.log_softmax(-1)
        return Floor(form=form).penalty(Views(student, views.teacher, views.reference, views.marker_ids), 1.0)

    assert penalty(views.student.detach()).count_nonzero() > 2
    assert torch.autograd.gradcheck(penalty, (views.student.detach().requires_grad_(),))


BANDIT_TEACHER = torch.tensor([[[0.004, 0.006, 0.59, 0.4]]], dtype=torch.float64).log()  # m_T = 0.01
BANDIT_REFERENCE = torch.tensor([[[0.1, 0.2, 0.3, 0.4]]], dtype=torch.float64).log()  # m_R = 0.3
BANDIT_MARKERS = torch.tensor([0, 1])


def bandit_gradient(mass, strength):
    """Gradient of forward KL + λ·floor on the logits of a student with the teacher's proportions and this mass."""
    projected = Projection().edit_teacher(
        Views(BANDIT_TEACHER, BANDIT_TEACHER, BANDIT_REFERENCE, BANDIT_MARKERS), mass / 0.3
    )
    assert log_marker_mass(projected, BANDIT_MARKERS).exp().item() == pytest.approx(mass)
    logits = projected.requires_grad_()
    student = logits.log_softmax(-1)
    floor = Floor().penalty(Views(student, BANDIT_TEACHER, BANDIT_REFERENCE, BANDIT_MARKERS), strength)
    (forward_kl(student, BANDIT_TEACHER) + strength * floor).sum().backward()
    return logits.grad.flatten()


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0, 1e4])
def test_equilibrium_on_a_bandit(strength):
    """Forward KL rests at m* = (m_T + λ·m_R)/(1 + λ) with the teacher's proportions, and is pulled back from both sides.

    As λ grows m* tends to m_R, so the floor's limit is the projection.
    """
    m_star = (0.01 + strength * 0.3) / (1 + strength)
    assert bandit_gradient(m_star, strength).abs().max().item() < 1e-14 * (1 + strength)
    below, above = bandit_gradient(m_star * 0.99, strength), bandit_gradient(m_star + 0.01 * (0.3 - m_star), strength)
    assert (below[:2] < 0).all()  # descending raises the markers
    assert (above[:2] > 0).all()


def test_nothing_of_the_size_of_the_vocabulary_is_kept_for_backward():
    sizes = []
    logps = torch.randn(2, 3, 500).log_softmax(-1).requires_grad_()
    reference = torch.randn(2, 3, 500).log_softmax(-1)
    views = Views(logps, reference, reference, torch.arange(7))

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Floor().penalty(views, 1.0)
    assert sizes
    assert max(sizes) <= 2 * 3 * 7
