"""`csd sweep` on the command line: help, options, listing. The whole command runs in tests/recipes."""

import re

import pytest
from typer.testing import CliRunner

from calibrated_sd.cli.main import app
from calibrated_sd.cli.sweep import parse_seeds, parse_slurm
from calibrated_sd.errors import ConfigError, OutputError

runner = CliRunner()


def test_help_with_examples():
    result = runner.invoke(app, ["sweep", "--help"])
    assert result.exit_code == 0
    assert len(re.findall(r"csd sweep --config", result.output)) >= 2


@pytest.mark.parametrize(
    ("text", "seeds"), [(None, None), ("3", [0, 1, 2]), ("1", [0]), ("0,4", [0, 4]), ("7,", [7]), ("2, 5", [2, 5])]
)
def test_seeds_are_a_number_or_a_list(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "a", "1,1", "1,-2", "", "1000000000000", "9" * 300])
def test_other_seeds_are_refused(text):
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds(text)


def test_cluster_parameters_are_read_as_yaml():
    pairs = ["time=120", "partition=gpu", "setup=[module load cuda]", "comment=a=b"]
    assert parse_slurm(pairs) == {"time": 120, "partition": "gpu", "setup": ["module load cuda"], "comment": "a=b"}
    with pytest.raises(ConfigError, match="key=value"):
        parse_slurm(["gpu"])


@pytest.mark.parametrize("value", ["[1", "2020-13-45", "? [a]", "[" * 5000, "!!python/name:os.system"])
def test_a_cluster_parameter_that_is_no_yaml(value):
    with pytest.raises(ConfigError, match="is not valid YAML"):
        parse_slurm([f"time={value}"])


def test_a_great_number_is_one_seed_after_a_comma():
    assert parse_seeds("1000000000000,") == [1000000000000]


def test_a_folder_of_other_people_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for policy in ("raise", "resume", "overwrite"):
        result = runner.invoke(
            app, ["sweep", "--config", "sweeps/strength", "--output", str(tmp_path), "--if-exists", policy]
        )
        assert isinstance(result.exception, OutputError)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_list_shows_every_run_and_writes_nothing(tmp_path):
    out = tmp_path / "out"
    result = runner.invoke(
        app, ["sweep", "--config", "sweeps/strength", "--output", str(out), "--seeds", "1", "--list"]
    )
    assert result.exit_code == 0
    assert re.search(r"waiting +projection_strength=0.25/seed_0 +calibration_method=projection  calibration_strength=0.25", result.output)  # fmt: skip
    assert "13 runs: 13 waiting" in result.output  # base, 2 landmarks, 2 methods × 5 strengths
    assert not out.exists()
