"""A checkpoint that lost a part: the run goes on from the one before it and says so, or is refused; it never goes on silently."""

import errno
import io
import shutil
import warnings

import pytest

from calibrated_sd.errors import OutputError
from calibrated_sd.trainers.finished import last_finished_checkpoint
from fault_kit import cut, digest, run_csd, straight_run, train_recipe, trained, whole_json

STATE = ("model.safetensors", "ema_teacher.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
NEEDED = (*STATE, "calibration_state.json", "trainer_state.json")
REQUIRED = ("calibration_state.json",)


@pytest.fixture(scope="module")
def straight(model_path, tmp_path_factory):
    return straight_run(tmp_path_factory.mktemp("straight"), model_path)


@pytest.fixture
def stopped(straight, tmp_path):
    """The folder as a run leaves it that was killed before its model was saved."""
    shutil.copytree(straight[1], tmp_path / "out", ignore=shutil.ignore_patterns("model"))
    return tmp_path / "out"


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.999])
@pytest.mark.parametrize("name", [*NEEDED, "config.json", "training_args.bin"])
def test_a_file_that_is_cut_off_is_found(stopped, name, share):
    cut(stopped / "checkpoint-3" / name, share)
    with pytest.warns(UserWarning, match=r"checkpoint-3 was passed over: .*The run goes on from checkpoint-2\."):
        assert last_finished_checkpoint(stopped, required=REQUIRED) == stopped / "checkpoint-2"


@pytest.mark.parametrize("name", [name for name in NEEDED if name != "ema_teacher.safetensors"])
def test_a_file_that_is_missing_is_found(stopped, name):
    (stopped / "checkpoint-3" / name).unlink()
    with pytest.warns(UserWarning, match=r"checkpoint-3 was passed over: .*The run goes on from checkpoint-2\."):
        assert last_finished_checkpoint(stopped, required=REQUIRED) == stopped / "checkpoint-2"


def test_a_missing_shard_is_found(stopped):
    folder = stopped / "checkpoint-3"
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.warns(UserWarning, match="model-00001-of-00002.safetensors is missing"):
        assert last_finished_checkpoint(stopped) == stopped / "checkpoint-2"
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.warns(UserWarning, match="index.json is cut off or damaged"):
        assert last_finished_checkpoint(stopped) == stopped / "checkpoint-2"


def test_an_adapters_own_folder_is_looked_at(stopped):
    """peft saves every adapter but the first, so TRL's teacher, below a folder of its name."""
    inner = stopped / "checkpoint-3" / "teacher" / "adapter_model.safetensors"
    inner.parent.mkdir()
    shutil.copy(stopped / "checkpoint-3" / "model.safetensors", inner)
    assert last_finished_checkpoint(stopped) == stopped / "checkpoint-3"
    cut(inner, 0.5)
    with pytest.warns(UserWarning, match=r"teacher/adapter_model.safetensors is cut off"):
        assert last_finished_checkpoint(stopped) == stopped / "checkpoint-2"


@pytest.mark.parametrize("header", [b"null", b"[]", b'{"a": {"data_offsets": [0]}}', b'{"a": 1}'])
def test_a_header_that_is_none_is_damage(stopped, header):
    (stopped / "checkpoint-3" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.warns(UserWarning, match="model.safetensors is cut off or damaged"):
        assert last_finished_checkpoint(stopped) == stopped / "checkpoint-2"


@pytest.mark.parametrize("name", ["trainer_state.json", "optimizer.pt"])
def test_what_cannot_be_read_just_now_is_not_taken_for_damage(stopped, monkeypatch, name):
    """A network disk that fails for a moment must not start a run from its beginning."""
    real, before = io.open, sorted(stopped.rglob("*"))

    def fail(path, *arguments, **keywords):
        if str(path).endswith(f"checkpoint-3/{name}"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *arguments, **keywords)

    with monkeypatch.context() as patched:
        for module in ("io.open", "builtins.open"):
            patched.setattr(module, fail)
        for start_anew in (False, True):
            with pytest.raises(OutputError, match=rf"{name} cannot be read \(Input/output error\)"):
                last_finished_checkpoint(stopped, start_anew=start_anew)
    assert sorted(stopped.rglob("*")) == before


def test_whole_checkpoints_are_taken_without_a_word(stopped):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert last_finished_checkpoint(stopped, required=REQUIRED) == stopped / "checkpoint-3"
        assert last_finished_checkpoint(stopped / "nowhere") is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_the_run_goes_on_from_the_checkpoint_before(straight, stopped, capsys, name):
    recipe, expected = straight
    cut(stopped / "checkpoint-3" / name, 0.5)
    with pytest.warns(UserWarning, match="checkpoint-3 was passed over"):
        done = run_csd(capsys, "train", "--config", recipe, "--output", stopped, "--if-exists", "resume")
    assert done.code == 0, done.said
    assert trained(stopped) == trained(expected)
    whole_json(stopped)
    assert last_finished_checkpoint(stopped) == stopped / "checkpoint-3"  # written anew


def test_a_run_without_a_whole_checkpoint_is_refused(straight, stopped, capsys):
    for step in (1, 2, 3):
        cut(stopped / f"checkpoint-{step}" / "optimizer.pt", 0.9)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    words = ("train", "--config", straight[0], "--output", stopped, "--if-exists", "resume")
    run_csd(capsys, *words).refused("checkpoint-3 is damaged (optimizer.pt is cut off", "delete the folder")
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
    with pytest.raises(OutputError):
        last_finished_checkpoint(stopped)
    with pytest.warns(UserWarning, match="The run starts from its beginning"):  # what the jobs of a sweep do
        assert last_finished_checkpoint(stopped, start_anew=True) is None


def test_a_lost_teacher_is_no_fresh_teacher(straight, stopped, capsys):
    """Nothing else tells that it was there: TRL's own checkpoints have none."""
    (stopped / "checkpoint-3" / "ema_teacher.safetensors").unlink()
    words = ("train", "--config", straight[0], "--output", stopped, "--if-exists", "resume", "--max_steps", 4)
    run_csd(capsys, *words).refused(stopped / "checkpoint-3", "lacks ema_teacher.safetensors", "Delete that folder")


def test_an_adapter_whose_run_was_killed_after_its_last_checkpoint(model_path, tmp_path, capsys):
    lora = {"lora_r": 4, "lora_target_modules": "q_proj,v_proj"}
    recipe, out = train_recipe(tmp_path, model_path, **lora), tmp_path / "out"
    words = ("train", "--config", recipe, "--output", out)
    assert run_csd(capsys, *words).code == 0
    expected, log = digest(out / "model" / "adapter_model.safetensors"), (out / "train.jsonl").read_bytes()
    shutil.rmtree(out / "model")
    assert run_csd(capsys, *words, "--if-exists", "resume").code == 0
    assert digest(out / "model" / "adapter_model.safetensors") == expected
    assert (out / "train.jsonl").read_bytes() == log


@pytest.mark.parametrize("line", ['{"step": 3, "lo', '{"step": 3'])
def test_a_run_that_was_killed_after_its_last_checkpoint_does_no_step_more(straight, stopped, capsys, line):
    """transformers alone does a fourth of three steps."""
    recipe, expected = straight
    with open(stopped / "train.jsonl", "a") as file:
        file.write(line)
    done = run_csd(capsys, "train", "--config", recipe, "--output", stopped, "--if-exists", "resume")
    assert done.code == 0, done.said
    assert trained(stopped) == trained(expected)
    assert last_finished_checkpoint(stopped).name == "checkpoint-3"
