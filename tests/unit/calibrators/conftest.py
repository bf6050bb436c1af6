import pytest
import torch

from calibrated_sd.calibrators import Views


@pytest.fixture
def make_views():
    """Views of one position from lists of probabilities (zeros allowed); the first `markers` tokens are the markers."""

    def make(student, teacher, reference, markers=1, dtype=torch.float64, **extra):
        def logps(probabilities):
            return torch.tensor(probabilities, dtype=dtype).log().reshape(1, 1, -1)

        return Views(
            student=logps(student).requires_grad_(),
            teacher=logps(teacher),
            reference=None if reference is None else logps(reference),
            marker_ids=torch.arange(markers),
            **extra,
        )

    return make


@pytest.fixture
def random_views():
    """Random views of (B, T, V) with markers 1, 4 and 7, a sampled completion and a full mask."""

    def make(seed=0, b=2, t=5, v=12, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        student, teacher, reference = (
            (2 * torch.randn(b, t, v, generator=generator, dtype=dtype)).log_softmax(-1) for _ in range(3)
        )
        return Views(
            student=student.requires_grad_(),
            teacher=teacher,
            reference=reference,
            marker_ids=torch.tensor([1, 4, 7]),
            completion_ids=torch.randint(0, v, (b, t), generator=generator),
            completion_mask=torch.ones(b, t),
        )

    return make
