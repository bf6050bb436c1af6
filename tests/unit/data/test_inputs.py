"""Where rows come from: names and files, the hub at one commit, a generator."""

from __future__ import annotations

import json
import sys

import pytest

from calibrated_sd.data.generated import gsm_symbolic_rows
from calibrated_sd.data.hub import wanted_revision
from calibrated_sd.data.inputs import choose, open_input
from calibrated_sd.data.sources import find_source
from calibrated_sd.errors import ConfigError, DataError

PINNED = find_source("math500").revision
OTHER = "0" * 40


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the hub's download function: one test.jsonl per commit. Returns the calls made."""
    import huggingface_hub

    calls = []

    def snapshot_download(repo_id, *, repo_type, revision, allow_patterns):
        calls.append((repo_id, repo_type, revision, allow_patterns))
        folder = tmp_path / "snapshots" / (revision or OTHER)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.jsonl").write_text(json.dumps({"problem": "1 + 1?", "solution": r"\boxed{2}"}) + "\n")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


class TestHub:
    def test_the_pinned_commit_is_asked_for_and_recorded(self, hub):
        given = open_input(choose("math500"))
        assert hub == [("HuggingFaceH4/MATH-500", "dataset", PINNED, ["test.jsonl"])]
        assert given.described["revision"] == PINNED
        assert [file["name"] for file in given.described["files"]] == ["test.jsonl"]
        assert len(given.described["files"][0]["sha256"]) == 64
        assert [row["problem"] for row in given.rows] == ["1 + 1?"]

    def test_another_commit_only_if_asked_for(self, hub):
        recorded = {"source": {"revision": OTHER}}
        with pytest.raises(ConfigError, match=f"revision {OTHER}, and now would be from {PINNED}.*--revision"):
            open_input(choose("math500"), recorded=recorded)
        assert hub == []
        assert open_input(choose("math500"), recorded=recorded, revision=OTHER).described["revision"] == OTHER

    def test_a_source_without_a_commit_keeps_its_first(self):
        import dataclasses

        unpinned = dataclasses.replace(find_source("math500"), revision=None)
        assert wanted_revision(unpinned, None, None) is None
        assert wanted_revision(unpinned, None, {"revision": OTHER}) == OTHER
        assert wanted_revision(unpinned, PINNED, {"revision": OTHER}) == PINNED

    def test_no_network_names_the_way_out(self, monkeypatch):
        import huggingface_hub

        def unreachable(*_, **__):
            raise ConnectionError("no route to host")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
        with pytest.raises(DataError, match=r"no route to host.*csd data prepare math500 --source-file FILE"):
            open_input(choose("math500"))

    def test_no_such_file_there(self, hub):
        with pytest.raises(DataError, match=r"none of the files main/test-\*\.parquet"):
            open_input(choose("gsm8k"))


class TestChoice:
    def test_a_file_called_like_a_source_is_read_as_it(self, tmp_path):
        file = tmp_path / "math500.jsonl"
        file.write_text("{}")
        chosen = choose(str(file))
        assert (chosen.name, chosen.source, chosen.files) == ("math500", find_source("math500"), (file,))
        other = tmp_path / "mine.v2.jsonl"
        other.write_text("{}")
        assert (choose(str(other)).name, choose(str(other)).source) == ("mine", None)

    def test_a_prepared_file_is_called_like_its_folder(self, tmp_path):
        file = tmp_path / "aime24" / "problems.jsonl"
        file.parent.mkdir()
        file.write_text("{}")
        assert choose(str(file), name="again").source == find_source("aime24")
        assert choose(str(file)).name == "aime24"

    def test_mistakes(self, tmp_path):
        with pytest.raises(ConfigError, match="Did you mean 'gsm8k'"):
            choose("gsm8")
        with pytest.raises(DataError, match=r"no problem file .*absent\.csv"):
            choose(str(tmp_path / "absent.csv"))
        with pytest.raises(DataError, match=r"no problem file .*absent\.csv"):
            choose("aime24", [tmp_path / "absent.csv"])
        with pytest.raises(ConfigError, match="cannot be a folder's name"):
            choose("aime24", name="../elsewhere")
        with pytest.raises(ConfigError, match="nothing is downloaded here"):
            open_input(choose("gsm-symbolic"), revision=OTHER)


class TestGenerated:
    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "reasoning_gym", None)
        with pytest.raises(ConfigError, match=r"reasoning-gym.*calibrated-sd\[real\]"):
            gsm_symbolic_rows(3)

    def test_worked_solutions(self):
        pytest.importorskip("reasoning_gym", reason="the generator is an optional dependency")
        rows = list(gsm_symbolic_rows(40, seed=0))
        assert rows == list(gsm_symbolic_rows(40, seed=0)) != list(gsm_symbolic_rows(40, seed=1))
        answered = [row for row in rows if row["answer"] is not None]
        assert len(answered) >= 35
        assert all(row["solution"].endswith(f"The answer is \\boxed{{{row['answer']}}}.") for row in answered)
        assert all("####" not in row["solution"] and "<<" not in row["solution"] for row in answered)

    def test_a_contradiction_has_no_answer(self, monkeypatch):
        class Package:
            @staticmethod
            def create_dataset(name, size, seed):
                return [
                    {"question": "q", "answer": "8", "metadata": {"answer_cot": "4 * 2 = 8\n#### 8.0"}},
                    {"question": "r", "answer": "8", "metadata": {"answer_cot": "4 * 2 = 9\n#### 9"}},
                ]

        monkeypatch.setitem(sys.modules, "reasoning_gym", Package)
        assert [row["answer"] for row in gsm_symbolic_rows(2)] == ["8", None]
