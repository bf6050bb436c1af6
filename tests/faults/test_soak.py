"""A long run stays what it was: memory flat, step time flat, no file left open.

The suite trains for a minute. The campaign is a run of the organism's recipe as users run it:
`CSD_SOAK_STEPS=500 pytest -s -m study tests/faults/test_soak.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress, theilslopes

STEPS = int(os.environ.get("CSD_SOAK_STEPS", "500"))
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


def watch(arguments: list[str], output: Path) -> dict[str, np.ndarray]:
    """Run `csd train` and read its memory (MiB), open files and step times (s) from outside, once per logged step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "calibrated_sd.cli.main", "train", *arguments, "--logging_steps", "1", "--output", str(output)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    folder, log = Path(f"/proc/{process.pid}"), output / "train.jsonl"
    step, memory, files, seen_at = [], [], [], []
    while process.poll() is None:
        time.sleep(0.05)
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        done = sum('"loss"' in line for line in text.splitlines())
        if step and done == step[-1]:
            continue
        try:
            resident = int((folder / "statm").read_text().split()[1]) * PAGE_MIB
            handles = len(list((folder / "fd").iterdir()))
        except (OSError, IndexError):
            break  # it has just ended
        for values, value in zip(
            (step, memory, files, seen_at), (done, resident, handles, time.monotonic()), strict=True
        ):
            values.append(value)
    _, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    assert len(step) > 2, "no step was seen"
    seconds = np.diff(seen_at) / np.diff(step)
    return {"step": np.array(step), "memory": np.array(memory), "files": np.array(files), "seconds": seconds}


def settled(seen: dict[str, np.ndarray], share: float) -> dict[str, float]:
    """What grows after the first `share` of the run, in which caches fill."""
    late = seen["step"] >= share * seen["step"][-1]
    times = seen["seconds"][int(share * len(seen["seconds"])) :]
    memory = linregress(seen["step"][late], seen["memory"][late])
    # Theil-Sen: another program that takes the core for a while is no trend.
    seconds, _, low, high = theilslopes(times, np.arange(len(times)))
    return {
        "steps": int(seen["step"][-1]),
        "memory_mib_per_step": memory.slope,
        "memory_standard_error": memory.stderr,
        "memory_mib": float(seen["memory"][late].mean()),
        "open_files_more": float(seen["files"][late][-3:].mean() - seen["files"][late][:3].mean()),
        "step_time_s": float(np.median(times)),
        "step_time_growth_per_step": seconds / np.median(times),
        "step_time_growth_low": low / np.median(times),
        "step_time_growth_high": high / np.median(times),
    }


SMALL = ["--n_problems", "16", "--per_device_train_batch_size", "16"]
TINY = ["--n_problems", "4", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"]
TINY += ["--num_generations", "4", "--max_completion_length", "48", "--max_steps", "40", "--save_steps", "20"]


@pytest.mark.slow
def test_a_short_run_leaks_nothing(tmp_path):
    found = settled(watch(["--config", "organism/hybrid_mix_to_floor", *TINY], tmp_path / "out"), share=0.5)
    assert found["steps"] >= 39  # the last may end with the process
    assert found["memory_mib_per_step"] < 1.0  # one batch's logits, kept, would be 0.5 MiB and more
    assert found["open_files_more"] <= 1


@pytest.mark.study
def test_a_long_run_leaks_nothing(tmp_path):
    more = [*SMALL, "--max_steps", str(STEPS), "--save_steps", "50"]
    found = settled(watch(["--config", "organism/hybrid_mix_to_floor", *more], tmp_path / "out"), share=0.2)
    print(json.dumps(found, indent=1))
    assert found["steps"] >= STEPS - 1
    assert found["memory_mib_per_step"] < 0.05  # 25 MiB in 500 steps
    assert found["open_files_more"] <= 1
    assert found["step_time_growth_per_step"] < 2e-4  # a tenth in 500 steps
