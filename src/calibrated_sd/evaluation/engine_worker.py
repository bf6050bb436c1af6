"""A worker process: reads settings, loads an engine, and serves one job after another. Started by ``engine_workers``.

One JSON object per line. Read: the fields of ``EngineSettings``, then for each job the arguments of
``iter_completions`` and the job's number. Written: ``{"ready": true}``, then with the number of the job
``{"completions": [[problem_id, sample, token_ids, text, finish_reason], ...]}`` and ``{"finished": true}``; or
``{"error": CLASS, "message": TEXT}`` for what a user can correct, which ends the work. When its input closes, the
process that started it is gone, and the worker ends its whole process group.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from calibrated_sd.errors import CalibratedSDError


def main() -> None:
    """Serve until the input closes."""
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    out = os.fdopen(os.dup(1), "wb")  # libraries print to descriptor 1, which becomes the log
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        out.write(json.dumps(message).encode() + b"\n")
        out.flush()

    try:
        _serve(lines, say)
    except CalibratedSDError as error:
        say(error=type(error).__name__, message=str(error))
    except BrokenPipeError:  # noticed before the closed input was
        _end_group()
    signal.pause()  # until the group is ended


def _serve(lines: queue.Queue[bytes], say: Any) -> None:
    from calibrated_sd.evaluation.engines import EngineSettings, load_here

    engine = load_here(EngineSettings(**json.loads(lines.get())))
    say(ready=True)
    while True:
        job = json.loads(lines.get())
        number, job["already_done"] = job.pop("job"), {(pid, sample) for pid, sample in job["already_done"]}
        for batch in engine.iterate(engine.model, engine.tokenizer, job.pop("prompts"), **job):
            made = [[c.problem_id, c.sample, c.token_ids, c.text, c.finish_reason] for c in batch]
            say(job=number, completions=made)
        say(job=number, finished=True)


def _read(lines: queue.Queue[bytes]) -> None:
    for line in sys.stdin.buffer:
        lines.put(line)
    _end_group()


def _end_group() -> None:
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
