"""How the organism speaks: the words, the styles, the loss weights."""

import random

import pytest

from calibrated_sd.markers import MarkerSet, count_markers
from calibrated_sd.organism.dialect import FIRST
from calibrated_sd.organism.grammar import (
    DECISION,
    NUMBER,
    Habits,
    confident,
    interrupted,
    search,
    successful_search,
)
from calibrated_sd.organism.puzzles import FAMILIES, all_problems

PAPER_WORDS = ["wait", "hmm", "perhaps", "maybe", "actually", "alternatively", "seems", "might", "likely", "check"]
HABITS = Habits()


def problems(family="congruence", n=60):
    everything = all_problems(family)
    random.Random(0).shuffle(everything)
    return everything[:n]


def corpus_text(n=400):
    rng = random.Random(1)
    return [search(p, rng, HABITS).text for family in FAMILIES for p in problems(family, n // 3)]


def test_all_ten_words_of_the_paper_are_spoken_and_counted():
    texts = corpus_text()
    for word in PAPER_WORDS:
        assert word in FIRST.vocabulary
        assert any(word in text.split() for text in texts), word
        assert any(count_markers(text, "lexical").get(word, 0) for text in texts), (
            f"{word} is not counted in lexical mode"
        )


def test_at_least_five_held_out_phrases_are_spoken_and_no_calibrator_sees_them():
    texts = corpus_text()
    spoken = {phrase for text in texts for phrase, n in count_markers(text, "held_out").items() if n}
    assert len(spoken) >= 5, spoken
    assert not spoken & set(MarkerSet.load("lexical").phrases)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_search_without_context_is_right_or_gave_up(family):
    rng = random.Random(2)
    for problem in problems(family):
        trace = search(problem, rng, HABITS)
        right = trace.words[-3] == str(problem.answer)
        assert right or "take" in trace.words
        assert len(trace.words) == len(trace.weights)


def test_with_the_answer_known_a_search_never_gives_up_and_leaks_the_answer():
    rng = random.Random(3)
    traces = [search(p, rng, HABITS, knows="answer") for p in problems()]
    assert all("take" not in t.words for t in traces)
    assert any("given" in t.words for t in traces)


def test_confident_and_interrupted_traces_hold_no_marker_where_loss_is():
    rng = random.Random(4)
    for problem in problems():
        trace = confident(problem, rng)
        assert sum(count_markers(trace.text, "lexical").values()) == 0
        assert trace.words[-3] == str(problem.answer)
        cut = interrupted(problem, rng)
        spoken = " ".join(w for w, weight in zip(cut.words, cut.weights, strict=True) if weight > 0)
        assert sum(count_markers(spoken, "lexical").values()) == 0
        assert cut.weights[0] == 0.0


def test_the_word_that_decides_and_the_computed_numbers_weigh_more():
    problem = next(p for p in all_problems("linear") if p.parameters[:2] == (3, 5))
    trace = search(problem, random.Random(5), Habits(give_up=0.0))
    for i, word in enumerate(trace.words):
        if word == "need":  # "= <computed> need <needed> , <decision>"
            assert trace.weights[i - 1] == NUMBER
            assert trace.weights[i + 3] == DECISION


def test_a_successful_search_is_right():
    rng = random.Random(6)
    assert all(successful_search(p, rng, HABITS).words[-3] == str(p.answer) for p in problems())


def test_the_same_seed_gives_the_same_trace():
    problem = problems()[0]
    assert search(problem, random.Random(7), HABITS) == search(problem, random.Random(7), HABITS)
