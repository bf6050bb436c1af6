"""Counts the cases that Hypothesis has tried, by file of the campaign, and bounds the memory of each test."""

import pytest
from fuzzing import TRIED

from counted import COUNTED
from process_limits import soft_limit

MEMORY = 12 * 2**30
"""Bytes. A setting that makes a list of its own size is then a MemoryError with its case, not a killed process."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if not item.path.stem.startswith("fuzz_"):
        return (yield)
    before = TRIED.total()
    try:
        with soft_limit("RLIMIT_AS", MEMORY):  # for the test alone: a browser started under it dies
            return (yield)
    finally:
        if TRIED.total() > before:
            item.user_properties.append((COUNTED, [f"bad input, {item.path.stem}", TRIED.total() - before]))
