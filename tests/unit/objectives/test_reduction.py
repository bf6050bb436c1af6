"""Reductions by hand: two rows of three positions, and a third row without a teacher context."""

import pytest
import torch

from calibrated_sd.errors import ConfigError
from calibrated_sd.objectives import active_rows, reduce_loss, sequence_mean, token_mean

LOSS = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0], [7.0, 7.0, 7.0]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])


def test_sequence_mean():
    # row means 2, 10 and 0 (nothing counted), over 3 rows
    assert sequence_mean(LOSS, MASK).item() == 4.0


def test_active_rows():
    # row means 2 and 10, over the 2 rows that count
    assert active_rows(LOSS, MASK).item() == 6.0


def test_token_mean():
    # 1 + 2 + 3 + 10 over 4 positions
    assert token_mean(LOSS, MASK).item() == 4.0


@pytest.mark.parametrize("mask", [MASK.bool(), MASK.float(), MASK.long()])
def test_masks_of_any_type(mask):
    assert [f(LOSS, mask).item() for f in (sequence_mean, active_rows, token_mean)] == [4.0, 6.0, 4.0]


@pytest.mark.parametrize("name", ["sequence_mean", "active_rows", "token_mean"])
def test_nothing_counted_is_zero_with_a_zero_gradient(name):
    loss = LOSS.clone().requires_grad_()
    value = reduce_loss(loss, torch.zeros(3, 3), name)
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(loss.grad, torch.zeros(3, 3))


@pytest.mark.parametrize("name", ["sequence_mean", "active_rows", "token_mean"])
def test_masked_positions_get_no_gradient(name):
    loss = LOSS.clone().requires_grad_()
    reduce_loss(loss, MASK, name).backward()
    assert torch.equal(loss.grad != 0, MASK.bool())


def test_misspelt_name_suggests():
    with pytest.raises(ConfigError, match="Did you mean 'active_rows'"):
        reduce_loss(LOSS, MASK, "active_row")
