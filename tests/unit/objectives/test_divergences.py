"""Divergences by numbers worked out on paper."""

import math

import pytest
import torch

from calibrated_sd.errors import ConfigError
from calibrated_sd.objectives import divergence, entropy, forward_kl, jsd, reverse_kl

LN2 = math.log(2.0)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_forward_kl_by_hand():
    # ½·ln(½/¼) + ½·ln(½/¾) = ½·ln 2 + ½·ln(2/3) = ½·ln(4/3)
    value = forward_kl(student=logs(0.25, 0.75), teacher=logs(0.5, 0.5))
    assert value.item() == pytest.approx(0.5 * math.log(4 / 3), abs=1e-15)


def test_reverse_kl_by_hand():
    # ¼·ln(¼/½) + ¾·ln(¾/½) = −¼·ln 2 + ¾·ln 1.5
    value = reverse_kl(student=logs(0.25, 0.75), teacher=logs(0.5, 0.5))
    assert value.item() == pytest.approx(-0.25 * LN2 + 0.75 * math.log(1.5), abs=1e-15)


def test_jsd_of_overlapping_pair_by_hand():
    # α=½: the mixture of (¼,¾) and (½,½) is (3/8, 5/8)
    teacher_part = 0.5 * math.log(0.5 / 0.375) + 0.5 * math.log(0.5 / 0.625)
    student_part = 0.25 * math.log(0.25 / 0.375) + 0.75 * math.log(0.75 / 0.625)
    value = jsd(student=logs(0.25, 0.75), teacher=logs(0.5, 0.5), alpha=0.5)
    assert value.item() == pytest.approx(0.5 * teacher_part + 0.5 * student_part, abs=1e-15)


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.5, 0.9])
def test_jsd_of_disjoint_pair_is_the_entropy_of_the_coin(alpha):
    # No common token: KL(student‖M) = −ln(1−α), KL(teacher‖M) = −ln α, weighted by (1−α) and α.
    value = jsd(student=logs(1.0, 0.0), teacher=logs(0.0, 1.0), alpha=alpha)
    coin = -alpha * math.log(alpha) - (1 - alpha) * math.log(1 - alpha)
    assert value.item() == pytest.approx(coin, rel=1e-12)


def test_alpha_names_the_member():
    student, teacher = logs(0.2, 0.3, 0.5), logs(0.6, 0.3, 0.1)
    assert divergence(student, teacher, 0.0) == forward_kl(student, teacher)
    assert divergence(student, teacher, 1.0) == reverse_kl(student, teacher)
    assert divergence(student, teacher, 0.3) == jsd(student, teacher, 0.3)
    assert forward_kl(student, teacher) != reverse_kl(student, teacher)


def test_alpha_weighs_the_teacher():
    # As α → 1 the mixture is the teacher, and JSD/(1−α) tends to KL(student‖teacher).
    student, teacher = logs(0.2, 0.8), logs(0.6, 0.4)
    assert (jsd(student, teacher, 1 - 1e-6) / 1e-6).item() == pytest.approx(
        reverse_kl(student, teacher).item(), rel=1e-4
    )


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ConfigError, match="distillation_alpha"):
        divergence(logs(0.5, 0.5), logs(0.5, 0.5), alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_jsd_refuses_its_ends(alpha):
    with pytest.raises(ConfigError, match="0 < alpha < 1"):
        jsd(logs(0.5, 0.5), logs(0.5, 0.5), alpha)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_tokens_that_cannot_occur_add_nothing(alpha):
    student = logs(0.25, 0.75, 0.0).requires_grad_()
    value = divergence(student, logs(0.5, 0.5, 0.0), alpha)
    assert value.item() == pytest.approx(divergence(logs(0.25, 0.75), logs(0.5, 0.5), alpha).item(), abs=1e-15)
    value.backward()
    assert torch.isfinite(student.grad).all()


def test_forbidden_token_is_infinitely_far():
    assert forward_kl(student=logs(1.0, 0.0), teacher=logs(0.5, 0.5)).item() == math.inf
    # 1·ln(1/½): the student's certainty is allowed by the teacher
    assert reverse_kl(student=logs(1.0, 0.0), teacher=logs(0.5, 0.5)).item() == pytest.approx(LN2)


def test_entropy_by_hand():
    # ½·ln 2 + 2·¼·ln 4 = 1.5·ln 2
    assert entropy(logs(0.5, 0.25, 0.25)).item() == pytest.approx(1.5 * LN2)
    assert entropy(logs(1.0, 0.0)).item() == 0.0


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_half_precision_is_summed_in_float32(alpha):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 500, generator=generator).log_softmax(-1).bfloat16() for _ in range(2))
    value = divergence(student, teacher, alpha)
    assert value.dtype == torch.float32
    assert torch.equal(value, divergence(student.float(), teacher.float(), alpha))
