"""Laws of divergences and of the decomposition, for random distributions from flat to extremely peaked."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.objectives import divergence, entropy, forward_kl, jsd, kl_decomposition, reverse_kl

ALPHAS = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
LAWS = settings(max_examples=60, deadline=None)


@st.composite
def distributions(draw, count=2, min_vocab=2):
    """`count` random log-probability tensors (2, 3, V) in float64, each with its own sharpness."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    vocab = draw(st.integers(min_vocab, 24))
    sharpness = [draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0])) for _ in range(count)]
    return [(s * torch.randn(2, 3, vocab, generator=generator, dtype=torch.float64)).log_softmax(-1) for s in sharpness]


@st.composite
def with_markers(draw, count=2):
    """Distributions and a non-empty, proper subset of the vocabulary."""
    tensors = draw(distributions(count, min_vocab=3))
    vocab = tensors[0].shape[-1]
    ids = draw(st.lists(st.integers(0, vocab - 1), min_size=1, max_size=vocab - 1, unique=True))
    return tensors, torch.tensor(sorted(ids))


@LAWS
@given(distributions(), ALPHAS)
def test_not_negative_and_zero_between_equals(pair, alpha):
    student, teacher = pair
    assert (divergence(student, teacher, alpha) >= -1e-12).all()
    assert divergence(student, student, alpha).abs().max() <= 1e-12


@LAWS
@given(distributions())
def test_jsd_at_half_is_symmetric_and_bounded(pair):
    p, q = pair
    torch.testing.assert_close(jsd(p, q, 0.5), jsd(q, p, 0.5), atol=1e-12, rtol=1e-9)
    assert (jsd(p, q, 0.5) <= math.log(2.0) + 1e-12).all()


@LAWS
@given(distributions())
def test_forward_and_reverse_swap_roles(pair):
    p, q = pair
    assert torch.equal(forward_kl(p, q), reverse_kl(q, p))


@LAWS
@given(distributions(), ALPHAS, st.randoms(use_true_random=False))
def test_order_of_the_vocabulary_does_not_matter(pair, alpha, random):
    student, teacher = pair
    order = list(range(student.shape[-1]))
    random.shuffle(order)
    torch.testing.assert_close(
        divergence(student[..., order], teacher[..., order], alpha),
        divergence(student, teacher, alpha),
        atol=1e-10,
        rtol=1e-9,
    )


@LAWS
@given(distributions(count=1))
def test_entropy_lies_between_zero_and_log_v(single):
    (p,) = single
    assert (entropy(p) >= 0).all()
    assert (entropy(p) <= math.log(p.shape[-1]) + 1e-9).all()


@LAWS
@given(distributions(), ALPHAS)
def test_gradient_on_the_logits_sums_to_zero(pair, alpha):
    student, teacher = pair
    logits = student.detach().requires_grad_()
    divergence(logits.log_softmax(-1), teacher, alpha).sum().backward()
    scale = 1 + logits.grad.abs().max()
    assert (logits.grad.sum(-1).abs() <= 1e-11 * scale).all()


@LAWS
@given(with_markers())
def test_chain_rule_with_naive_conditionals(case):
    """total = coarse + inside + outside to 1e-12 of its size, the conditionals being formed explicitly here."""
    (p, q), ids = case
    others = torch.tensor([v for v in range(p.shape[-1]) if v not in ids.tolist()])
    m_p, m_q = p[..., ids].logsumexp(-1), q[..., ids].logsumexp(-1)
    n_p, n_q = p[..., others].logsumexp(-1), q[..., others].logsumexp(-1)

    def conditional_kl(columns):
        a, b = p[..., columns].log_softmax(-1), q[..., columns].log_softmax(-1)
        return (a.exp() * (a - b)).sum(-1)

    coarse = m_p.exp() * (m_p - m_q) + n_p.exp() * (n_p - n_q)
    inside, outside = m_p.exp() * conditional_kl(ids), n_p.exp() * conditional_kl(others)
    parts = kl_decomposition(p, q, ids)
    scale = 1 + parts.total
    assert ((parts.total - coarse - inside - outside).abs() <= 1e-12 * scale).all()
    assert ((parts.inside - inside).abs() <= 1e-12 * scale).all()
    assert ((parts.coarse - coarse).abs() <= 1e-12 * scale).all()
    assert ((parts.outside - outside).abs() <= 1e-12 * scale).all()


@LAWS
@given(with_markers())
def test_coarse_never_exceeds_total(case):
    """Data-processing inequality: looking only at "marker or not" cannot tell two distributions further apart."""
    (p, q), ids = case
    parts = kl_decomposition(p, q, ids)
    slack = 1e-11 * (1 + parts.total)
    assert (parts.coarse <= parts.total + slack).all()
    assert (parts.inside >= -slack).all()
    assert (parts.outside >= -slack).all()
    worth_dividing = parts.total > 1e-6
    assert (parts.marker_share[worth_dividing] <= 1 + 1e-4).all()
