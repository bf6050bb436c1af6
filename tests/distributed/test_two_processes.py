"""Two gloo processes, one of which never has a demonstration: training ends, and the processes agree.

Everything runs in one launch, because starting two processes takes longer than all of their training.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from process_kit import resumes_on_cpus
from tiny_runs import QUIET

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
TESTS = HERE.parent
TIME_LIMIT = 300
"""Seconds after which a launch counts as hung."""

SETTINGS = {
    **{name: value for name, value in QUIET.items() if name != "seed"},
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 8,
    "max_steps": 2,
    "teacher_model_kind": "base",
    "distillation_mode": "full_logits",
    "distillation_alpha": 0.5,
}

ARMS = [
    "strength 0",
    "projection",
    "floor, active rows",
    "ema",
    "mixture of levels",
    "lora ema",
    "chunked",
    "chunked, head of its own",
    "chunked hybrid, head of its own",
    "chunked lora ema, checkpointed",
    "pass rate of a straddling group",
    "shaped advantages",
    "controller",
    "sdft, chunked",
    "self-teacher, head of its own",
]


@pytest.fixture(scope="module")
def processes(model_path, word_tokenizer, tmp_path_factory):
    """What each process saw."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("two_processes")
    untied = AutoModelForCausalLM.from_pretrained(model_path, tie_word_embeddings=False)
    untied.save_pretrained(folder / "untied")
    word_tokenizer.save_pretrained(folder / "untied")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(HERE / "two_processes.py"), str(folder), model_path, str(folder / "untied"), json.dumps(SETTINGS)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "CI": "1",
    }
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    assert finished.returncode == 0, finished.stderr[-5000:]
    return [json.loads((folder / f"process_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_training_ends_and_the_processes_agree(processes, arm):
    first, second = (process[arm] for process in processes)
    assert first["steps"] == 2
    assert first["moved"]
    assert first["losses"][0] != 0
    assert first == second  # weights and teacher bit for bit, dials, and every figure, because figures are pooled


@pytest.mark.slow
def test_no_arm_is_forgotten(processes):
    others = {"straight", "trl rollouts", "our rollouts"} | ({"resumed"} if resumes_on_cpus() else set())
    assert set(processes[0]) == set(ARMS) | others


@pytest.mark.slow
def test_chunked_begins_like_full(processes):
    """From one seed both draw the same rollouts; at the first step the floor is met and adds nothing."""
    first = {name: processes[0][name]["losses"][0] for name in ("chunked", "strength 0")}
    assert first["chunked"] == pytest.approx(first["strength 0"], rel=1e-5)


@pytest.mark.slow
def test_figures_are_pooled(processes):
    """Half of the rows have a demonstration; the strength is what was asked for; there are markers to count."""
    figures = processes[0]["projection"]["figures"]
    assert figures["self_distillation/reprompt_sample_fraction"] == 0.5
    assert figures["calibration/strength"] == 1.0
    assert figures["calibration/retention"] > 0
    assert figures["epistemic/per_response"] > 0


@pytest.mark.slow
def test_dials_have_seen_both_processes(processes):
    """The gate's warm-up measured the teacher's entropy on the process that has a teacher context; both know of it."""
    for process in processes:
        assert process["controller"]["dials"]["controller"]
        assert process["shaped advantages"]["dials"]["gate"]


@pytest.mark.slow
@pytest.mark.skipif(not resumes_on_cpus(), reason="this transformers cannot load an optimizer onto 'cpu:0'")
def test_a_run_that_is_stopped_between_two_steps_of_the_same_rollouts_goes_on(processes):
    for process in processes:
        assert process["resumed"]["steps"] == process["straight"]["steps"] == 4
        for name in ("losses", "weights", "teacher", "dials", "figures"):
            assert process["resumed"][name] == process["straight"][name], name
    assert processes[0]["straight"]["weights"] == processes[1]["straight"]["weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "whose",
    ["our rollouts", pytest.param("trl rollouts", marks=pytest.mark.xfail(strict=True, reason="one seed for all"))],
)
def test_a_group_over_two_processes_holds_different_rollouts(processes, whose):
    together = [tuple(ids) for process in processes for ids in process[whose]]
    assert len(set(together)) == len(together) == 4
