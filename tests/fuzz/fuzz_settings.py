"""Any text or number as a setting: understood, or refused in one paragraph that names it."""

import contextlib
import dataclasses
import math

import pytest
from fuzzing import allowed, anything, fuzz, scalar, text
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.calibrators import CALIBRATORS, build_calibrator, build_controller
from calibrated_sd.calibrators.context_schedule import build_context_schedule
from calibrated_sd.calibrators.schedule import build_schedule
from calibrated_sd.contexts.levels import parse_levels
from calibrated_sd.trainers import (
    CalibratedDistillationConfig,
    CalibratedSDFTConfig,
    CalibratedSDPOConfig,
    CalibratedSFTConfig,
)
from calibrated_sd.trainers.monitoring.collapse_detector import CollapseDetector, read_signals

PIECES = [
    "constant",
    "linear",
    "cosine",
    "step",
    ":",
    "->",
    "@",
    "-",
    "%",
    ";",
    "0",
    "1",
    "0.5",
    "100",
    "1e9",
    "nan",
    " ",
]
number = st.integers(0, 300).map(str) | st.floats(0, 1.2).map(lambda x: f"{x:.3g}") | st.sampled_from(PIECES)
piece = st.builds(
    lambda shape, a, b, times: f"{shape}:{a}->{b}@{times}",
    *(st.sampled_from(["linear", "cosine", "step", "constant"]), number, number),
    st.lists(st.builds(str.__add__, number, st.sampled_from(["", "%"])), min_size=1, max_size=3).map("-".join),
)
schedule_text = (
    st.lists(piece, min_size=1, max_size=3).map(";".join)
    | st.lists(st.sampled_from(PIECES), max_size=10).map("".join)
    | text
)


def ours(config):
    """The settings that a config adds to TRL's."""
    trl = next(base for base in config.__mro__ if base.__module__.startswith("trl."))
    return sorted(
        {field.name for field in dataclasses.fields(config)} - {field.name for field in dataclasses.fields(trl)}
    )


CONFIGS = [CalibratedSDPOConfig, CalibratedSDFTConfig, CalibratedDistillationConfig, CalibratedSFTConfig]


@fuzz
@given(schedule_text, st.floats(0, 10))
def test_strength_schedules(written, base):
    found = allowed(build_schedule, written, base)
    if found is not None:
        for step in (0, 1, 50, 199, 10**6):
            assert 0 <= found.strength(step, 200) <= base * (1 + 1e-9)


@fuzz
@given(schedule_text | st.dictionaries(text, scalar, max_size=3))
def test_controllers(spec):
    allowed(build_controller, spec, base_strength=1.0)


@fuzz
@given(
    schedule_text, st.dictionaries(st.sampled_from(["rollout", "stripped", "none"]) | text, st.floats(0, 1), max_size=3)
)
def test_context_schedules(written, levels):
    allowed(build_context_schedule, written, levels)


@fuzz
@given(text | st.dictionaries(text, scalar, max_size=3))
def test_levels(levels):
    found = allowed(parse_levels, levels)
    if found is not None:
        assert math.isclose(sum(found.values()), 1.0)


@fuzz
@given(st.sampled_from(sorted(CALIBRATORS)) | text, st.none() | st.dictionaries(text, anything, max_size=3))
def test_calibrators(name, keywords):
    allowed(build_calibrator, name, keywords)


@fuzz
@given(st.data())
def test_settings_of_every_calibrator(data):
    """Real names with impossible values, which a wrong annotation would let through."""
    cls = data.draw(st.sampled_from([cls for cls in CALIBRATORS.values() if cls.__dataclass_fields__]))
    field = data.draw(st.sampled_from(sorted(cls.__dataclass_fields__)))
    allowed(build_calibrator, cls.name, {field: data.draw(scalar)})


@pytest.mark.parametrize("config", CONFIGS)
@fuzz
@given(st.data())
def test_trainer_configs(config, tmp_path, data):
    changes = data.draw(st.dictionaries(st.sampled_from(ours(config)), anything, min_size=1, max_size=3))
    with contextlib.suppress(ValueError):  # TRL's own checks, and ours, which derive from it
        allowed(config, output_dir=str(tmp_path), use_cpu=True, bf16=False, **changes)


@fuzz
@given(
    st.dictionaries(
        text, st.none() | st.dictionaries(st.sampled_from(["keys", "low", "high", "complement"]), scalar), max_size=2
    ),
    scalar,
    scalar,
    scalar,
)
def test_the_monitor(signals, baseline, smoothing, patience):
    found = allowed(read_signals, signals)
    if found is not None:
        allowed(CollapseDetector, found, baseline, smoothing, patience)
