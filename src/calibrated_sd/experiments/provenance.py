"""Where a number comes from: code, libraries, machine, weights, command. No torch, and it never fails.

Whatever cannot be found out is stated as ``"unknown"``, never left out or guessed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

UNKNOWN = "unknown"
PACKAGES = (
    "calibrated-sd",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "tokenizers",
    "numpy",
    "scipy",
    "pandas",
    "vllm",
)
"""Libraries whose version can change a result."""
_HERE = Path(__file__).resolve()


def provenance(
    *,
    command: str | None = None,
    seed: int | None = None,
    model_path: str | os.PathLike[str] | None = None,
    recipe_path: str | os.PathLike[str] | None = None,
    wall_time_s: float | None = None,
    marker_sets: Sequence[str] = ("legacy", "lexical", "held_out"),
) -> dict[str, Any]:
    """The provenance block of ``manifest.json``, ``metrics.json`` and ``claims.json``.

    Args:
        command: what was run; the present command line if None.
        seed: seed of the run.
        model_path: folder of the weights, to be hashed; None where no model took part.
        recipe_path: recipe file, to be hashed.
        wall_time_s: duration in seconds.
        marker_sets: names whose hash is stated.

    Returns:
        ``{commit, dirty, versions, python, hardware, marker_set_hash, recipe_hash, model_sha256, seed, wall_time_s,
        command}``; None where something does not apply, ``"unknown"`` where it could not be found out.
    """
    commit, dirty = code_state()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": package_versions(),
        "python": platform.python_version(),
        "hardware": hardware(),
        "marker_set_hash": {name: _marker_hash(name) for name in marker_sets},
        "recipe_hash": None if recipe_path is None else _file_sha256(Path(recipe_path)),
        "model_sha256": None if model_path is None else model_sha256(model_path),
        "seed": seed,
        "wall_time_s": None if wall_time_s is None else round(wall_time_s, 2),
        "command": command_line() if command is None else command,
    }


@lru_cache
def code_state() -> tuple[str, bool | str]:
    """(commit, dirty) of this package's own checkout; ``"unknown"`` when it was installed without one.

    An installed copy may lie inside *another* project's repository (a virtual environment in it), whose commit says
    nothing about this code. So this very file has to be under version control there.
    """
    if _git("ls-files", "--error-unmatch", "--", str(_HERE)) is None:
        return UNKNOWN, UNKNOWN
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return commit or UNKNOWN, UNKNOWN if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_HERE.parent), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Installed version of each library in ``PACKAGES``; ``"not installed"`` otherwise. Imports none of them."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    if versions["calibrated-sd"] == "not installed":  # run from a checkout
        from calibrated_sd import __version__

        versions["calibrated-sd"] = __version__
    return versions


def hardware() -> dict[str, Any]:
    """``{cpu, cores, memory_gb, gpus, system}``: cores are those this process may use, memory in GB (10⁹ bytes).

    GPUs are listed if torch has been imported already; otherwise they are ``"unknown"``, because importing torch only
    to ask would cost seconds.
    """
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or UNKNOWN,
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.machine()}".strip() or UNKNOWN,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or UNKNOWN


def _memory_gb() -> float | str:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return UNKNOWN


def _gpus() -> list[str] | str:
    torch = sys.modules.get("torch")
    if torch is None:
        return UNKNOWN
    try:
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    except Exception:  # a driver problem must not cost a finished run its record
        return UNKNOWN


def model_sha256(folder: str | os.PathLike[str]) -> str:
    """One hash for a model's weights and configuration; ``"unknown"`` where there are no weight files (a Hub id)."""
    folder = Path(folder)
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin") or p.name == "config.json")
        if not any(p.suffix != ".json" for p in files):
            return UNKNOWN
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name}:{_file_sha256(file)}\n".encode())
        return digest.hexdigest()
    except OSError:
        return UNKNOWN


def _file_sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return UNKNOWN


def _marker_hash(name: str) -> str:
    try:
        from calibrated_sd.markers import MarkerSet

        return MarkerSet.load(name).hash
    except Exception:  # an unreadable set is reported where it is used
        return UNKNOWN


def command_line() -> str:
    """The present command as it could be typed again, with the program's name instead of its path."""
    return shlex.join([Path(sys.argv[0] or "python").name, *sys.argv[1:]])
