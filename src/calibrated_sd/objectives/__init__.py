"""What is minimised: divergences between token distributions, their parts, and how positions become one number.

Pure functions of log-probabilities, ids and masks. They know no trainer, no tokenizer and no file.
"""

from calibrated_sd.objectives.decomposition import (
    KLParts,
    binary_kl,
    kl_decomposition,
    log_complement,
    log_marker_mass,
)
from calibrated_sd.objectives.divergences import divergence, entropy, forward_kl, jsd, reverse_kl
from calibrated_sd.objectives.reduction import REDUCTIONS, active_rows, reduce_loss, sequence_mean, token_mean

__all__ = [
    "REDUCTIONS",
    "KLParts",
    "active_rows",
    "binary_kl",
    "divergence",
    "entropy",
    "forward_kl",
    "jsd",
    "kl_decomposition",
    "log_complement",
    "log_marker_mass",
    "reduce_loss",
    "reverse_kl",
    "sequence_mean",
    "token_mean",
]
