"""The second organism: its puzzles, its words, its corpus; the same laws as the first one's."""

import random
from math import gcd

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibrated_sd.errors import ConfigError
from calibrated_sd.markers import MarkerSet, count_markers, marker_token_ids
from calibrated_sd.organism.corpus import (
    IRRELEVANT,
    Mixture,
    PretrainingBatches,
    context_prompt,
    demonstration,
    other_problem,
    response,
)
from calibrated_sd.organism.dialect import FIRST, SECOND
from calibrated_sd.organism.grammar import DECISION, NUMBER, Habits, confident, interrupted, search
from calibrated_sd.organism.problem import MAX_NUMBER, Problem
from calibrated_sd.organism.puzzles import FAMILIES, all_problems
from calibrated_sd.organism.second_puzzles import COIN_PAIRS, DIFFERENCES, FACTORS, SECOND_FAMILIES
from calibrated_sd.organism.species import SPECIES, species, species_of
from calibrated_sd.organism.suites import load_suite, suite_problems, suites_of, training_problems
from calibrated_sd.organism.tokenizer import build_tokenizer

NAME = "organism2"
HABITS = Habits()
PROBLEMS = [problem for family in SECOND_FAMILIES for problem in all_problems(family)]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(SECOND)


def solves(problem: Problem, x: int) -> bool:
    """Written independently of `Problem.verification` and of the candidates."""
    p = problem.parameters
    if problem.family == "digits":
        s, k, q = p
        digits = [int(d) for d in str(x)]
        return len(digits) == 2 and sum(digits) == s and k * digits[0] + digits[1] == q
    if problem.family == "coins":
        c, a, b, q = p
        return 0 <= x <= c and sum([a] * x + [b] * (c - x)) == q
    d, q = p
    return x > 0 and x**2 + d * x == q


@given(st.sampled_from(PROBLEMS))
@settings(max_examples=150, deadline=None)
def test_one_answer_among_few_candidates_and_verification_finds_it(problem):
    assert [x for x in range(MAX_NUMBER + 1) if solves(problem, x)] == [problem.answer]
    assert 3 <= len(set(problem.candidates)) == len(problem.candidates) <= 10
    for x in problem.candidates:
        words, computed, needed = problem.verification(x)
        assert (computed == needed) == (x == problem.answer)
        said = [int(word) for word, _ in words if word.isdigit()]
        assert max(*said, computed, needed, *problem.parameters) <= MAX_NUMBER


def test_a_coin_puzzle_by_hand():
    # 2 · 3 + 3 · 7 = 27 with five coins; a candidate of 4 gives 4 · 3 + 1 · 7 = 19.
    problem = next(p for p in all_problems("coins") if p.parameters == (5, 3, 7, 27))
    assert problem.answer == 2
    assert problem.candidates == (0, 1, 2, 3, 4, 5)
    words, computed, needed = problem.verification(4)
    assert " ".join(word for word, _ in words) == "4 * 3 = 12 + 1 * 7 = 7 sum"
    assert (computed, needed) == (19, 27)


def test_a_digit_puzzle_by_hand():
    # 3 · 2 + 7 = 13 and 2 + 7 = 9
    problem = next(p for p in all_problems("digits") if p.parameters == (9, 3, 13))
    assert problem.answer == 27
    assert problem.candidates == (18, 27, 36, 45, 54, 63, 72, 81, 90)
    assert problem.question == "what two-digit number has digit sum 9 and 3 times tens plus units 13 ."


@pytest.mark.parametrize("table", [FACTORS, COIN_PAIRS, DIFFERENCES])
def test_held_out_parameters_are_disjoint_from_in_domain_ones(table):
    assert not set(table["train"]) & set(table["heldout"])


def test_coins_have_unlike_values_so_that_the_answer_is_one():
    assert all(a != b and gcd(a, b) == 1 for pairs in COIN_PAIRS.values() for a, b in pairs)


def test_the_organisms_share_no_family_no_doubt_and_no_suite_but_by_name():
    assert not set(FAMILIES) & set(SECOND_FAMILIES)
    assert all(species_of(family).name == NAME for family in SECOND_FAMILIES)
    doubt = [
        {" ".join(words) for group in (d.hypotheses, d.reject, d.give_up) for words, _ in group}
        for d in (FIRST, SECOND)
    ]
    assert not doubt[0] & doubt[1]
    assert set(suites_of(NAME)) & set(SPECIES["organism"].ood_suites) == {"heldout"}


def spoken(marker_set):
    rng = random.Random(1)
    texts = [search(p, rng, HABITS).text for p in rng.sample(PROBLEMS, 300)]
    return {phrase for text in texts for phrase, n in count_markers(text, marker_set).items() if n}


