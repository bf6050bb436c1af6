"""One worker of a :class:`~calibrated_sd.evaluation.grading_pool.GradingPool`: reads pairs, writes verdicts, may be killed.

Run as ``python -m calibrated_sd.evaluation.grading_worker GRADER SECONDS``. One JSON object per line: first
``{"ready": true}`` or ``{"error": "…"}``, then ``{"id", "verdict"}`` for every ``{"id", "completion", "answer"}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.evaluation.grading import Grader, get_grader
from calibrated_sd.evaluation.named_functions import load_function


def grader_of(name: str) -> Grader:
    """A grader by its name, or ``"module:function"``."""
    return load_function(name, "grader") if ":" in name else get_grader(name)


def verdict_of(grade: Grader, completion: str, answer: str | None) -> bool | None:
    """The verdict; None where the grader fails or there is no answer to compare with."""
    if answer is None:
        return None
    try:
        verdict = grade(completion, answer)
    except Exception:  # any failure of a library on hostile text means "cannot be judged"
        return None
    return None if verdict is None else bool(verdict)


def serve(name: str, seconds: float) -> None:
    """Answer requests on standard input until it is closed."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply

    def reply(**message: Any) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        grade = grader_of(name)
    except CalibratedSDError as error:
        reply(error=str(error))
        return
    reply(ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        _die_after(seconds)
        verdict = verdict_of(grade, request["completion"], request["answer"])
        _die_after(0)
        reply(id=request["id"], verdict=verdict)


def _die_after(seconds: float) -> None:
    """Let the kernel end this process, so that none is left behind by a parent that was killed; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
