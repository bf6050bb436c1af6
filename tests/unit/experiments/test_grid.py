"""Names and values of a sweep: what may vary, how it combines, what a point is called."""

import dataclasses

import pytest

from calibrated_sd.errors import ConfigError
from calibrated_sd.experiments.grid import canonical_field, expand, point_name, point_text, set_field


@dataclasses.dataclass
class Config:
    learning_rate: float = 1e-6
    calibration_method: str = "projection"
    calibration_strength: float = 0.0
    calibration_kwargs: dict | str | None = None
    context_levels: dict | str | None = None
    lr_or_word: float | str = 0.1


FIELDS = {f.name: f for f in dataclasses.fields(Config)}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("learning_rate", "learning_rate"),
        ("trainer.learning_rate", "learning_rate"),
        ("data.n_problems", "n_problems"),
        ("calibration_kwargs.kappa", "calibration_kwargs.kappa"),
        ("trainer.calibration_kwargs.kappa", "calibration_kwargs.kappa"),
    ],
)
def test_fields_flat_and_dotted(given, expected):
    assert canonical_field(given, FIELDS) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("calibration_strenght", "Did you mean 'calibration_strength'"),
        ("data.n_problem", "Did you mean"),
        ("model", "one base model"),
        ("seed", "`seeds`"),
        ("output_dir", "--output"),
        ("env", "inherit"),
    ],
)
def test_fields_that_cannot_vary_are_refused_with_a_way_out(given, message):
    with pytest.raises(ConfigError, match=message):
        canonical_field(given, FIELDS)


def test_a_dotted_field_changes_a_copy_of_its_mapping():
    shared = {"kappa": 1.0, "form": "klb"}
    settings = {"calibration_kwargs": shared}
    set_field(settings, "calibration_kwargs.kappa", 0.5, FIELDS)
    assert settings == {"calibration_kwargs": {"kappa": 0.5, "form": "klb"}}
    assert shared["kappa"] == 1.0
    fresh = {}
    set_field(fresh, "calibration_kwargs.kappa", 0.5, FIELDS)
    assert fresh == {"calibration_kwargs": {"kappa": 0.5}}
    text = {"calibration_kwargs": '{"form": "klb"}'}
    set_field(text, "calibration_kwargs.kappa", 0.5, FIELDS)
    assert text == {"calibration_kwargs": {"form": "klb", "kappa": 0.5}}
    with pytest.raises(ConfigError, match="no mapping"):
        set_field({"context_levels": "rollout:1"}, "context_levels.none", 0.5, FIELDS)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    settings = {}
    set_field(settings, "learning_rate", "5e-4", FIELDS)  # YAML 1.1 wants 5.0e-4
    assert settings["learning_rate"] == 5e-4
    set_field(settings, "lr_or_word", "cosine", FIELDS)
    assert settings["lr_or_word"] == "cosine"
    set_field(settings, "calibration_strength", "suggested", FIELDS)
    assert settings["calibration_strength"] == "suggested"
    with pytest.raises(ConfigError, match="no number"):
        set_field(settings, "learning_rate", "fast", FIELDS)


def test_all_combinations_the_last_field_fastest():
    points = expand({"a": [1, 2], "b": [3, 4], "c": 5})
    assert points == [
        {"a": 1, "b": 3, "c": 5},
        {"a": 1, "b": 4, "c": 5},
        {"a": 2, "b": 3, "c": 5},
        {"a": 2, "b": 4, "c": 5},
    ]
    assert expand({"a": [[1, 2]]}) == [{"a": [1, 2]}]  # a list as a value is nested
    with pytest.raises(ConfigError, match="empty list"):
        expand({"a": []})


def test_names_say_what_was_varied_and_are_fit_for_a_folder():
    assert point_name({"calibration_method": "floor", "calibration_strength": 0.25}) == "floor_strength=0.25"
    assert point_name({"learning_rate": 5e-4, "n_problems": 8}) == "learning_rate=0.0005_n_problems=8"
    assert point_name({"context_levels": "rollout:0.7,none:0.3"}) == "context_levels=rollout-0.7-none-0.3"
    long = point_name({"context_levels": "x" * 300})
    assert len(long) < 80
    assert long != point_name({"context_levels": "x" * 299 + "y"})


def test_marks_beside_points_are_short():
    assert point_text(0.25) == "0.25"
    assert point_text("rollout:0.7,none:0.3") == "0.7/0.3"
    assert point_text("stripped") == "stripped"
    assert len(point_text("a" * 40)) == 14
