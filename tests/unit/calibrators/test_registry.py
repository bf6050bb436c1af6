"""What every method promises: off at 0, checked dials and settings, no NaN at the edges."""

import dataclasses
import math

import pytest
import torch

from calibrated_sd.calibrators import CALIBRATORS, Penalty, Target, build_calibrator
from calibrated_sd.errors import ConfigError

NAMES = sorted(CALIBRATORS)
TARGETS = sorted(name for name, cls in CALIBRATORS.items() if issubclass(cls, Target))


def act(calibrator, views, strength):
    if isinstance(calibrator, Target):
        return calibrator.edit_teacher(views, strength)
    return calibrator.penalty(views, strength)


def test_the_methods():
    assert NAMES == ["anchor", "floor", "mix_to_floor", "mixture", "projection"]
    assert TARGETS == ["anchor", "mix_to_floor", "mixture", "projection"]
    assert all(cls.name == name and cls.kind in ("target", "penalty") for name, cls in CALIBRATORS.items())


@pytest.mark.parametrize("name", NAMES)
def test_the_first_value_to_try_is_allowed_and_not_off(name):
    cls = CALIBRATORS[name]
    assert cls.check_strength(cls.suggested) > 0


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_is_off(name, random_views):
    views = random_views()
    calibrator = build_calibrator(name)
    result = act(calibrator, views, 0.0)
    if isinstance(calibrator, Target):
        assert result is views.teacher
    else:
        assert not result.requires_grad
        assert torch.equal(result, torch.zeros(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_strength_zero_needs_no_reference(name, random_views):
    act(build_calibrator(name), dataclasses.replace(random_views(), reference=None), 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_reference_is_said(name, random_views):
    with pytest.raises(ConfigError, match="no reference was given"):
        act(build_calibrator(name), dataclasses.replace(random_views(), reference=None), 1.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf, "1", None, True])
def test_strength_out_of_range(name, strength, random_views):
    with pytest.raises(ConfigError, match=r"calibration_strength.*got"):
        CALIBRATORS[name].check_strength(strength)


@pytest.mark.parametrize("name", NAMES)
def test_every_call_checks_the_strength(name, random_views):
    with pytest.raises(ConfigError, match="calibration_strength"):
        act(build_calibrator(name), random_views(), -1.0)


@pytest.mark.parametrize(("name", "limit"), [("projection", 2), ("mixture", 1), ("mix_to_floor", 1), ("anchor", 1)])
def test_upper_limit(name, limit, random_views):
    calibrator, views = build_calibrator(name), random_views()
    act(calibrator, views, limit)
    with pytest.raises(ConfigError, match=f"between 0 and {limit}"):
        act(calibrator, views, limit + 1e-3)


def test_names_and_settings_are_checked():
    with pytest.raises(ConfigError, match="Did you mean 'projection'"):
        build_calibrator("projecton")
    with pytest.raises(ConfigError, match="Did you mean 'kappa'"):
        build_calibrator("floor", {"kapa": 1.0})
    with pytest.raises(ConfigError, match="setting of 'projection'"):
        build_calibrator("projection", {"kappa": 1.0})


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("floor", {"kappa": 0.0}),
        ("floor", {"kappa": 1.5}),
        ("floor", {"form": "hinge"}),
        ("floor", {"delta": -1.0}),
        ("floor", {"min_mass": 1.0}),
        ("mixture", {"form": "harmonic"}),
        ("mix_to_floor", {"min_mass": -1.0}),
        ("anchor", {"theta": -0.1}),
        ("anchor", {"theta": math.nan}),
        ("anchor", {"dilation": -1}),
    ],
)
def test_settings_that_make_no_sense(name, kwargs):
    (field, value), *_ = kwargs.items()
    with pytest.raises(ConfigError, match=f"`{field}` of the calibrator '{name}'.*got {value!r}"):
        build_calibrator(name, kwargs)


# Probabilities of one marker and two other tokens, with the corners of the simplex.
CORNERS = {
    "all marker": [1.0, 0.0, 0.0],
    "no marker": [0.0, 0.4, 0.6],
    "hardly any": [1e-30, 0.4, 0.6],
    "nearly all": [1.0 - 1e-7, 5e-8, 5e-8],
    "plain": [0.2, 0.3, 0.5],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reference", CORNERS)
@pytest.mark.parametrize("teacher", CORNERS)
@pytest.mark.parametrize("name", NAMES)
def test_no_nan_in_the_corners(name, teacher, reference, dtype, make_views):
    for student in CORNERS:
        views = make_views(
            CORNERS[student],
            CORNERS[teacher],
            CORNERS[reference],
            dtype=dtype,
            completion_ids=torch.tensor([[0]]),
            completion_mask=torch.ones(1, 1),
        )
        calibrator = build_calibrator(name)
        for strength in (1e-6, 0.5, 1.0):
            result = act(calibrator, views, strength)
            assert not result.isnan().any()
            if isinstance(calibrator, Target):
                unchanged = torch.equal(result, views.teacher.to(result))
                assert unchanged or result.exp().sum().item() == pytest.approx(1.0, abs=1e-2)
            else:
                assert torch.isfinite(result).all()
                (gradient,) = torch.autograd.grad(result.sum(), views.student)
                assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_the_hinge_corner(name, make_views):
    """The other form of the floor and of the mixture at a student without markers."""
    for kwargs in ({"form": "loghinge"}, {"form": "geo"}):
        if (name, kwargs["form"]) not in {("floor", "loghinge"), ("mixture", "geo")}:
            continue
        views = make_views([0.0, 0.4, 0.6], [0.0, 0.4, 0.6], [1.0, 0.0, 0.0])
        result = act(build_calibrator(name, kwargs), views, 0.5)
        assert not result.isnan().any()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name, random_views):
    exact = random_views(dtype=torch.float32)
    half = dataclasses.replace(
        exact,
        student=exact.student.detach().bfloat16(),
        teacher=exact.teacher.bfloat16(),
        reference=exact.reference.bfloat16(),
    )
    widened = dataclasses.replace(
        half, student=half.student.float(), teacher=half.teacher.float(), reference=half.reference.float()
    )
    calibrator = build_calibrator(name)
    result = act(calibrator, half, 0.5)
    assert result.dtype == torch.float32
    assert torch.equal(result, act(calibrator, widened, 0.5))


@pytest.mark.parametrize("name", TARGETS)
def test_targets_leave_their_inputs_alone(name, random_views):
    views = random_views()
    teacher, reference = views.teacher.clone(), views.reference.clone()
    target = build_calibrator(name).edit_teacher(views, 0.7)
    assert not target.requires_grad
    assert torch.equal(views.teacher, teacher)
    assert torch.equal(views.reference, reference)


def test_penalties_are_the_rest():
    assert all(issubclass(CALIBRATORS[name], Penalty) for name in set(NAMES) - set(TARGETS))
