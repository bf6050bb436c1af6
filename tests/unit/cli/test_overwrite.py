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
        ("train", (*TRAIN, "--report_to", "foo"), "Unknown report_to 'foo'"),
        ("train", (*TRAIN, "--fsdp", "full_shard"), "Using fsdp only works"),
        ("train", (*TRAIN, "--model_init_kwargs", '{"foo": 1}'), "foo"),
        ("train", (*TRAIN, "--chat_template_kwargs", "[1]"), "chat_template_kwargs"),
        ("train", (*TRAIN, "--lora_r", "4", "--lora_target_modules", "nothing"), "nothing"),
        ("train", (*TRAIN, "--resume_from_checkpoint", "run"), "--if-exists resume"),
        ("train", (*TRAIN, "--reward", "no_such_rewards:f"), "no_such_rewards"),
        ("organism-ladder", (*LADDER, "--model", "nothing"), "nothing has no model"),
        ("organism-ladder", (*LADDER, "--n", "0"), "--n must be at least 1"),
        ("pretrain", (*PRETRAIN, "--n-updates", "0"), "--n-updates must be at least 1"),
    ],
)
def test_what_cannot_be_done_deletes_nothing(tmp_path, kind, command, message):
    folder = finished(tmp_path / "run", kind)
    before = contents(folder)
    assert message in refused(*command, "--output", folder, "--if-exists", "overwrite")
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("evaluate", TRAIN),
        ("train", ("evaluate", "--model", "organism", "--suite", "organism", "--n", "1")),
        ("train", LADDER),
        ("ladder", LADDER),
        ("ladder", PRETRAIN),
        ("organism-ladder", ("ladder", "--model", "organism", "--problems", "organism:heldout")),
        ("train", ("probe", "--model", "organism", "--problems", "organism:train")),
        ("train", ("sweep", "--config", "sweeps/strength")),
        ("train", ("reproduce", "--config", "organism/reproduce.yaml", "--quick")),
        ("evaluate", ("compare", "a", "b")),
        ("ladder", ("off-policy", "a")),
        ("coverage", ("data", "coverage", __file__)),
    ],
)
@pytest.mark.parametrize("policy", ["overwrite", "resume"])
def test_a_folder_of_another_command_is_left_alone(tmp_path, kind, command, policy):
    folder = finished(tmp_path / "run", kind)
    if kind == "coverage":
        write_json(folder / "manifest.json", {"schema_version": 1, "kind": "suite"})
    before = contents(folder)
    message = refused(*command, "--output", folder, "--if-exists", policy)
    assert f"--if-exists {policy}" in message
    assert repr("suite" if kind == "coverage" else kind) in message
    assert contents(folder) == before


def test_a_command_never_deletes_what_it_reads(tmp_path):
    folder = finished(tmp_path / "run", "train")
    (folder / "rows.jsonl").write_text("{}")
    (folder / "recipe.yaml").write_text("model: organism\nuse_cpu: true\nbf16: false\n")
    (folder / "rewards.py").write_text("def right(**given): ...\n")
    before = contents(folder)
    for command in (
        (*TRAIN, "--problems", folder / "rows.jsonl"),
        (*TRAIN, "--reward", f"{folder / 'rewards.py'}:right"),
        ("train", "--config", folder / "recipe.yaml"),
    ):
        message = refused(*command, "--output", folder, "--if-exists", "overwrite")
        assert "lies in the output folder" in message, message
    assert contents(folder) == before


def test_a_run_is_not_compared_into_its_own_folder(tmp_path):
    folder = finished(tmp_path / "ra", "compare")
    before = contents(folder)
    for a in (folder, folder / "completions.jsonl", folder / ".." / "ra"):
        (folder / "completions.jsonl").touch()
        before["completions.jsonl"] = b""
        assert "lies in the output folder" in refused("compare", a, "b", "--output", folder, "--if-exists", "overwrite")
    assert contents(folder) == before


def test_a_refused_first_run_of_train_can_be_started_again(tmp_path):
    command = (*TRAIN, "--use_vllm", "true", "--output", tmp_path / "run")
    assert refused(*command) == refused(*command)  # and not that the folder is in use
