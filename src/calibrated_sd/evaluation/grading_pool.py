"""Grading with a hard time limit: worker processes that are killed, not asked, when a pair takes too long.

A thread cannot be stopped, and a signal reaches neither compiled code nor a thread. So each pair is judged in a process
of its own kind (``grading_worker``), started by its command line: nothing is forked, and a script that grades needs no
``if __name__ == "__main__"``. Works from any thread. POSIX only, like math-verify's own limits.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable
from typing import Any

from calibrated_sd.errors import CalibratedSDError, ConfigError
from calibrated_sd.evaluation.grading_worker import grader_of, verdict_of

START_LIMIT_S = 120.0
"""How long a worker may take to import its libraries before the pool gives up."""
IN_PROCESS = ("boxed",)
"""Graders that always finish at once and are called directly."""
SUSPICIOUS = 8
"""If so many answered pairs are graded at once and none of them can be judged, it is the grader that is wrong."""


class GradingPool:
    """Judges (completion, answer) pairs in worker processes.

    Args:
        grader: a name of :data:`~calibrated_sd.evaluation.grading.GRADERS`, or ``"module:function"``.
        workers: processes; they start when first needed and stay until :meth:`close`.
        timeout_s: seconds of wall-clock time for one pair.

    Raises:
        ConfigError: no such grader or function, its library is not installed, or a number that is not positive.

    >>> with GradingPool("boxed") as pool:
    ...     pool.grade([(r"so \\boxed{4}", "4"), (r"so \\boxed{5}", "4"), ("so 4", None)])
    [True, False, None]
    """

    def __init__(self, grader: str, workers: int = 2, timeout_s: float = 5.0) -> None:
        if workers < 1 or not timeout_s > 0:
            raise ConfigError(
                f"Grading needs at least one worker and a positive time limit, got {workers} workers and {timeout_s} s."
            )
        self.grader, self.n_workers, self.timeout_s = grader, workers, timeout_s
        self._function = grader_of(grader)  # found out now, and not after an hour of sampling
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._has_warned = False

    def grade(self, pairs: Iterable[tuple[str, str | None]]) -> list[bool | None]:
        """Right, wrong or None (time limit, crash, no answer) for each pair, in the order of the pairs.

        A verdict depends on its pair alone, save that a pair near the time limit may be late on a busy machine. Warns,
        once, if no pair of a batch of :data:`SUSPICIOUS` or more can be judged: errors of a grader are None like any
        other.

        Raises:
            ConfigError: the grader cannot be loaded in a process of its own.
        """
        pairs = list(pairs)
        verdicts = self._verdicts(pairs)
        n_answered = sum(answer is not None for _, answer in pairs)
        if n_answered >= SUSPICIOUS and not self._has_warned and all(verdict is None for verdict in verdicts):
            self._has_warned = True
            warnings.warn(
                f"The grader {self.grader!r} could judge none of {n_answered} answers: it failed or took too long "
                f"({self.timeout_s:g} s) every time. Call it on one completion and its answer to see why.",
                stacklevel=2,
            )
        return verdicts

    def _verdicts(self, pairs: list[tuple[str, str | None]]) -> list[bool | None]:
        if self.grader in IN_PROCESS:
            return [verdict_of(self._function, *pair) for pair in pairs]
        with self._lock:
            if self._pid != os.getpid():  # after a fork the workers are the parent's
                self._workers, self._pid = [], os.getpid()
            try:
                return self._grade_all(pairs)
            except BaseException:  # Ctrl-C included: no late reply may meet the next call
                self.close()
                raise

    def _grade_all(self, pairs: list[tuple[str, str | None]]) -> list[bool | None]:
        verdicts: list[bool | None] = [None] * len(pairs)
        todo = deque(i for i, (_, answer) in enumerate(pairs) if answer is not None)
        while len(self._workers) < min(self.n_workers, len(todo)):
            self._workers.append(_Worker(self.grader, self.timeout_s))
        while todo or any(worker.task is not None for worker in self._workers):
            for worker in self._workers:
                if todo and worker.idle and worker.send(todo[0], *pairs[todo[0]]):
                    todo.popleft()
            for worker in _wait(self._workers):
                for message in worker.receive():
                    if "error" in message:
                        raise ConfigError(message["error"])
                    if "verdict" in message:
                        verdicts[message["id"]] = message["verdict"]
        return verdicts

    def close(self) -> None:
        """End the workers. The pool can be used again; it then starts new ones."""
        if self._pid == os.getpid():
            for worker in self._workers:
                worker.kill()
        self._workers = []

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """A process and what it is doing: starting (not ready), idle, or judging pair ``task`` until ``deadline``."""

    def __init__(self, grader: str, timeout_s: float) -> None:
        self.grader, self.timeout_s = grader, timeout_s
        self.start()

    def start(self) -> None:
        paths = [path or os.getcwd() for path in sys.path]
        self.process = subprocess.Popen(
            # The worker's own limit is only for a parent that was killed, hence later than ours.
            [sys.executable, "-m", "calibrated_sd.evaluation.grading_worker", self.grader, str(2 * self.timeout_s + 5)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Same hashes everywhere: the order in which sympy walks a set must not decide a verdict.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches the parent, which ends its workers
        )
        self.ready, self.task, self.buffer = False, None, b""
        self.deadline = time.monotonic() + START_LIMIT_S

    ready: bool
    task: int | None
    buffer: bytes
    deadline: float

    @property
    def idle(self) -> bool:
        return self.ready and self.task is None

    def send(self, task: int, completion: str, answer: str | None) -> bool:
        """Hand over a pair; False (and a fresh process) if this one had died in the meantime."""
        request = json.dumps({"id": task, "completion": completion, "answer": answer}) + "\n"
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(request.encode("ascii"))
            self.process.stdin.flush()
        except OSError:
            self.restart()
            return False
        self.task, self.deadline = task, time.monotonic() + self.timeout_s
        return True

    def receive(self) -> list[dict[str, Any]]:
        """Complete replies that have arrived; a dead or late process is replaced, and its pair stays None."""
        assert self.process.stdout is not None
        late = time.monotonic() > self.deadline and (self.task is not None or not self.ready)
        data = b"" if late and not _readable(self.process.stdout) else os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            if not self.ready:
                self.kill()
                raise CalibratedSDError(
                    f"A grading process for {self.grader!r} {'did not start in time' if late else 'ended at once'}. Run "
                    f"`python -m calibrated_sd.evaluation.grading_worker {self.grader} 10` to see what it says."
                )
            self.restart()
            return []
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        for message in messages:
            self.ready = True
            if message.get("id") == self.task:
                self.task = None
        return messages

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # unsent bytes of a dead process
                pipe.close()


def _readable(pipe: Any) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(0))


def _wait(workers: list[_Worker]) -> list[_Worker]:
    """Workers that have said something, died or run out of time; blocks until there is one."""
    active = [worker for worker in workers if not worker.idle]
    with selectors.DefaultSelector() as selector:
        for worker in active:
            assert worker.process.stdout is not None
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        first = min((worker.deadline for worker in active), default=0.0)
        heard = [key.data for key, _ in selector.select(max(0.0, first - time.monotonic()))]
    now = time.monotonic()
    return heard + [worker for worker in active if worker not in heard and now > worker.deadline]


_SHARED: dict[tuple[str, int, float], GradingPool] = {}


def shared_pool(grader: str, workers: int = 2, timeout_s: float = 5.0) -> GradingPool:
    """One pool per setting for the whole process, ended with it; for rewards, which are called for years."""
    key = (grader, workers, timeout_s)
    if key not in _SHARED:
        _SHARED[key] = GradingPool(grader, workers, timeout_s)
    return _SHARED[key]


@atexit.register
def _close_shared() -> None:
    for pool in _SHARED.values():
        pool.close()
