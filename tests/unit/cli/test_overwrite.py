"""`--if-exists overwrite` deletes finished results only for a command that can do its work."""

import pytest
from typer.testing import CliRunner

from calibrated_sd.cli.main import app
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.records import write_json

TRAIN = ("train", "--config", "organism/sdpo_projection")
LADDER = ("organism", "ladder")
PRETRAIN = ("organism", "pretrain")


def finished(folder, kind):
    """A folder of an earlier command, with a result in it."""
    write_json(folder / "manifest.json", {"schema_version": 1, "kind": kind})
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("days of work")
    return folder


def refused(*words):
    """What the command says when it refuses; one paragraph."""
    result = CliRunner().invoke(app, [*map(str, words)])
    assert isinstance(result.exception, CalibratedSDError), (result.output, result.exception)
    message = str(result.exception)
    assert "\n" not in message
    return message


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("kind", "command", "message"),
    [
        ("train", (*TRAIN, "--use_vllm", "true"), "vllm"),
        ("train", (*TRAIN, "--n_problems", "1"), "prompts"),
        ("train", (*TRAIN, "--reward", "no_such_rewards:f"), "no_such_rewards"),
        ("ladder", (*LADDER, "--model", "nothing"), "nothing has no model"),
        ("ladder", (*LADDER, "--n", "0"), "--n must be at least 1"),
        ("pretrain", (*PRETRAIN, "--n-updates", "0"), "--n-updates must be at least 1"),
    ],
)
def test_what_cannot_be_done_deletes_nothing(tmp_path, kind, command, message):
    folder = finished(tmp_path / "run", kind)
    before = contents(folder)
    assert message in refused(*command, "--output", folder, "--if-exists", "overwrite")
    assert contents(folder) == before


def test_a_refused_first_run_of_train_can_be_started_again(tmp_path):
    command = (*TRAIN, "--use_vllm", "true", "--output", tmp_path / "run")
    assert refused(*command) == refused(*command)  # and not that the folder is in use