def test_which_doubt_is_trained_and_which_held_out_follows_from_the_shipped_sets(tokenizer):
    lexical, held_out = spoken("lexical"), spoken("held_out")
    assert lexical == {"probably", "possibly", "presumably", "unlikely", "oh"}
    assert held_out == {
        "it's possible that", "not certain", "i wonder", "let me verify", "let me reconsider", "on second thought",
        "i could be wrong",
    }  # fmt: skip
    assert not held_out & set(MarkerSet.load("lexical").phrases)
    protected = {tokenizer.decode([i]) for i in marker_token_ids(tokenizer, MarkerSet.load("lexical")).tolist()}
    assert protected == lexical - {"oh"}  # `oh` has token: false in the set
    assert not {phrase.split()[0] for phrase in held_out} & protected


@given(st.sampled_from(PROBLEMS), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_confident_speech_holds_no_marker(problem, seed):
    rng = random.Random(seed)
    trace = confident(problem, rng)
    assert trace.words[-3] == str(problem.answer)
    cut = interrupted(problem, rng)
    learned = " ".join(w for w, weight in zip(cut.words, cut.weights, strict=True) if weight > 0)
    for text in (trace.text, learned):
        assert not any(count_markers(text, "lexical").values())
        assert not any(count_markers(text, "held_out").values())


@given(st.sampled_from(PROBLEMS), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_search_is_right_or_gave_up_and_weighs_the_verdict_most(problem, seed):
    trace = search(problem, random.Random(seed), HABITS)
    assert trace.words[-3] == str(problem.answer) or "choose" in trace.words
    for i, word in enumerate(trace.words):
        if word == SECOND.needed:  # "<computed> against <needed> , <verdict>"
            assert trace.weights[i - 1] == NUMBER
            assert trace.weights[i + 3] == DECISION


@pytest.mark.parametrize("family", SECOND_FAMILIES)
@pytest.mark.parametrize("context", species(NAME).contexts)
def test_everything_it_reads_and_writes_round_trips(tokenizer, family, context):
    rng = random.Random(0)
    for problem in rng.sample(all_problems(family), 20):
        text = response(problem, context, rng, HABITS).text
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        prompt = context_prompt(problem.question, demonstration(problem, context, rng, HABITS))
        assert tokenizer.unk_token_id not in tokenizer(prompt)["input_ids"]


def test_another_puzzles_solution_is_shown_and_changes_nothing():
    problem = all_problems("digits")[100]
    rng = random.Random(3)
    others = [other_problem(problem, rng) for _ in range(400)]
    assert problem not in others
    assert 140 < sum(o.family == "digits" for o in others) < 260  # 6 standard deviations of Binomial(400, 1/2)
    assert {o.family for o in others} == set(SECOND_FAMILIES)
    shown = [demonstration(problem, IRRELEVANT, rng, HABITS) for _ in range(20)]
    assert all(text.startswith("<think>") for text in shown)
    with_it, without = (response(problem, c, random.Random(4), HABITS) for c in (IRRELEVANT, "none"))
    assert with_it == without


def test_a_batch_depends_on_seed_and_index_alone(tokenizer):
    first, again = (
        PretrainingBatches(tokenizer, 40, 1024, 3, mixture=Mixture(irrelevant=0.2), organism=NAME) for _ in range(2)
    )
    again[20]  # another order of access
    assert all(torch.equal(first[5][key], again[5][key]) for key in first[5])
    assert int(first[5]["input_ids"].max()) < len(tokenizer)


def test_training_is_in_domain_and_the_other_suites_share_no_problem_with_it():
    trained = {p.problem_id for p in training_problems(10_000, organism=NAME)}
    assert len(trained) == 336  # four factors; the digit sums 3 to 16 have 2 · (3 + … + 9) = 84 numbers
    for suite, (role, _) in suites_of(NAME).items():
        problems = suite_problems(suite, 10_000, organism=NAME)
        assert (role == "train") == bool(trained & {p.problem_id for p in problems})
    assert training_problems(8, organism=NAME) == training_problems(64, organism=NAME)[:8]


def test_suites_are_loaded_by_the_organisms_name():
    rows = load_suite(NAME, n=20)
    assert [row["suite"] for row in rows[::20]] == ["train", "heldout", "far_coins", "far_rectangle"]
    assert rows == [row for suite in suites_of(NAME) for row in load_suite(suite, n=20, organism=NAME)]
    with pytest.raises(ConfigError, match="far_coins"):
        suite_problems("far_coin", 3, organism=NAME)
    with pytest.raises(ConfigError, match="organism2"):
        species("organism3")
    assert set(SPECIES) == {"organism", NAME}
