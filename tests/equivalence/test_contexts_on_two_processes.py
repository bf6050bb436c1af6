"""Two gloo processes build contexts together: one file, the other's rollouts, the same decisions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
TESTS = HERE.parent


@pytest.fixture(scope="module")
def processes(model_path, tmp_path_factory):
    """What each process saw."""
    folder = tmp_path_factory.mktemp("two_process_contexts")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(HERE / "two_process_contexts.py"), str(folder), model_path]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "CI": "1",
    }
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((folder / f"process_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_one_file_is_written_and_both_read_it(processes):
    """Ten problems in rounds of eight: the second round is filled up with repetitions, which are not written."""
    first, second = processes
    assert first["lines"] == second["lines"] == 10
    assert first["texts"] == second["texts"]
    assert len(first["texts"]) == 10


@pytest.mark.slow
def test_an_irrelevant_rollout_may_come_from_the_other_process(processes):
    for process, other in zip(processes, ["blue green", "red"], strict=True):
        texts, mask, _ = process["irrelevant"]
        assert all(f"Correct solution: {other} Correctly" in text for text in texts)
        assert mask == [1.0] * 4


@pytest.mark.slow
def test_figures_are_pooled_and_rows_draw_for_themselves(processes):
    metrics = [process["mixture"][2] for process in processes]
    assert metrics[0] == metrics[1]
    drawn = sum("Correct solution" in text for process in processes for text in process["mixture"][0])
    assert metrics[0]["contexts/irrelevant_fraction"] == drawn / 8
    patterns = [["Correct solution" in text for text in process["mixture"][0]] for process in processes]
    assert patterns[0] != patterns[1]  # with the default seed: each row has random numbers of its own


@pytest.mark.slow
def test_both_warn_although_only_one_has_cause(processes):
    assert processes[0]["warnings"] == processes[1]["warnings"]
    assert "67% of the completions" in processes[0]["warnings"][0]
