"""The archive of a study: what comes back is what went in, and equal runs give equal bytes."""

import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.errors import DataError
from calibrated_sd.records import CompletionRecord
from calibrated_sd.records.archive import ARCHIVE, ArchivedRun, Evaluation, read_archive, write_archive_file
from calibrated_sd.records.packing import pack_log, pack_records, unpack_log, unpack_records

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
COUNTS = st.integers(0, 5000)


@st.composite
def records(draw):
    return CompletionRecord(
        suite=draw(st.sampled_from(["train", "far"])),
        problem_id=draw(NAMES),
        sample=draw(st.integers(0, 3)),
        prompt_sha256="",
        completion="",
        finish_reason=draw(st.sampled_from(["stop", "length"])),
        n_tokens=draw(COUNTS),
        correct=draw(st.sampled_from([True, False, None])),
        markers={name: draw(COUNTS) for name in ("legacy", "lexical", "held_out")},
        context=draw(st.sampled_from(["none", "solution"])),
        arm=draw(st.sampled_from(["base", "sdpo"])),
        seed=draw(st.integers(0, 2)),
        step=draw(st.integers(0, 2)),
    ).as_dict()


def condition(row):
    return tuple(row[key] for key in ("arm", "seed", "step", "suite", "context"))


@settings(deadline=None, max_examples=60)
@given(st.lists(records(), max_size=12))
def test_every_record_comes_back_in_its_place_among_those_of_its_condition(rows):
    questions = {}
    blocks = json.loads(json.dumps(pack_records(rows, questions)))
    found = unpack_records(blocks, [json.loads(ids) for ids in questions])
    assert len(blocks) == len({condition(row) for row in rows})
    order = list(dict.fromkeys(map(condition, rows)))
    assert found == sorted(rows, key=lambda row: order.index(condition(row)))  # sorted is stable


def record(problem, sample, correct=True, n_tokens=7):
    return CompletionRecord(
        suite="far", problem_id=problem, sample=sample, prompt_sha256="ab", completion="wait", finish_reason="stop",
        n_tokens=n_tokens, correct=correct, markers={"legacy": 1, "lexical": 2, "held_out": 0},
    ).as_dict()  # fmt: skip


def test_samples_in_a_row_share_one_list_of_questions():
    questions = {}
    full = [record(problem, sample, correct=problem == "a") for problem in "ab" for sample in (0, 1)]
    (block,) = pack_records(full, questions)
    assert (block["problems"], block["sample"], block["correct"], block["finish_reason"]) == (0, 2, "1100", "ssss")
    (again,) = pack_records([record("a", 0, None), record("b", 0)], questions)
    assert (again["problems"], again["sample"], again["correct"]) == (0, 1, "-1")
    assert questions == {'["a", "b"]': 0}
    (gap,) = pack_records([record("a", 0), record("b", 1)], questions)  # a sample is missing: every index is said
    assert (gap["problems"], gap["sample"]) == (0, [0, 1])


def test_logs_are_kept_to_six_digits_and_what_a_line_lacks_stays_absent():
    lines = [{"step": 1, "loss": 0.123456789}, {"step": 2, "loss": 1234567.0, "reward": 1.0}]
    packed = pack_log(lines)
    assert packed == {"loss": [0.123457, 1234570.0], "reward": [None, 1.0], "step": [1, 2]}
    assert unpack_log(packed) == [{"loss": 0.123457, "step": 1}, {"loss": 1234570.0, "reward": 1.0, "step": 2}]


def run(name, rows):
    evaluation = Evaluation(rows, {"far": {"wait": 3, "hm": 1}})
    log = [{"step": 1, "loss": 0.5}]
    return ArchivedRun(name, "ok", {"seed": 0, "lr": 1e-5}, ["abc", False], 2.5, {"eval/step_0/x": evaluation}, log)


def test_equal_runs_give_equal_bytes_and_come_back(tmp_path):
    bare = [{**record(problem, 0), "completion": "", "prompt_sha256": ""} for problem in "ab"]
    runs = [run(f"arm{i}/seed_0", bare[: 1 + i % 2]) for i in range(6)]
    first = write_archive_file(tmp_path / ARCHIVE, runs).read_bytes()
    assert read_archive(tmp_path) == {r.name: r for r in runs}
    random.Random(0).shuffle(runs)
    assert write_archive_file(tmp_path / "other.gz", runs).read_bytes() == first
    assert write_archive_file(tmp_path / "third.gz", read_archive(tmp_path).values()).read_bytes() == first
    assert b"wait" not in gzip.decompress(first).replace(b'"wait":3', b"")  # no text but counted words


def test_a_folder_without_an_archive_has_no_archived_runs(tmp_path):
    assert read_archive(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:-20], "cannot be read"),
        (lambda raw: b"no archive", "cannot be read"),
        (lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"schema_version":1', b'"schema_version":9')), "is 9"),
        (
            lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"correct":"1"', b'"correct":"11"')),
            "different leng",
        ),
        (lambda raw: gzip.compress(gzip.decompress(raw).replace(b'"problems":0', b'"problems":5')), "cannot be read"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path, change, message):
    path = write_archive_file(tmp_path / ARCHIVE, [run("a/seed_0", [record("a", 0)])])
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    with pytest.raises(DataError, match=message):
        read_archive(tmp_path)
