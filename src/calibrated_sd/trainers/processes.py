"""What all processes of a run must agree on."""

from __future__ import annotations

import torch


def any_process(found: bool, device: torch.device) -> bool:
    """Whether it was found in any process; one reduction, which all of them must enter, whatever they found."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return found
    flag = torch.tensor(int(found), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
