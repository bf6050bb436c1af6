"""Texts of a probe, and their markers in the tokens of a BPE tokenizer."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from calibrated_sd.context_analysis.hedge_sentences import ADVERBS, COMMANDS, HEDGES, HELD_OUT_HEDGES, OPENERS, VERBS
from calibrated_sd.context_analysis.slots import find_slots
from calibrated_sd.context_analysis.traces import built_trace, find_traces, hedged, hedged_solution, solution_lines
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.markers import MarkerSet, count_markers
from calibrated_sd.organism.suites import load_suite
from calibrated_sd.records import CompletionRecord, write_jsonl

SOLUTION = "Tom has 2 + 3 = 5 apples.\nHe eats 1, so 5 - 1 = 4 are left.\nHalf of 4 is 2.\n\\boxed{2}"
PROBLEM = {"suite": "s", "problem_id": "tom", "prompt": "How many apples?", "answer": "2", "solution": SOLUTION}


def test_every_sentence_voices_doubt_once_and_neutral_words_never():
    for sentence in HEDGES:
        assert (count_markers(sentence).total(), count_markers(sentence, "held_out").total()) == (1, 0), sentence
    for sentence in HELD_OUT_HEDGES:
        assert (count_markers(sentence).total(), count_markers(sentence, "held_out").total()) == (0, 1), sentence
    for word in (*OPENERS, *VERBS, *ADVERBS, *COMMANDS):
        assert count_markers(f"{word.capitalize()} it is.").total() == 0, word
    # every phrase of the paper's ten words is there
    assert set(MarkerSet.load("legacy").phrases) <= {p for s in HEDGES for p in count_markers(s)}


def test_doubt_stands_between_the_lines():
    trace = built_trace(PROBLEM)
    lines = trace.text.split("\n")
    assert [line for line in lines if line not in HEDGES + HELD_OUT_HEDGES] == SOLUTION.split("\n")
    assert lines[-1] == "\\boxed{2}"
    assert (count_markers(trace.text).total(), count_markers(trace.text, "held_out").total()) == (9, 2)
    assert trace.plain == SOLUTION
    assert built_trace(PROBLEM) == trace
    assert built_trace(PROBLEM, seed=1) != trace
    assert len(hedged(["one line"], random.Random(0)).split("\n")) == 1 + 4  # four sentences in its only gap


def test_the_hedged_solution_doubts_in_other_sentences():
    """Else the positive control would lift the markers by being copied."""
    for seed in range(20):
        own, shown = (
            set(text.split("\n")) for text in (built_trace(PROBLEM, seed).text, hedged_solution(PROBLEM, seed))
        )
        assert own & shown == set(SOLUTION.split("\n"))
        assert len(shown) == 4 + 9 + 2


def test_lines_of_a_solution():
    assert solution_lines("He has 48/2=<<48/2=24>>24.\n\n#### 24") == ["He has 48/2=24.", "#### 24"]
    assert solution_lines("Half is 24. So 24.5 are left. It is 3.") == ["Half is 24.", "So 24.5 are left.", "It is 3."]


def test_puzzles_get_a_search():
    (row,) = load_suite("train", n=1)
    assert built_trace(row).text.startswith("<think>")
    assert built_trace(row).plain is None


def test_columns_and_samples(tmp_path):
    rows = [{**PROBLEM, "draft": "Hmm."}, {**PROBLEM, "problem_id": "ann", "draft": None}]
    assert [[t.text for t in of] for of in find_traces("column:draft", rows)] == [["Hmm."], []]
    counts = {"legacy": 1, "lexical": 1, "held_out": 0}
    records = [
        CompletionRecord(
            suite="s",
            problem_id="ann",
            sample=sample,
            prompt_sha256="",
            completion=f"Hmm {sample}.",
            finish_reason="stop",
            n_tokens=3,
            correct=None,
            markers=counts,
            context=context,
        )
        for sample, context in ((1, "none"), (0, "none"), (0, "solution"))
    ]
    path = write_jsonl(tmp_path / "completions.jsonl", records)
    found = find_traces(str(path), rows)
    assert [[(t.index, t.text, t.is_sample) for t in of] for of in found] == [
        [],
        [(0, "Hmm 0.", True), (1, "Hmm 1.", True)],
    ]
    write_jsonl(path, [*records, replace(records[0], seed=1)])  # sample 1 of two seeds would be one text
    with pytest.raises(DataError, match="samples of 2 runs"):
        find_traces(str(path), rows)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("column:nothing", DataError, "column 'nothing'"),
        ("built", DataError, "--solution-column"),
        ("bild", ConfigError, "'built', 'column:NAME'"),
    ],
)
def test_nothing_to_score(source, error, words):
    with pytest.raises(error, match=words):
        find_traces(source, [{"suite": "s", "problem_id": "a", "prompt": "?"}])


@pytest.fixture(scope="module")
def bpe():
    """A byte-level BPE that knows most words as one token, but writes "hmm" in several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    words = "so then next now maybe perhaps is was will the sum of wait it left"
    text = [f"{w} {w.capitalize()}\n{w.capitalize()} a {w}." for w in words.split()] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=None)


def test_markers_of_several_tokens(bpe):
    text = "Hmm, maybe the sum\nSo perhaps it is."
    ids = bpe(text)["input_ids"]
    slots = find_slots(bpe, ids, MarkerSet.load("lexical"))
    assert [slot.phrase for slot in slots] == ["hmm", "maybe", "perhaps"]
    assert [bpe.decode(ids[slot.start : slot.stop]) for slot in slots] == ["Hmm", " maybe", " perhaps"]
    assert slots[0].stop - slots[0].start > 1
    assert all(slot.stop - slot.start == 1 for slot in slots[1:])


def test_neutral_words_have_the_same_shape(bpe):
    ids = bpe("Hmm, maybe it left\nMaybe the sum was perhaps it.")["input_ids"]
    hmm, maybe, new_line, perhaps = find_slots(bpe, ids, MarkerSet.load("lexical"))
    assert {bpe.decode([i]) for i in hmm.neutral_ids} == {"So", "Then", "Next", "Now"}
    assert {bpe.decode([i]) for i in maybe.neutral_ids} == {" so", " then", " next", " now"}  # after a comma
    assert set(new_line.neutral_ids) == set(hmm.neutral_ids)  # after a line break
    assert {bpe.decode([i]) for i in perhaps.neutral_ids} == {" now", " then"}  # in the middle: the adverbs it knows
    avoid = {hmm.neutral_ids[0]}
    assert avoid.isdisjoint(find_slots(bpe, ids, MarkerSet.load("lexical"), avoid)[0].neutral_ids)
