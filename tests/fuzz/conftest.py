"""Counts the cases that Hypothesis has tried, by file of the campaign, and bounds the memory of each test."""

import contextlib
import resource

import pytest
from fuzzing import TRIED

from counted import COUNTED

MEMORY = 12 * 2**30


@contextlib.contextmanager
def bounded_memory():
    """A setting that makes a list of its own size is then a MemoryError with its case, not a killed process.

    Undone afterwards: the rest of the suite shares the process, and a browser started under the bound dies.
    """
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if not item.path.stem.startswith("fuzz_"):
        return (yield)
    before = TRIED.total()
    try:
        with bounded_memory():
            return (yield)
    finally:
        if TRIED.total() > before:
            item.user_properties.append((COUNTED, [f"bad input, {item.path.stem}", TRIED.total() - before]))
