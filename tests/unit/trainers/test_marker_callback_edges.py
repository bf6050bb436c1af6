"""A watched run on several processes, what the callback refuses, and how it leaves a trainer behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from calibrated_sd.errors import ConfigError
from calibrated_sd.trainers.callbacks import MarkerMassCallback
from calibrated_sd.trainers.monitoring.text_capture import CapturedText, Tap, TextSource
from watched_runs import SAMPLING, SHORT, builder, steps


@pytest.fixture
def build(model_path, tmp_path):
    return builder(model_path, tmp_path)


def test_sums_of_two_processes_are_added_and_divided_once(build):
    """1 marker in 10 tokens here, 0 in 990 there: 1 per 1k, where the mean of the two rates is 50."""
    trainer = build("grpo")
    local = []

    def process(texts, reduce):
        callback = MarkerMassCallback(trainer, mass=False)
        callback._taps = [SimpleNamespace(remove=lambda: None)]
        callback.trainer = SimpleNamespace(
            **{name: getattr(trainer, name) for name in ("model", "_tokenizer")},
            _metrics={
                "train": {
                    name: []
                    for name in (
                        "epistemic/per_1k",
                        "epistemic/per_response",
                        "epistemic/held_out_per_1k",
                        "completions/mean_length",
                        "completions/clipped_ratio",
                    )
                }
            },
            accelerator=SimpleNamespace(device=torch.device("cpu"), reduce=reduce),
        )
        trainer.model.train()
        callback.source = SimpleNamespace(read=lambda args, kwargs, result: texts, generates=True)
        callback._overheard((), {}, None)
        callback.on_step_end(None, None, SimpleNamespace(should_log=True))
        return callback.trainer._metrics["train"]

    hmm, red = trainer._tokenizer("hmm red")["input_ids"]
    short = [CapturedText([hmm] + [red] * 9, [True] * 10, False)]
    long = [CapturedText([red] * 330, [True] * 330, True)] * 3
    for texts in (short, long, []):
        process(texts, lambda tensor, reduction: local.append(tensor) or tensor)
    assert len(local) == 3  # also the process without any text takes part
    assert {tensor.shape for tensor in local} == {local[0].shape}
    figures = process(short, lambda tensor, reduction: tensor + local[1] + local[2])
    assert figures["epistemic/per_1k"] == [1.0]
    assert figures["epistemic/per_response"] == [0.25]


@pytest.mark.slow
def test_two_real_processes(model_path, tmp_path):
    """The figures are those of both processes' texts, both end at the same alarm, and their weights agree."""
    here = Path(__file__).parent
    limits = {**SHORT, **SAMPLING, "num_generations": 4, "per_device_train_batch_size": 4, "max_steps": 6}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(here / "watched_processes.py"), str(tmp_path), model_path, json.dumps(limits)]
    places = [here.parents[2] / "src", here.parents[1], os.environ.get("PYTHONPATH", "")]
    source = os.pathsep.join(map(str, places))
    environment = os.environ | {"PYTHONPATH": source, "CI": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"process_{rank}.json").read_text()) for rank in (0, 1))
    assert first["counted"] != second["counted"]
    assert first["figures"] == second["figures"]
    assert first["weights"] == second["weights"]
    assert 1 < first["steps"] == second["steps"] < 6
    assert [line["monitor/alarm"] for line in first["figures"]] == [0.0] * (first["steps"] - 1) + [1.0]
    for mine, theirs, line in zip(first["counted"], second["counted"], first["figures"], strict=True):
        markers, tokens = (mine[name] + theirs[name] for name in ("markers", "tokens"))
        assert line["epistemic/per_1k"] == pytest.approx(1000 * markers / tokens)
        assert line["completions/mean_length"] == pytest.approx(tokens / (mine["responses"] + theirs["responses"]))


def test_a_trainer_without_responses_is_refused_in_one_paragraph(model_path, tmp_path, word_tokenizer):
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    model = AutoModelForSequenceClassification.from_pretrained(model_path, num_labels=1)
    args = RewardConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none")
    rows = [{"chosen": "yes", "rejected": "no"}]
    trainer = RewardTrainer(model, args=args, train_dataset=Dataset.from_list(rows), processing_class=word_tokenizer)
    with pytest.raises(ConfigError, match=r"RewardTrainer cannot be watched.*GRPO.*SFT") as refused:
        MarkerMassCallback(trainer)
    assert "\n" not in str(refused.value)


def test_a_callback_without_a_trainer_says_which_line_to_write(build):
    trainer = build("grpo", callbacks=[MarkerMassCallback()])
    with pytest.raises(ConfigError, match=r"trainer\.add_callback\(MarkerMassCallback\(trainer\)\)"):
        trainer.train()
    later = MarkerMassCallback(mass=False)
    trainer = build("grpo", max_steps=1, callbacks=[later])
    later.attach(trainer)
    trainer.train()
    assert "epistemic/per_1k" in steps(trainer)[0]


@pytest.mark.parametrize("settings", [{"every": 0}, {"max_positions": 0}, {"every": 1.5}, {"markers": "lexicl"}])
def test_bad_settings(settings):
    with pytest.raises(ConfigError):
        MarkerMassCallback(**settings)


def test_a_tokenizer_without_marker_tokens_is_warned_about_and_counted(build, monkeypatch):
    import calibrated_sd.trainers.monitoring.marker_callback as module

    def none_found(tokenizer, markers):
        raise ConfigError("No phrase begins with a token of its own.")

    monkeypatch.setattr(module, "marker_token_ids", none_found)
    trainer = build("grpo", max_steps=1)
    with pytest.warns(UserWarning, match="monitor/marker_mass and monitor/retention are left out"):
        trainer.add_callback(MarkerMassCallback(trainer))
    trainer.train()
    line = steps(trainer)[0]
    assert {"epistemic/per_1k", "monitor/entropy"} <= line.keys()
    assert "monitor/marker_mass" not in line


def test_the_methods_are_put_back_after_a_run_that_was_interrupted_and_trained_again(build):
    class Interrupt(TrainerCallback):
        armed = True

        def on_optimizer_step(self, args, state, control, **kwargs):
            if self.armed:
                raise KeyboardInterrupt

    trainer = build("grpo", max_steps=1)
    interrupt = Interrupt()
    trainer.add_callback(MarkerMassCallback(trainer))
    trainer.add_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    interrupt.armed = False
    trainer.train()
    assert "_generate" not in vars(trainer)
    assert steps(trainer)[0]["epistemic/per_response"] * 8 == round(steps(trainer)[0]["epistemic/per_response"] * 8)


def test_a_tap_under_another_wrapper_stops_listening_but_stays():
    class Speaker:
        def say(self, word):
            return word + "!"

    speaker, heard = Speaker(), []
    tap = Tap(speaker, "say", lambda args, kwargs, result: heard.append((args, result)))
    ours = speaker.say
    speaker.say = lambda word: ours(word)
    assert speaker.say("a") == "a!"
    tap.remove()
    assert speaker.say("b") == "b!"
    assert heard == [(("a",), "a!")]


def test_tool_output_is_not_what_the_model_wrote(build):
    trainer = build("grpo")
    read = TextSource.of(trainer).read
    prompt, first, tool, second = [3], [7, 8], [9, 9], [10]
    (text,) = read((), {}, ([prompt], [first + tool + second], [[1, 1, 0, 0, 1]], None, None, None, None, None))
    assert text.passages() == [first, second]
    assert text.n_tokens == 3
