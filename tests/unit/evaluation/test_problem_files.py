"""Rows of files, one at a time, and what cannot be read."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from calibrated_sd.errors import DataError
from calibrated_sd.evaluation.problem_files import iter_rows

ROW = {"question": "1 + 1?", "answer": "2"}


def test_zipped_lines_and_wrapped_rows(tmp_path):
    file = tmp_path / "requests.jsonl.gz"
    with gzip.open(file, "wt") as out:
        out.write(json.dumps({"doc": ROW, "idx": 0}) + "\n\n" + json.dumps({**ROW, "doc": "a text"}) + "\n")
    assert list(iter_rows(file)) == [ROW, {**ROW, "doc": "a text"}]


def test_rows_are_read_one_at_a_time(tmp_path):
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + '{"question": ')
    rows = iter_rows(file)
    assert next(rows) == ROW  # before the broken line is reached
    with pytest.raises(DataError, match=r"long\.jsonl, line 2: cannot be read"):
        next(rows)


def test_parquet_lists_stay_lists(tmp_path):
    file = tmp_path / "x.parquet"
    chat = [{"role": "user", "content": "1 + 1?"}]
    pd.DataFrame([{"prompt": chat, "level": None}, {"prompt": chat, "level": 2.0}]).to_parquet(file)
    assert list(iter_rows(file)) == [{"prompt": chat, "level": None}, {"prompt": chat, "level": 2.0}]


def test_csv_with_a_byte_order_mark_and_ragged_rows(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("\ufeffquestion,answer\n1 + 1?,2,too much\n2 + 2?\n", encoding="utf-8")
    assert list(iter_rows(file)) == [ROW, {"question": "2 + 2?", "answer": None}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl.gz", b"no zip", r"line 0: cannot be read"),
        ("x.jsonl", b"[1]\n", r"line 1: holds list"),
        ("x.json", b'{"a": 1}', "must hold a list"),
        ("x.json", b"{", "not valid JSON"),
        ("x.csv", "frage\nü\n".encode("latin-1"), "UTF-8"),
        ("x.parquet", b"PAR1", "cannot be read"),
        ("x.txt", b"", "not a problem file"),
    ],
)
def test_broken_files(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(iter_rows(tmp_path / name))
