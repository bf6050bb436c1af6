"""The vLLM backend against a stand-in that answers with transformers' own generate. The real engine: tests/real."""

from __future__ import annotations

import pytest

from calibrated_sd.errors import ConfigError, ContextError
from calibrated_sd.evaluation.engines import EngineSettings, load_here
from calibrated_sd.evaluation.generate import generate_completions
from calibrated_sd.evaluation.vllm_backend import check_vllm_installed, llm_arguments

PROMPTS = ["wait", "question one plus two equals", "maybe red", "question seven minus two equals"]
IDS = ["a", "b", "c", "d"]


def engine_of(model_path, **settings):
    return load_here(EngineSettings(model=model_path, backend="vllm", **settings))


def run(engine, **options):
    settings = {"n": 2, "problem_ids": IDS, "max_new_tokens": 24, "temperature": 0.6, "top_p": 0.95, **options}
    return [c for batch in engine.iterate(engine.model, engine.tokenizer, PROMPTS, **settings) for c in batch]


def by_key(made):
    return {(c.problem_id, c.sample): c for c in made}


def transformers_answers(model_path, **options):
    engine = load_here(EngineSettings(model=model_path, **{k: options.pop(k) for k in ("adapter",) if k in options}))
    return by_key(
        generate_completions(engine.model, engine.tokenizer, PROMPTS, problem_ids=IDS, max_new_tokens=24, **options)
    )


def test_greedy_completions_are_those_of_transformers(fake_vllm, model_path):
    made = run(engine_of(model_path), n=1, temperature=0, max_new_tokens=24)
    assert [c.problem_id for c in made] != IDS  # finished out of order, and still under the right names
    assert by_key(made) == transformers_answers(model_path, n=1, temperature=0)


def test_one_seeded_request_per_sample(fake_vllm, model_path):
    engine = engine_of(model_path)
    asked = []
    add = engine.model.llm_engine.add_request
    engine.model.llm_engine.add_request = lambda *a, **k: (asked.append(a), add(*a, **k))
    made = run(engine)
    assert len(made) == 8
    assert [tuple(a[1]["prompt_token_ids"]) for a in asked] == [
        tuple(engine.tokenizer(prompt)["input_ids"]) for prompt in PROMPTS for _ in range(2)
    ]
    params = [a[2] for a in asked]
    assert {(p.n, p.temperature, p.top_p, p.max_tokens) for p in params} == {(1, 0.6, 0.95, 24)}
    assert len({p.seed for p in params}) == 8
    assert len({c.token_ids for c in made}) > 4
    end = engine.tokenizer.eos_token_id
    assert {(c.finish_reason == "stop") == (c.token_ids[-1] == end) for c in made} == {True}


def test_a_resumed_run_asks_for_the_same_samples(fake_vllm, model_path):
    straight = by_key(run(engine_of(model_path)))
    progress = []
    done = set(straight) - {("a", 1), ("d", 0)}
    rest = run(engine_of(model_path), already_done=done, on_progress=lambda *seen: progress.append(seen))
    assert by_key(rest) == {key: straight[key] for key in (("a", 1), ("d", 0))}
    assert (progress[0], progress[-1]) == ((6, 8), (8, 8))


def test_every_stop_id_ends_a_completion(fake_vllm, model_path, tmp_path):
    import json
    import shutil

    free = run(engine_of(model_path), n=1, temperature=0)
    other = next(c for c in free if len(c.token_ids) > 4).token_ids[3]
    folder = tmp_path / "two_ends"
    shutil.copytree(model_path, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    end = settings["eos_token_id"]
    (folder / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [end, other]}))
    cut = by_key(run(engine_of(str(folder)), n=1, temperature=0))
    assert cut == transformers_answers(str(folder), n=1, temperature=0)
    assert any(c.token_ids[-1] == other and c.finish_reason == "stop" for c in cut.values())


def test_an_adapter_changes_what_is_said_the_same_way_in_both(fake_vllm, model_path, adapter_path):
    adapted = by_key(run(engine_of(model_path, adapter=str(adapter_path)), n=1, temperature=0))
    assert adapted == transformers_answers(model_path, adapter=str(adapter_path), n=1, temperature=0)
    assert adapted != by_key(run(engine_of(model_path), n=1, temperature=0))


def test_arguments_of_the_engine(fake_vllm, model_path, adapter_path):
    settings = {"tensor_parallel": 2, "gpu_memory_utilization": 0.5, "max_model_len": 99, "enforce_eager": True}
    made = engine_of(model_path, seed=7, adapter=str(adapter_path), **settings).model.arguments
    assert made == {
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "max_model_len": 99,
        "enforce_eager": True,
        "seed": 7,
        "enable_prefix_caching": True,
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": 8,  # rank 4, rounded up to what vLLM knows
    }
    assert llm_arguments("m", dtype="bfloat16") == {
        **{"model": "m", "dtype": "bfloat16", "seed": 0, "tensor_parallel_size": 1},
        **{"enable_prefix_caching": True, "enforce_eager": False},
    }


def test_the_engines_window_is_checked(fake_vllm, model_path):
    # 5 + 24 tokens do not fit into 28; 1 + 24 do
    with pytest.raises(ContextError, match="problem 'b'"):
        run(engine_of(model_path, max_model_len=28))


def test_what_vllm_refuses_is_a_user_error(fake_vllm, model_path):
    with pytest.raises(ConfigError, match="greater than the derived max_model_len"):
        engine_of(model_path, max_model_len=513)


def test_without_vllm(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'calibrated-sd\[vllm\]'.*--backend transformers"):
        check_vllm_installed()
