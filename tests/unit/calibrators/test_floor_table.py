"""The table on the floor's page, recomputed."""

import re
from pathlib import Path

import pytest
import torch

from calibrated_sd.objectives import binary_kl, divergence

PAGE = Path(__file__).parents[3] / "docs/reference/calibrators/floor.md"
ROWS = {"forward KL": 0.0, "JSD, α = ½": 0.5, "reverse KL": 1.0}


def reached(alpha, strength, m_t=1e-4, m_r=0.05):
    """m*/m_R by search over the student's mass; with the teacher's proportions only the mass is left to choose."""
    log_m_s = torch.linspace(-9.3, -2.9, 40_001, dtype=torch.float64)
    student = torch.stack([log_m_s, torch.log1p(-log_m_s.exp())], dim=-1)
    teacher = torch.tensor([m_t, 1 - m_t], dtype=torch.float64).log().expand_as(student)
    log_m_r = torch.tensor(m_r, dtype=torch.float64).log().expand_as(log_m_s)
    floor = torch.where(log_m_s < log_m_r, binary_kl(log_m_r, log_m_s), 0.0)
    best = (divergence(student, teacher, alpha) + strength * floor).argmin()
    return log_m_s[best].exp().item() / m_r


@pytest.mark.parametrize("row", ROWS)
def test_row(row):
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (header,) = [line for line in lines if line.startswith("| λ | 0.1")]
    (cells,) = [line for line in lines if line.startswith(f"| {row} |")]
    strengths = [float(cell) for cell in re.findall(r"[\d.]+", header)]
    published = [float(cell) for cell in re.findall(r"[\d.]+", cells.removeprefix(f"| {row} |"))]
    assert len(strengths) == len(published) == 6
    # half a unit of the last printed digit, and a little for the grid
    assert [reached(ROWS[row], s) for s in strengths] == pytest.approx(published, abs=0.0052)
