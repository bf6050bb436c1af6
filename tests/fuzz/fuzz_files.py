"""Any bytes as a file, any mapping as a recipe or a row: read, or refused in one paragraph."""

import gzip
import json

import pytest
import yaml
from fuzzing import allowed, anything, fuzz, text
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.calibrators.controller import build_controller
from calibrated_sd.contexts.levels import parse_levels
from calibrated_sd.data.preparing import prepare_rows
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.lm_eval import read_lm_eval
from calibrated_sd.evaluation.problem_files import iter_rows
from calibrated_sd.experiments.archive import stored_runs
from calibrated_sd.markers.lexicon import parse
from calibrated_sd.records import read_completions, read_json, read_jsonl, repair_tail
from calibrated_sd.reports.published.listing import load_listing

garbage = st.binary(max_size=200) | text.map(lambda t: t.encode("utf-8", "surrogatepass"))
rows = st.lists(anything, max_size=4).map(lambda items: "\n".join(map(json.dumps, items)).encode("utf-8", "replace"))

deep = st.builds(
    lambda depth, start, inside: (start * depth + inside).encode(),
    st.sampled_from([200, 900, 5000, 100_000]),
    st.sampled_from(["[", '{"a":', '{"a": [']),
    st.sampled_from(["", "\n", "1"]),
) | st.sampled_from([200, 900, 5000, 100_000]).map(lambda depth: b'{"a": ' + b"[" * depth + b"]" * depth + b"}\n")


@fuzz
@given(garbage | rows | deep, st.sampled_from([".jsonl", ".json", ".csv", ".parquet"]))
def test_problem_files(tmp_path, data, ending):
    path = tmp_path / f"problems{ending}"
    path.write_bytes(data)
    allowed(lambda: list(iter_rows(path)))


@fuzz
@given(garbage | rows | deep)
def test_records(tmp_path, data):
    path = tmp_path / "completions.jsonl"
    path.write_bytes(data)
    for read in (read_jsonl, read_completions, read_json, read_lm_eval):
        allowed(read, path)
    before = path.read_bytes()
    allowed(repair_tail, path)
    assert before.startswith(
        path.read_bytes().removesuffix(b"\n")
    )  # a repair takes a torn tail away, or ends the last line


@fuzz
@given(garbage | deep.map(gzip.compress))
def test_archives(tmp_path, data):
    (tmp_path / "archive.json.gz").write_bytes(data)
    allowed(stored_runs, tmp_path)


@fuzz
@given(text | anything.map(lambda value: yaml.safe_dump(value)))
def test_marker_sets(written):
    allowed(parse, written, "set.yaml")


@fuzz
@given(st.dictionaries(st.sampled_from(["pages", "tables", "figures", "headline"]) | text, anything, max_size=4))
def test_listings(tmp_path, raw):
    (tmp_path / "published.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    allowed(load_listing, tmp_path)


@fuzz
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["prompt", "answer", "solution", "level", "id"]) | text, anything, max_size=5),
        max_size=4,
    )
)
def test_rows_of_a_data_set(tmp_path, given_rows):
    found = allowed(prepare_rows, given_rows, tmp_path / "x.jsonl", name="x")
    if found is not None:
        for row in found[0] if isinstance(found, tuple) else found.problems:
            assert row["prompt"]
            assert row["answer"] is not None


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000 + b"\n", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"]
)
def test_nesting_without_end(tmp_path, data):
    for ending, readers in {
        ".jsonl": (iter_rows, read_jsonl, read_completions, read_lm_eval),
        ".json": (iter_rows, read_json),
    }.items():
        path = tmp_path / f"x{ending}"
        path.write_bytes(data)
        for read in readers:
            with pytest.raises(DataError, match="recursion"):
                list(read(path))
    text = data.decode()
    for read in (lambda spec: build_controller(spec, 1.0), parse_levels):
        with pytest.raises(ConfigError):
            read(text)
