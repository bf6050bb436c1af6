"""Counts the cases that Hypothesis has tried, by file of the campaign."""

import pytest
from fuzzing import TRIED

from counted import COUNTED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = TRIED.total()
    try:
        return (yield)
    finally:
        if TRIED.total() > before:
            item.user_properties.append((COUNTED, [f"bad input, {item.path.stem}", TRIED.total() - before]))
