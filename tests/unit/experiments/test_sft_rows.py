"""Rows for SFT are what the model would have written: thinking kept, one end-of-turn token, prompts not learnt."""

import json

import pytest

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.experiments.sft_rows import encode_rows, sft_rows


@pytest.fixture
def write(tmp_path):
    def rows(*entries, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
        return str(path)

    return rows


def test_texts_become_chats_and_chats_stay(write):
    chat = [{"role": "user", "content": "two"}]
    path = write(
        {"prompt": "one", "completion": "wait one", "finish_reason": "length"},
        {"prompt": chat, "completion": [{"role": "assistant", "content": "two"}], "problem_id": "x"},
    )
    first, second = sft_rows(path)
    assert first["prompt"] == [{"role": "user", "content": "one"}]
    assert first["completion"] == [{"role": "assistant", "content": "wait one"}]
    assert (first["finish_reason"], second["finish_reason"]) == ("length", "stop")
    assert second["prompt"] == chat
    assert sorted(second) == ["completion", "finish_reason", "prompt"]
    assert sft_rows(path, 1) == [first]


def test_completions_are_read_in_every_format_that_problems_come_in(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"prompt": [{"role": "user", "content": "one"}], "completion": "wait one", "finish_reason": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("prompt,completion\none,wait one\n")
    (row,) = sft_rows(str(tmp_path / "rows.parquet"))
    assert row["completion"] == [{"role": "assistant", "content": "wait one"}]
    assert sft_rows(str(tmp_path / "rows.csv")) == [row]


def test_without_completions_the_worked_solution_is_learnt(write):
    path = write(
        {"problem": "one", "answer": "1", "solution": "wait 1"}, {"problem": "two", "answer": "2", "solution": "2"}
    )
    assert [row["completion"][0]["content"] for row in sft_rows(path)] == ["wait 1", "2"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"problem": "one", "answer": "1"}], "neither a column 'completion' nor a 'solution'"),
        ([{"prompt": "one", "completion": " "}], "row 1: the completion is empty"),
        ([{"prompt": "a", "completion": "b"}, {"completion": "b"}], "row 2: the prompt is empty"),
        ([{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}] * 2}], "has 2 messages"),
    ],
)
def test_rows_without_an_answer_are_refused(write, entries, message):
    with pytest.raises(DataError, match=message):
        sft_rows(write(*entries))


def test_the_organism_has_no_written_answers():
    with pytest.raises(DataError, match="organism's problems have none"):
        sft_rows("organism")


def test_prompt_tokens_are_not_learnt_and_the_end_is(word_tokenizer):
    ids = word_tokenizer.convert_tokens_to_ids
    row = {
        "prompt": [{"role": "user", "content": "question one"}],
        "completion": [{"role": "assistant", "content": "wait one"}],
    }
    (whole,) = encode_rows([row], word_tokenizer, None, 64)
    assert whole["input_ids"] == ids(["<|user|>", "question", "one", "<|assistant|>", "wait", "one", "<|end|>"])
    assert whole["labels"] == [-100] * 4 + ids(["wait", "one", "<|end|>"])
    (cut_off,) = encode_rows([{**row, "finish_reason": "length"}], word_tokenizer, None, 64)
    assert cut_off["labels"] == [-100] * 4 + ids(["wait", "one"])


@pytest.mark.parametrize("template", ["qwen3", "deepseek_r1_distill"])
def test_thinking_is_learnt_whatever_the_template_does_to_histories(byte_model_path, template):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(byte_model_path(template))
    text = "wait, maybe 3?</think>It is 4."
    chat = [{"role": "user", "content": "2+2"}]
    (row,) = encode_rows(
        [{"prompt": chat, "completion": [{"role": "assistant", "content": text}]}], tokenizer, None, None
    )
    learnt = [token for token in row["labels"] if token != -100]
    assert tokenizer.decode(learnt[:-1]) == text
    assert learnt[-1] == tokenizer.eos_token_id
    history = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text}], tokenize=False)
    assert ("maybe 3" in history) == (template == "qwen3")  # why the completion does not go through the template


def test_rows_that_lose_their_end_are_counted_aloud(word_tokenizer):
    def row(words):
        return {"prompt": [{"role": "user", "content": "one"}], "completion": [{"role": "assistant", "content": words}]}

    with pytest.warns(UserWarning, match=r"1 of 2 rows are longer than max_length=6 \(the longest has 7 tokens\)"):
        encode_rows([row("wait"), row("wait wait wait")], word_tokenizer, None, 6)


def test_a_tokenizer_without_template_cannot_render_prompts(word_tokenizer):
    import copy

    bare = copy.deepcopy(word_tokenizer)
    bare.chat_template = None
    with pytest.raises(ConfigError, match="chat template"):
        encode_rows([], bare, None, None)
