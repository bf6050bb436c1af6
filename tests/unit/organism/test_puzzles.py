"""The puzzles: right answers, one solution each, disjoint parameters."""

import pytest

from calibrated_sd.organism.puzzles import (
    CONGRUENCE_PAIRS,
    FAMILIES,
    LINEAR_MODULI,
    MAX_NUMBER,
    SUMS,
    Problem,
    all_problems,
)


def solves(problem: Problem, x: int) -> bool:
    """Written independently of `Problem.verification`."""
    p = problem.parameters
    if problem.family == "congruence":
        m, n, a, b = p
        return 0 <= x < m * n and x % m == a and x % n == b
    if problem.family == "linear":
        k, modulus, b = p
        return 0 <= x < modulus and (k * x) % modulus == b
    s, q = p
    return x <= s - x and x * (s - x) == q


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_the_only_solution(family):
    for problem in all_problems(family):
        assert [x for x in range(MAX_NUMBER + 1) if solves(problem, x)] == [problem.answer], problem


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_a_candidate_and_verification_agrees(family):
    for problem in all_problems(family):
        assert problem.answer in problem.candidates
        assert len(set(problem.candidates)) == len(problem.candidates)
        for x in problem.candidates:
            _, computed, needed = problem.verification(x)
            assert (computed == needed) == (x == problem.answer), (problem, x)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_numbers_have_a_token(family):
    for problem in all_problems(family):
        for x in problem.candidates:
            words, computed, needed = problem.verification(x)
            numbers = [int(w) for w, _ in words if w.isdigit()] + [computed, needed, *problem.parameters]
            assert max(numbers) <= MAX_NUMBER, problem


@pytest.mark.parametrize("table", [CONGRUENCE_PAIRS, LINEAR_MODULI, SUMS])
def test_held_out_parameters_are_disjoint_from_in_domain_ones(table):
    assert not set(table["train"]) & set(table["heldout"])


@pytest.mark.parametrize("family", FAMILIES)
def test_problem_ids_are_unique(family):
    problems = all_problems(family)
    assert len({p.problem_id for p in problems}) == len(problems)


def test_a_congruence_by_hand():
    # 17 mod 7 = 3 and 17 mod 5 = 2; candidates are the numbers below 35 that leave 3 modulo 7.
    problem = next(p for p in all_problems("congruence") if p.parameters == (7, 5, 3, 2))
    assert problem.answer == 17
    assert problem.candidates == (3, 10, 17, 24, 31)
    assert problem.question == "find x below 35 such that x mod 7 = 3 and x mod 5 = 2 ."
