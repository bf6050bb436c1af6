"""Coverage subsets: sizes, repeats, the errors; that they are nested is a property test."""

from __future__ import annotations

from collections import Counter

import pytest

from calibrated_sd.data.coverage import coverage_subsets, parse_sizes, subset_name
from calibrated_sd.errors import ConfigError

PROBLEMS = [{"problem_id": f"p{i}"} for i in range(100)]


def ids(rows):
    return [row["problem_id"] for row in rows]


def test_names_and_row_counts_of_the_paper():
    subsets = coverage_subsets(PROBLEMS, [1, 8, 64, None], rows=64, seed=0)
    assert {name: len(rows) for name, rows in subsets.items()} == {"1x64": 64, "8x8": 64, "64": 64, "full": 100}
    assert set(Counter(ids(subsets["8x8"])).values()) == {8}
    assert len(set(ids(subsets["1x64"]))) == 1


def test_without_repeats():
    subsets = coverage_subsets(PROBLEMS, [1, 8], rows=1, seed=0)
    assert {name: len(rows) for name, rows in subsets.items()} == {"1": 1, "8": 8}


def test_the_seed_decides():
    def first(seed):
        return ids(coverage_subsets(PROBLEMS, [8], rows=8, seed=seed)["8"])

    assert first(0) == first(0)
    assert len({tuple(first(seed)) for seed in range(5)}) == 5


def test_sizes():
    assert parse_sizes("64, 8,full,1,8") == [1, 8, 64, None]
    assert subset_name(5, 5) == "5"
    for bad in ("0", "-1", "8;64", "all"):
        with pytest.raises(ConfigError, match="--sizes holds"):
            parse_sizes(bad)
    with pytest.raises(ConfigError, match="names no size"):
        parse_sizes(" ,")


def test_impossible_subsets():
    with pytest.raises(ConfigError, match="only 100 different ones"):
        coverage_subsets(PROBLEMS, [128], rows=64, seed=0)
    with pytest.raises(ConfigError, match=r"5 problems cannot be repeated to exactly 64 rows.*multiple of 5"):
        coverage_subsets(PROBLEMS, [5], rows=64, seed=0)
    with pytest.raises(ConfigError, match="--rows must be at least 1"):
        coverage_subsets(PROBLEMS, [5], rows=0, seed=0)
