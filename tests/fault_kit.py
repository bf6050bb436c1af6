"""What faults are made of: a disk that fills up, a limit on file sizes, a command whose error is looked at."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from process_limits import soft_limit
from tiny_runs import NUMBERS, QUIET

TIMES = ("time", "_per_second", "flos")
"""Parts of the names of logged figures that no two runs have in common."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and what it wrote to the error stream, in one line."""

    code: int
    said: str

    @property
    def error(self) -> str:
        """The error's paragraph."""
        return re.split(r"(?:^| )Error: ", self.said)[-1]

    def refused(self, *parts: object) -> None:
        """One paragraph with these parts, exit code 2, no traceback."""
        assert self.code == 2, self.said[-2000:]
        assert "Traceback" not in self.said, self.said
        assert len(re.findall(r"(?:^| )Error: ", self.said)) == 1
        squeezed = self.error.replace(" ", "")  # the terminal's width breaks long paths
        for part in parts:
            assert str(part).replace(" ", "") in squeezed, f"{part} is not in: {self.error}"


def run_csd(capsys: Any, *words: object) -> Outcome:
    """`csd WORDS` in this process, which has loaded what takes seconds."""
    from calibrated_sd.cli.main import main

    before, argv, code = signal.getsignal(signal.SIGTERM), sys.argv, 0
    capsys.readouterr()
    sys.argv = ["csd", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, before)
    return Outcome(code, " ".join(capsys.readouterr().err.split()))


@dataclass(frozen=True)
class Disk:
    """A file system in memory whose size can be changed."""

    path: Path

    def __post_init__(self) -> None:
        (self.path / "filler").write_bytes(b"x" * 4096)  # a size of 0 would mean no limit

    def leave(self, kib: int) -> None:
        """Let it have so much room and no more."""
        state = os.statvfs(self.path)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
        subprocess.run(["mount", "-o", f"remount,size={used + kib}k", str(self.path)], check=True)

    def grow(self) -> None:
        """Make room."""
        subprocess.run(["mount", "-o", "remount,size=64m", str(self.path)], check=True)


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path | None]:
    """Mount something at a folder; None where that is not permitted."""
    path.mkdir(parents=True, exist_ok=True)
    done = shutil.which("mount") and subprocess.run(["mount", *options, str(path)], capture_output=True, check=False)
    if not done or done.returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)  # lazily: this process holds locks of its folders


def largest_file(size: int) -> contextlib.AbstractContextManager[None]:
    """No file may grow beyond so many bytes: a refused write that needs no rights."""
    return soft_limit("RLIMIT_FSIZE", size)


def train_recipe(folder: Path, model_path: str, **changes: Any) -> Path:
    """The recipe of a run of three steps on the tiny model, a checkpoint after each."""
    problems = folder / "problems.jsonl"
    rows = [{"prompt": f"question {number} plus two equals", "answer": number} for number in NUMBERS]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        **{"model": model_path, "problems": str(problems), "distillation_mode": "full_logits"},
        **{"distillation_alpha": 0.5, "teacher_model_kind": "ema", "calibration_method": "mix_to_floor"},
        **{
            "reward": "tiny_runs:even_first_token",
            "calibration_strength": 1.0,
            "num_generations": 4,
            "per_device_train_batch_size": 8,
        },
        **{"max_completion_length": 12, "max_steps": 3, **QUIET, "save_strategy": "steps", "save_steps": 1},
        **{"output_dir": "unused", **changes},
    }
    path = folder / "train.yaml"
    path.write_text("# A tiny run\n" + yaml.safe_dump(settings), encoding="utf-8")
    return path


def straight_run(folder: Path, model_path: str) -> tuple[Path, Path]:
    """A run without faults: its recipe and its folder."""
    from typer.testing import CliRunner

    from calibrated_sd.cli.main import app

    recipe = train_recipe(folder, model_path)
    done = CliRunner().invoke(app, ["train", "--config", str(recipe), "--output", str(folder / "out")])
    assert done.exit_code == 0, done.output
    return recipe, folder / "out"


def cut(path: Path, share: float) -> None:
    """Keep that share of a file, and never all of it: JSON without its last newline is whole."""
    data = path.read_bytes()
    path.write_bytes(data[: min(int(share * len(data)), len(data) - 2)])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def trained(folder: Path) -> Any:
    """Every logged figure of every step, once each and in order, and the weights."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [{k: v for k, v in line.items() if not any(w in k for w in TIMES)} for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    return steps, digest(folder / "model" / "model.safetensors")


def whole_json(folder: Path, cut_state: bool = False) -> None:
    """Every JSON and JSON-lines file of ours below a folder can be read; nothing temporary was left.

    `cut_state` passes over trainer_state.json, which transformers writes in place, last: a disk that fills up just then
    cuts it off.
    """
    for path in folder.rglob("*"):
        assert path.suffix not in (".tmp", ".unfinished"), path
        unfinished = path.parent.name.startswith("checkpoint-") and not (path.parent / "trainer_state.json").exists()
        excused = unfinished or (cut_state and path.name == "trainer_state.json")
        if path.suffix == ".json" and not excused:
            json.loads(path.read_text(encoding="utf-8"))
        if path.suffix == ".jsonl":
            text = path.read_text(encoding="utf-8")
            assert not text or text.endswith("\n")
            [json.loads(line) for line in text.splitlines()]
