"""Grading in processes: the table, hard limits, crashes, order, threads, an end without leftovers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from grader_cases import CASES

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation.grading_pool import GradingPool
from process_kit import take_interrupts

GRADERS = '''
import os, time

def moody(completion, answer):
    """Hangs, dies, raises or judges, as the completion says."""
    if completion == "hang":
        while True:
            pass
    if completion == "compiled hang":
        9 ** (9 ** 9)
    if completion == "die":
        os._exit(3)
    if completion == "raise":
        raise RecursionError
    if completion == "print":
        print("not a reply")
    return completion == answer

def process(completion, answer):
    return str(os.getpid()) == answer
'''


@pytest.fixture
def moody(tmp_path, monkeypatch):
    (tmp_path / "graders_of_test.py").write_text(GRADERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "graders_of_test:moody"


def pids(pool):
    return [worker.process.pid for worker in pool._workers]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("column", "grader"), [(2, "boxed"), (3, "math-verify")])
def test_the_table(column, grader):
    if grader == "math-verify":
        pytest.importorskip("math_verify")
    with GradingPool(grader, workers=1, timeout_s=30) as pool:
        verdicts = pool.grade([case[:2] for case in CASES])
    wrong = [(case, verdict) for case, verdict in zip(CASES, verdicts, strict=True) if verdict is not case[column]]
    assert not wrong


def test_late_and_dead_workers_cost_their_pair_only(moody):
    """One worker, so the pairs after a hang or a death are judged by its successor."""
    pairs = [
        ("4", "4"),
        ("hang", "4"),
        ("die", "4"),
        ("raise", "4"),
        ("print", "4"),
        ("4", "4"),
        ("5", "4"),
        ("4", None),
    ]
    with GradingPool(moody, workers=1, timeout_s=0.5) as pool:
        since = time.monotonic()
        assert pool.grade(pairs) == [True, None, None, None, False, True, False, None]
        assert time.monotonic() - since < 20
        assert pool.grade([("6", "6")]) == [True]  # and it goes on


def test_compiled_code_is_stopped_too(moody):
    with GradingPool(moody, workers=1, timeout_s=0.5) as pool:
        since = time.monotonic()
        assert pool.grade([("compiled hang", "4"), ("4", "4")]) == [None, True]
        assert time.monotonic() - since < 20


def test_verdicts_come_in_the_order_of_the_pairs(moody):
    pairs = [(str(i), str(i - i % 3)) for i in range(60)]
    with GradingPool(moody, workers=2, timeout_s=10) as pool:
        assert pool.grade(pairs) == [i % 3 == 0 for i in range(60)]
        assert len(pids(pool)) == 2


def test_threads_may_share_a_pool(moody):
    verdicts = {}
    with GradingPool(moody, workers=1, timeout_s=10) as pool:

        def work(k):
            verdicts[k] = pool.grade([(str(i), str(k)) for i in range(20)])

        threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert verdicts == {k: [i == k for i in range(20)] for k in range(3)}


def test_closing_ends_the_processes_and_a_closed_pool_starts_new_ones(moody):
    pool = GradingPool(moody, workers=1, timeout_s=10)
    assert pool.grade([("1", "1")]) == [True]
    (first,) = pids(pool)
    pool.close()
    assert not is_alive(first)
    assert pool.grade([("1", "1")]) == [True]
    pool.close()


def test_a_worker_that_died_while_idle_costs_no_pair(moody):
    with GradingPool(moody, workers=1, timeout_s=10) as pool:
        pool.grade([("1", "1")])
        pool._workers[0].process.kill()
        pool._workers[0].process.wait()
        assert pool.grade([("1", "1"), ("2", "1")]) == [True, False]


SCRIPT = """
import sys
from calibrated_sd.evaluation.grading_pool import GradingPool
pool = GradingPool("graders_of_test:moody", workers=1, timeout_s=60)
pool.grade([("1", "1")])  # no `if __name__ == "__main__"` here, and the script runs once
print(pool._workers[0].process.pid, flush=True)
with pool:
    pool.grade([("hang", "1")])
"""


def test_ctrl_c_leaves_no_process(moody, tmp_path):
    import signal

    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        preexec_fn=take_interrupts,
    )
    worker = int(process.stdout.readline())
    time.sleep(0.3)  # now it waits for the pair that hangs
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    assert process.stdout.read() == ""  # one pid printed: the script was not run again by a worker
    assert not is_alive(worker)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("boxd",), "Did you mean 'boxed'"),
        (("boxed", 0), "at least one worker"),
        (("boxed", 1, 0.0), "positive time limit"),
    ],
)
def test_settings_are_checked_before_anything_starts(arguments, words):
    with pytest.raises(ConfigError, match=words):
        GradingPool(*arguments)


def test_a_grader_that_cannot_be_loaded_is_named():
    with pytest.raises(ConfigError, match="no_such_module"):
        GradingPool("no_such_module:grade")


def test_a_grader_that_a_process_cannot_load_is_an_error_and_no_ungraded_pair(moody, tmp_path):
    pool = GradingPool(moody, workers=1)
    (tmp_path / "graders_of_test.py").write_text("raise ImportError('only in the main process')")
    with pytest.raises(ConfigError, match="only in the main process"):
        pool.grade([("1", "1")])
    assert not pool._workers


def test_a_grader_that_always_fails_is_noticed(moody, recwarn):
    with GradingPool(moody, workers=1, timeout_s=20) as pool:
        assert pool.grade([("raise", "1")] * 7 + [("raise", None)]) == [None] * 8  # may be chance
        assert pool.grade([("raise", "1")] * 8 + [("1", "1")]) == [None] * 8 + [True]
        assert not recwarn
        with pytest.warns(UserWarning, match="could judge none of 8 answers"):
            assert pool.grade([("raise", "1")] * 8) == [None] * 8
        recwarn.clear()
        pool.grade([("raise", "1")] * 8)
        assert not recwarn  # once is enough
