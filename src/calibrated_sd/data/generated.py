"""Word problems with worked solutions, made on the spot by the package reasoning-gym."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from calibrated_sd.data.row_forms import worked_solution
from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.grading import normalise_answer

DEFAULT_SIZE = 1000
"""Problems made where nobody says how many."""


def gsm_symbolic_rows(size: int = DEFAULT_SIZE, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows ``{question, answer, solution}`` from the GSM-Symbolic templates of reasoning-gym.

    The same size, seed and version of the package give the same rows. A row whose worked solution ends in another
    number than its answer has None for the answer.

    Raises:
        ConfigError: the package is not installed, or ``size`` is below 1.
    """
    if size < 1:
        raise ConfigError(f"The number of problems must be at least 1, got {size}.")
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError(
            "gsm-symbolic is made by the package reasoning-gym, which is not installed. Install it with "
            "pip install 'calibrated-sd[real]'."
        ) from error
    return map(_row, iter(reasoning_gym.create_dataset("gsm_symbolic", size=size, seed=seed)))


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    answer = str(entry["answer"]).strip()
    worked = str(entry["metadata"].get("answer_cot", ""))
    row = {"question": entry["question"], "solution": worked_solution(worked, answer)}
    agrees = normalise_answer(worked.rpartition("####")[2]) == normalise_answer(answer)
    return {**row, "answer": answer if agrees else None}  # a row without an answer is dropped, and counted
