"""E5, fixed weights: values by hand, the gradient identities, weights and missing levels."""

import pytest
import torch

from calibrated_sd.calibrators import Mixture, mix_levels
from calibrated_sd.errors import ConfigError
from calibrated_sd.objectives import forward_kl, log_marker_mass, reverse_kl


def test_arithmetic_by_hand(make_views):
    views = make_views([0.5, 0.5], [0.1, 0.9], [0.4, 0.6])
    mixed = Mixture().edit_teacher(views, 0.3)
    assert mixed.exp().flatten().tolist() == pytest.approx([0.7 * 0.1 + 0.3 * 0.4, 0.7 * 0.9 + 0.3 * 0.6])


def test_geometric_by_hand(make_views):
    # √(0.1·0.9) on both sides, normalised
    views = make_views([0.5, 0.5], [0.1, 0.9], [0.9, 0.1])
    assert Mixture(form="geo").edit_teacher(views, 0.5).exp().flatten().tolist() == pytest.approx([0.5, 0.5])
    # 0.2^¾·0.8^¼ against 0.8^¾·0.2^¼ is 1 : 2
    views = make_views([0.5, 0.5], [0.2, 0.8], [0.8, 0.2])
    assert Mixture(form="geo").edit_teacher(views, 0.25).exp().flatten().tolist() == pytest.approx([1 / 3, 2 / 3])


def test_full_strength_is_the_reference(random_views):
    views = random_views()
    for form in ("arith", "geo"):
        assert Mixture(form=form).edit_teacher(views, 1.0) is views.reference


def test_marker_mass_is_linear_and_has_a_floor(random_views):
    views = random_views(seed=1, b=4)
    m_t, m_r, m = (
        log_marker_mass(x, views.marker_ids).exp()
        for x in (views.teacher, views.reference, Mixture().edit_teacher(views, 0.3))
    )
    torch.testing.assert_close(m, 0.7 * m_t + 0.3 * m_r)
    assert (m >= 0.3 * m_r).all()


def test_a_veto_survives_the_geometric_mean_only(make_views):
    views = make_views([0.5, 0.5], [1e-8, 1 - 1e-8], [0.5, 0.5])
    arith = Mixture(form="arith").edit_teacher(views, 0.3).exp()[0, 0, 0].item()
    geo = Mixture(form="geo").edit_teacher(views, 0.3).exp()[0, 0, 0].item()
    assert arith == pytest.approx(0.15, rel=1e-6)
    assert geo < 1e-5


def student_gradient(function, logits):
    leaf = logits.detach().clone().requires_grad_()
    function(leaf.log_softmax(-1)).sum().backward()
    return leaf.grad


@pytest.mark.parametrize(("form", "kl"), [("arith", forward_kl), ("geo", reverse_kl)])
def test_gradient_of_the_mixture_is_the_average_gradient(form, kl, random_views):
    views, other = random_views(seed=2), random_views(seed=3)
    levels, weights = [views.teacher, views.reference, other.teacher], [0.5, 0.3, 0.2]
    target = mix_levels(levels, weights, form)
    mixed = student_gradient(lambda s: kl(s, target), views.student)
    average = student_gradient(
        lambda s: sum(w * kl(s, level) for w, level in zip(weights, levels, strict=True)), views.student
    )
    torch.testing.assert_close(mixed, average, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("form", "kl"), [("arith", reverse_kl), ("geo", forward_kl)])
def test_the_identities_do_not_hold_the_other_way_round(form, kl, random_views):
    views = random_views(seed=2)
    levels = [views.teacher, views.reference]
    target = mix_levels(levels, [0.5, 0.5], form)
    mixed = student_gradient(lambda s: kl(s, target), views.student)
    average = student_gradient(lambda s: sum(0.5 * kl(s, level) for level in levels), views.student)
    assert (mixed - average).abs().max() > 1e-2


@pytest.mark.parametrize("form", ["arith", "geo"])
def test_one_hot_weights_are_that_level(form, random_views):
    views = random_views()
    levels = [views.teacher, views.reference]
    assert mix_levels(levels, [0.0, 1.0], form) is views.reference
    assert mix_levels(levels, [1.0, 0.0], form) is views.teacher


@pytest.mark.parametrize("form", ["arith", "geo"])
def test_missing_levels_share_out_their_weight(form, random_views):
    views, other = random_views(seed=2), random_views(seed=3)
    levels, weights = [views.teacher, views.reference, other.teacher], [0.5, 0.25, 0.25]
    available = torch.tensor([[True, False, True], [False, True, False]])
    mixed = mix_levels(levels, weights, form, available)
    row = mix_levels([levels[0][:1], levels[2][:1]], [2 / 3, 1 / 3], form)
    torch.testing.assert_close(mixed[:1], row)
    torch.testing.assert_close(mixed[1:], levels[1][1:])
    everything = mix_levels(levels, weights, form, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(everything, mix_levels(levels, weights, form))


@pytest.mark.parametrize("form", ["arith", "geo"])
def test_a_row_without_any_level_is_finite(form, random_views):
    views = random_views()
    mixed = mix_levels([views.teacher, views.reference], [0.5, 0.5], form, torch.zeros(2, 2, dtype=torch.bool))
    assert torch.isfinite(mixed).all()


def test_a_missing_level_may_hold_anything(random_views):
    views = random_views()
    empty = torch.full_like(views.teacher, float("-inf"))
    available = torch.tensor([[True, False]] * 2)
    for form in ("arith", "geo"):
        mixed = mix_levels([views.teacher, empty], [0.5, 0.5], form, available)
        torch.testing.assert_close(mixed, views.teacher)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.4], r"sum to 1.*sum 0\.9"),
        ([0.5, 0.6], r"sum to 1.*sum 1\.1"),
        ([1.5, -0.5], "at least 0"),
        ([float("nan"), 1.0], "finite"),
        ([1.0], "1 weights for 2 levels"),
        ([0.2, 0.3, 0.5], "3 weights for 2 levels"),
    ],
)
def test_weights_are_checked(weights, message, random_views):
    views = random_views()
    with pytest.raises(ConfigError, match=message):
        mix_levels([views.teacher, views.reference], weights)


def test_unknown_form_and_no_level(random_views):
    with pytest.raises(ConfigError, match="Did you mean 'arith'"):
        mix_levels([random_views().teacher], [1.0], "arithm")
    with pytest.raises(ConfigError, match="0 weights for 0 levels"):
        mix_levels([], [])
