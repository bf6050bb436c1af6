"""What takes the place of a training job in tests of those who start jobs."""

WORKER = """
import sys, time
from pathlib import Path
from calibrated_sd.experiments.runner import OK, set_status
from calibrated_sd.records import read_json
folder = Path(sys.argv[-1])
what = read_json(folder / "run.json")["recipe"]["do"]
if what == "crash":
    sys.exit(3)
if what == "wait":
    time.sleep(60)
(folder / "made.txt").open("a").write("x")
set_status(folder, OK)
"""

SWEEP_WORKER = """
import sys
from pathlib import Path
from calibrated_sd.experiments.runner import FAILED, OK, set_status
from calibrated_sd.organism.suites import SUITES, suite_problems
from calibrated_sd.records import CompletionRecord, read_json, write_jsonl

folder = Path(sys.argv[-1])
recipe = read_json(folder / "run.json")["recipe"]
if (folder.parents[2] / "broken").exists() and "mixture" in recipe["arm"]:
    set_status(folder, FAILED, error="RuntimeError: the sun went out")
    print("Traceback: the sun went out")
    sys.exit(1)
with open(folder / "made.txt", "a") as file:
    file.write("x")
strength = recipe.get("trainer", {}).get("calibration_strength", 0.0)
level = 1.0 if recipe["arm"] == "base" else 0.2 + 0.7 * min(1.0, strength)
records = []
for suite in SUITES:
    for i, problem in enumerate(suite_problems(suite, recipe["eval_problems"])):
        records.append(CompletionRecord(
            suite=suite, problem_id=problem.problem_id, sample=0, prompt_sha256="0" * 64, completion="x", finish_reason="stop",
            n_tokens=100, correct=i % 10 < 8 * level, markers=dict(legacy=8, lexical=round(10 * level), held_out=1),
            arm=recipe["arm"], seed=recipe["seed"], step=recipe.get("steps", 0)))
write_jsonl(folder / "eval" / f"step_{recipe.get('steps', 0)}" / "completions.jsonl", records)
set_status(folder, OK)
"""
"""The same for the jobs of a sweep: it makes up completions of every suite."""
