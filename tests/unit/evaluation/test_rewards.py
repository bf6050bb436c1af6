"""Rewards: the evaluation's verdicts, length by hand, None in real trainers, functions by name."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from datasets import Dataset
from grader_cases import CASES

from calibrated_sd.errors import ConfigError
from calibrated_sd.evaluation import rewards
from calibrated_sd.evaluation.completions import record_completions
from calibrated_sd.evaluation.generate import Completion
from calibrated_sd.evaluation.grading import get_grader
from calibrated_sd.evaluation.rewards import SoftOverlong, boxed_math_reward, load_reward, make_reward
from tiny_runs import QUIET, question


def as_chat(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("grader", ["boxed", "math-verify"])
def test_training_and_evaluation_judge_alike(grader, tmp_path):
    """The same pairs through the reward and through an evaluation, over the whole table."""
    if grader == "math-verify":
        pytest.importorskip("math_verify")
    texts, answers = [case[0] for case in CASES], [case[1] for case in CASES]
    given = make_reward(grader, timeout_s=30)(completions=list(map(as_chat, texts)), answer=answers)

    def backend(*_, problem_ids, **__):
        yield [Completion(i, 0, "prompt", (1,), t, "stop") for i, t in zip(problem_ids, texts, strict=True)]

    problems = [{"problem_id": str(i), "suite": "s", "prompt": "", "answer": a} for i, a in enumerate(answers)]
    rows = record_completions(
        None, None, problems, tmp_path / "c.jsonl", n=1, grader=grader, grading_timeout_s=30, backend=backend
    )
    assert given == [None if row["correct"] is None else float(row["correct"]) for row in rows]
    assert {0.0, 1.0, None} == set(given)


def test_there_is_one_grader():
    assert rewards.shared_pool("math-verify")._function is get_grader("math-verify")
    assert rewards.CorrectnessReward("boxed").pool._function is get_grader("boxed")


def test_rewards_by_hand():
    assert boxed_math_reward([as_chat(r"\boxed{\frac{4}{2}}"), r"\boxed{3}", "2"], ["2", "2", None]) == [1.0, 0.0, None]
    reward = make_reward("boxed")
    assert reward.__name__ == "correctness_reward"
    assert pickle.loads(pickle.dumps(reward)) == reward
    typed = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed{2}"}]}]
    assert reward([typed, [], [{"role": "assistant", "content": None}]], ["2", "2", "2"]) == [1.0, 0.0, 0.0]
    for one in (reward, boxed_math_reward):
        with pytest.raises(ConfigError, match="column 'answer'"):
            one(completions=["x"], completion_ids=[[1]])


def test_answers_may_be_numbers():
    """A column of integers or floats, as a CSV or the Hub gives it; NaN is a missing answer."""
    texts = [r"\boxed{4}", r"\boxed{4.0}", r"\boxed{5}", r"\boxed{0.5}", r"\boxed{4}"]
    for reward in (make_reward("boxed"), boxed_math_reward):
        assert reward(texts, [4, 4, 4, 0.5, math.nan]) == [1.0, 1.0, 0.0, 1.0, None]


@pytest.mark.parametrize(
    ("n_tokens", "punishment"),
    [(0, 0.0), (80, 0.0), (81, -1 / 20), (90, -10 / 20), (100, -20 / 20), (101, -1.0)],  # L = 100, C = 20
)
def test_soft_overlong_punishment(n_tokens, punishment):
    assert SoftOverlong(100, 20)(n_tokens) == pytest.approx(punishment)


def test_soft_overlong_equals_trl():
    from trl.rewards import get_soft_overlong_punishment

    theirs = get_soft_overlong_punishment(max_completion_len=16, soft_punish_cache=5)
    ours = SoftOverlong(16, 5)
    assert [ours(n) for n in range(20)] == theirs(completion_ids=[[0] * n for n in range(20)])
    assert (SoftOverlong(16, 0)(16), SoftOverlong(16, 0)(17)) == (0.0, -1.0)


def test_length_is_added_to_correctness():
    reward = make_reward("boxed", length=SoftOverlong(10, 4))
    ids = [[0] * 6, [0] * 8, [0] * 11, [0] * 11]
    completions = [r"\boxed{1}", r"\boxed{1}", r"\boxed{2}", r"\boxed{2}"]
    given = reward(completions=completions, answer=["1", "1", "1", None], completion_ids=ids)
    assert given == [1.0, 1.0 - 2 / 4, 0.0 - 1.0, None]
    with pytest.raises(ConfigError, match="completion_ids"):
        reward(completions=["x"], answer=["1"])


@pytest.mark.parametrize("sizes", [(0, 0), (10, 11), (10, -1)])
def test_impossible_lengths(sizes):
    with pytest.raises(ConfigError, match="0 <= cache <= max_length"):
        SoftOverlong(*sizes)


# Which rows of each group of four cannot be judged.
UNJUDGED = {"some": [None, 1.0, None, 0.0], "a whole group": [None] * 4 + [1.0, 0.0, 0.0, 0.0], "all": [None]}


def unjudged(kind):
    def reward(completions, **_):
        return (UNJUDGED[kind] * len(completions))[: len(completions)]

    return reward


@pytest.mark.parametrize("kind", list(UNJUDGED))
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_sdpo_with_unjudged_rollouts(make_trainer, kind, weight):
    trainer = make_trainer(max_steps=1, distillation_weight=weight, scale_rewards="group")
    trainer.reward_funcs[0] = unjudged(kind)
    check_training(trainer)


@pytest.mark.parametrize("kind", list(UNJUDGED))
def test_grpo_with_unjudged_rollouts(model_path, tmp_path, kind):
    from trl import GRPOConfig, GRPOTrainer

    settings = {**QUIET, "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8}
    trainer = GRPOTrainer(
        model_path,
        reward_funcs=unjudged(kind),
        args=GRPOConfig(output_dir=str(tmp_path), max_steps=1, **settings),
        train_dataset=Dataset.from_list([{"prompt": question(n)} for n in ("one", "two")]),
    )
    check_training(trainer)


def check_training(trainer):
    """One real step: advantages are numbers, 0 where nothing was judged, and so are loss and weights."""
    seen = []
    score = trainer._generate_and_score_completions if hasattr(trainer, "_generate_and_score_completions") else None
    name = "_generate_and_score_completions" if score else "_prepare_training_batch"
    original = getattr(trainer, name)

    def watched(inputs):
        batch = original(inputs)
        seen.append(batch["advantages"].clone())
        return batch

    setattr(trainer, name, watched)
    trainer.train()
    unjudged_rows = torch.tensor([r is None for r in trainer.reward_funcs[0]([""] * 8)])
    (advantages,) = seen
    assert advantages.isfinite().all()
    assert advantages[unjudged_rows].abs().max() < 1e-6
    assert unjudged_rows.all() or advantages.abs().max() > 0.1  # the others still count
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_a_reward_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_of_test.py").write_text(
        "def short(completions, **kwargs):\n    return [float(len(c) < 3) for c in completions]\n"
        "def strict(completions):\n    return []\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("my_rewards_of_test:short", "my_rewards_of_test.py:short"):
        assert load_reward(name)(completions=["ab", "abc"], anything=1) == [1.0, 0.0]
    assert load_reward("calibrated_sd.evaluation.rewards:boxed_math_reward") is boxed_math_reward
    for name, words in [
        ("my_rewards_of_test:shrt", "has no such name"),
        ("my_rewards_of_test:number", "holds int"),
        ("my_rewards_of_test:strict", r"takes no \*\*kwargs"),
        ("my_rewards_of_test", "module:function"),
        ("absent_rewards.py:f", "there is no file absent_rewards.py"),
        ("absent_rewards:f", "No module named"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load_reward(name)
