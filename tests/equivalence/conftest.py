"""Runs of our trainers and TRL's to compare."""

from __future__ import annotations

import pytest

import finished_runs


@pytest.fixture(scope="session")
def finish():
    """`finish(trainer, **kwargs)` trains to the end and returns the `Run`."""
    return finished_runs.finish


@pytest.fixture
def run(make_trainer, finish):
    """`run(**settings)` trains with our class, `run(upstream=True, **settings)` with TRL's."""
    return lambda **settings: finish(make_trainer(**settings))
