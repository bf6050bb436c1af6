"""Records: what is written comes back, and what cannot be trusted is refused with its place."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from calibrated_sd.errors import DataError
from calibrated_sd.records import (
    SCHEMA_VERSION,
    CompletionRecord,
    append_jsonl,
    figure,
    prompt_sha256,
    read_completions,
    read_json,
    read_jsonl,
    repair_tail,
    write_json,
    write_jsonl,
)


def a_record(**changes):
    fields = {
        "suite": "heldout",
        "problem_id": "p1",
        "sample": 0,
        "prompt_sha256": prompt_sha256("2 + 2 ?"),
        "completion": "hmm , 4",
        "finish_reason": "stop",
        "n_tokens": 4,
        "correct": True,
        "markers": {"legacy": 1, "lexical": 1, "held_out": 0},
    }
    return CompletionRecord(**{**fields, **changes})


class TestRoundTrip:
    def test_records_come_back_as_dicts(self, tmp_path):
        path = write_jsonl(tmp_path / "completions.jsonl", [a_record(), a_record(sample=1, correct=None)])
        rows = read_completions(path)
        assert rows[0] == a_record().as_dict()
        assert rows[0]["schema_version"] == SCHEMA_VERSION
        assert next(iter(rows[0])) == "schema_version"
        assert (rows[0]["context"], rows[0]["arm"], rows[0]["seed"], rows[0]["step"]) == ("none", "base", 0, 0)
        assert rows[1]["correct"] is None

    def test_line_breaks_inside_text_do_not_break_lines(self, tmp_path):
        text = "a\nb\r\nc\u2028d\u0085e ∖ σ"
        path = write_jsonl(tmp_path / "c.jsonl", [a_record(completion=text), a_record(sample=1)])
        assert path.read_bytes().count(b"\n") == 2
        assert [row["completion"] for row in read_jsonl(path)] == [text, "hmm , 4"]

    def test_a_lone_surrogate_still_gives_a_utf8_file(self, tmp_path):
        path = write_jsonl(tmp_path / "c.jsonl", [{"text": "\ud800"}])
        path.read_text(encoding="utf-8")
        assert read_jsonl(path) == [{"text": "\ud800"}]

    def test_numbers_that_json_lacks_become_null_and_numpy_becomes_plain(self, tmp_path):
        path = write_json(tmp_path / "m.json", {"a": math.nan, "b": np.float32(0.5), "c": [np.int64(3), math.inf]})
        assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "c": [3, None]}
        assert read_json(path) == {"a": None, "b": 0.5, "c": [3, None]}

    def test_figure(self):
        assert figure(0.5, 0.25, math.inf, 12, "share", "by hand") == {
            "value": 0.5,
            "lo": 0.25,
            "hi": None,
            "n": 12,
            "unit": "share",
            "method": "by hand",
        }

    def test_prompt_hash_is_the_sha_of_the_text(self):
        assert prompt_sha256("π") == hashlib.sha256("π".encode()).hexdigest()
        one = prompt_sha256([{"role": "user", "content": "x"}])
        assert one == prompt_sha256([{"content": "x", "role": "user"}])
        assert one != prompt_sha256([{"role": "user", "content": "y"}])


class TestStrictReading:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"schema_version": 99}, "schema_version is 99"),
            ({"n_tokens": -1}, "n_tokens is -1"),
            ({"n_tokens": True}, "n_tokens is True"),
            ({"finish_reason": "tired"}, "finish_reason is 'tired'"),
            ({"correct": "yes"}, "correct is 'yes'"),
            ({"markers": {"legacy": 1}}, "held_out"),
            ({"problem_id": ""}, "problem_id"),
        ],
    )
    def test_a_bad_field_is_named_with_file_and_line(self, tmp_path, change, words):
        path = write_jsonl(tmp_path / "c.jsonl", [a_record().as_dict(), {**a_record(sample=1).as_dict(), **change}])
        with pytest.raises(DataError, match=words) as caught:
            read_completions(path)
        assert f"{path}, line 2" in str(caught.value)

    def test_a_missing_field(self, tmp_path):
        row = a_record().as_dict()
        del row["arm"]
        with pytest.raises(DataError, match="line 1: the field 'arm' is missing"):
            read_completions(write_jsonl(tmp_path / "c.jsonl", [row]))

    def test_a_record_with_a_bad_field_cannot_be_made(self):
        with pytest.raises(DataError, match="finish_reason"):
            a_record(finish_reason="eos")

    def test_the_same_sample_twice_is_refused(self, tmp_path):
        path = write_jsonl(tmp_path / "c.jsonl", [a_record(), a_record(sample=1), a_record()])
        with pytest.raises(DataError, match=r"line 3.*sample 0.*'p1'.*line 1"):
            read_completions(path)
        # the same sample of another arm, seed or step is another sample
        write_jsonl(path, [a_record(), a_record(arm="sdpo"), a_record(seed=1), a_record(step=4)])
        assert len(read_completions(path)) == 4

    def test_a_cut_off_last_line_names_the_line_and_the_cure(self, tmp_path):
        path = tmp_path / "c.jsonl"
        path.write_text('{"a": 1}\n\n{"a": 2, "te', encoding="utf-8")
        with pytest.raises(DataError, match=r"c\.jsonl, line 3: the last line is cut off.*--if-exists resume"):
            read_jsonl(path)

    def test_a_last_line_cut_inside_a_character(self, tmp_path):
        path = tmp_path / "c.jsonl"
        path.write_bytes('{"a": 1}\n{"a": "∖'.encode()[:-1])
        with pytest.raises(DataError, match="line 2: the last line is cut off"):
            read_jsonl(path)
        assert repair_tail(path) == len(b'{"a": "') + 2
        assert read_jsonl(path) == [{"a": 1}]

    def test_a_bad_line_in_the_middle(self, tmp_path):
        path = tmp_path / "c.jsonl"
        path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n', encoding="utf-8")
        with pytest.raises(DataError, match="line 2: not valid JSON"):
            read_jsonl(path)
        path.write_text("[1, 2]\n", encoding="utf-8")
        with pytest.raises(DataError, match="line 1: holds list"):
            read_jsonl(path)

    def test_missing_and_cut_off_json(self, tmp_path):
        with pytest.raises(DataError, match="There is no file"):
            read_jsonl(tmp_path / "absent.jsonl")
        (tmp_path / "m.json").write_text('{"a": 1,\n"b": ', encoding="utf-8")
        with pytest.raises(DataError, match=r"m\.json, line 2"):
            read_json(tmp_path / "m.json")
        write_json(tmp_path / "m.json", {"schema_version": 99})
        with pytest.raises(DataError, match="schema_version is 99"):
            read_json(tmp_path / "m.json")

    def test_other_programs_may_have_their_own_versions(self, tmp_path):
        path = write_jsonl(tmp_path / "c.jsonl", [{"schema_version": "2.0", "q": "?"}])
        with pytest.raises(DataError, match=r"schema_version is '2\.0'"):
            read_jsonl(path)
        assert read_jsonl(path, check_version=False) == [{"schema_version": "2.0", "q": "?"}]


class TestResumableFiles:
    def test_append_then_kill_then_repair_then_append(self, tmp_path):
        path = tmp_path / "sub" / "c.jsonl"
        append_jsonl(path, [a_record()])
        append_jsonl(path, [a_record(sample=1), a_record(sample=2)])
        whole = path.read_bytes()
        third = whole.rstrip(b"\n").rfind(b"\n") + 1  # where line 3 starts
        path.write_bytes(whole[: third + 10])  # killed inside the third line
        with pytest.raises(DataError, match="half-written"):
            append_jsonl(path, [a_record(sample=2)])
        assert path.read_bytes() == whole[: third + 10]
        assert repair_tail(path) == 10
        append_jsonl(path, [a_record(sample=2)])
        assert path.read_bytes() == whole

    def test_killed_just_before_the_newline_loses_nothing(self, tmp_path):
        path = tmp_path / "c.jsonl"
        append_jsonl(path, [a_record()])
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert repair_tail(path) == 0
        assert path.read_bytes() == whole

    def test_nothing_to_repair(self, tmp_path):
        assert repair_tail(tmp_path / "absent.jsonl") == 0
        path = write_jsonl(tmp_path / "c.jsonl", [a_record()])
        before = path.read_bytes()
        assert repair_tail(path) == 0
        assert path.read_bytes() == before

    def test_a_failed_write_leaves_the_old_file_and_no_rubbish(self, tmp_path):
        path = write_json(tmp_path / "m.json", {"a": 1})
        with pytest.raises(TypeError):
            write_json(path, {"a": object()})

        def rows():
            yield {"a": 2}
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_jsonl(path, rows())
        assert read_json(path) == {"a": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_reading_records_and_statistics_loads_no_torch():
    code = (
        "import sys, calibrated_sd.records, calibrated_sd.evaluation.statistics, calibrated_sd.evaluation.metrics;"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
