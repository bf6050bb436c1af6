"""Axis legend, used in every docstring and signature of the package.

===  =================================================================
B    rows of a (micro-)batch
T    completion positions (padded)
V    vocabulary entries
M    marker token ids
K    context levels, or top-k entries where stated
===  =================================================================

Log-probabilities are natural logarithms (nats), float32, normalised over V unless stated. Masks are 1 where a
position counts. The annotations are checked in the tests (jaxtyping + beartype) and cost nothing at run time.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

Logps = Float[Tensor, "B T V"]
"""Log-probabilities over the vocabulary at each completion position."""
PerToken = Float[Tensor, "B T"]
"""One real number for each completion position."""
TokenIds = Int[Tensor, "B T"]
"""Token ids of the completion."""
TokenMask = Float[Tensor, "B T"] | Int[Tensor, "B T"] | Bool[Tensor, "B T"]
"""1 where a completion position counts."""
MarkerIds = Int[Tensor, " M"]
"""Vocabulary ids of the markers, sorted, without repeats."""
Scalar = Float[Tensor, ""]
"""One real number."""
