"""Provenance: states what it knows, says "unknown" for the rest, and never gets in the way."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys

import pytest

from calibrated_sd.experiments import provenance as module
from calibrated_sd.experiments.provenance import code_state, hardware, model_sha256, package_versions, provenance


@pytest.fixture(autouse=True)
def forget():
    code_state.cache_clear()
    yield
    code_state.cache_clear()


def test_the_block():
    block = provenance(command="csd evaluate", seed=3, wall_time_s=1.23456)
    assert set(block) == {
        *("commit", "dirty", "versions", "python", "hardware", "marker_set_hash"),
        *("recipe_hash", "model_sha256", "seed", "wall_time_s", "command"),
    }
    assert (block["seed"], block["wall_time_s"], block["command"]) == (3, 1.23, "csd evaluate")
    assert (block["recipe_hash"], block["model_sha256"]) == (None, None)
    assert block["python"] == platform.python_version()
    assert set(block["marker_set_hash"]) == {"legacy", "lexical", "held_out"}
    assert len(set(block["marker_set_hash"].values())) == 3
    assert json.loads(json.dumps(block)) == block


def test_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state() == ("unknown", "unknown")
    assert provenance()["commit"] == "unknown"


def test_git_that_hangs_or_fails(monkeypatch):
    def hang(*args, **kwargs):
        raise subprocess.TimeoutExpired("git", 20)

    monkeypatch.setattr(module.subprocess, "run", hang)
    assert code_state() == ("unknown", "unknown")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with a copy of the module in it, not yet committed."""
    if subprocess.run(["git", "--version"], capture_output=True).returncode:
        pytest.skip("git is not installed")
    copy = tmp_path / "venv" / "provenance.py"
    copy.parent.mkdir()
    copy.write_text("x = 1\n")
    (tmp_path / "theirs.py").write_text("")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    git("init", "-q")
    git("add", "theirs.py")
    git("commit", "-qm", "theirs")
    monkeypatch.setattr(module, "_HERE", copy)
    return git, copy


def test_the_commit_of_the_own_checkout(repository):
    git, copy = repository
    git("add", "-A")
    git("commit", "-qm", "ours")
    assert code_state() == (git("rev-parse", "HEAD"), False)
    code_state.cache_clear()
    copy.write_text("x = 2\n")
    assert code_state() == (git("rev-parse", "HEAD"), True)


def test_a_foreign_repository_around_an_installed_copy_is_not_ours(repository):
    assert code_state() == ("unknown", "unknown")


def test_versions_come_without_imports():
    versions = package_versions()
    import scipy

    assert versions["scipy"] == scipy.__version__
    assert versions["calibrated-sd"][0].isdigit()
    code = (
        "import sys; from calibrated_sd.experiments.provenance import provenance; block = provenance();"
        "print([m for m in ('torch', 'transformers', 'trl') if m in sys.modules], block['hardware']['gpus'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] unknown"


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("calibrated-sd", "no-such-package-anywhere"))
    assert package_versions()["no-such-package-anywhere"] == "not installed"


def test_hardware():
    block = hardware()
    assert block["cores"] >= 1
    assert block["cpu"]
    assert block["memory_gb"] == "unknown" or block["memory_gb"] > 0.1


def test_model_hash_follows_weights_and_configuration(tmp_path):
    assert model_sha256(tmp_path / "absent") == "unknown"
    (tmp_path / "config.json").write_text("{}")
    assert model_sha256(tmp_path) == "unknown"  # no weights
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = model_sha256(tmp_path)
    lines = "".join(
        f"{name}:{hashlib.sha256(data).hexdigest()}\n"
        for name, data in (("config.json", b"{}"), ("model.safetensors", b"weights"))
    )
    assert first == hashlib.sha256(lines.encode()).hexdigest()
    (tmp_path / "README.md").write_text("notes do not count")
    assert model_sha256(tmp_path) == first
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert model_sha256(tmp_path) != first


def test_recipe_hash(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"a: 1\n")
    assert provenance(recipe_path=tmp_path / "r.yaml")["recipe_hash"] == hashlib.sha256(b"a: 1\n").hexdigest()
    assert provenance(recipe_path=tmp_path / "absent.yaml")["recipe_hash"] == "unknown"


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/csd", "evaluate", "--output", "my folder"])
    assert provenance()["command"] == "csd evaluate --output 'my folder'"
