"""Any text as a completion, a problem or an answer: counted, graded, stripped and put into templates, without a silent mistake."""

import time
from collections import Counter
from dataclasses import replace

import pytest
from fuzzing import TRICKY, fuzz, text
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.contexts import CONTEXTS, Sources
from calibrated_sd.contexts.answers import alter_answer, extract_answer
from calibrated_sd.contexts.hints import cut_hint
from calibrated_sd.contexts.rendering import fill, render_reprompt
from calibrated_sd.contexts.strip import strip_thinking
from calibrated_sd.evaluation.grading import extract_boxed, get_grader, graded_part, normalise_answer
from calibrated_sd.markers import MARKER_SETS, MarkerSet, count_markers, find_spans
from calibrated_sd.markers.lexicon import Phrase

SETS = [MarkerSet.load(name) for name in MARKER_SETS]


@fuzz
@given(text, text, st.sampled_from(SETS))
def test_counting(completion, prompt, markers):
    counts = count_markers(completion, markers, prompt)
    assert all(n > 0 for n in counts.values())
    assert counts.total() == len(find_spans(completion, markers, prompt)) <= len(count_all(completion, markers))


def count_all(completion, markers):
    """With nothing quoted from a prompt there can only be more."""
    return find_spans(completion, markers)


def plain_words(markers):
    """Form → phrase: one word, counted wherever it stands."""
    bare = [
        entry
        for entry in markers.entries
        if entry
        == replace(
            Phrase(entry.text, entry.kind), also=entry.also, distinct_from=entry.distinct_from, token=entry.token
        )
    ]
    return {form: entry.text for entry in bare for form in entry.forms if form.isalpha()}


WORDS = {markers.name: plain_words(markers) for markers in SETS if markers.mode == "word"}
STYLES = [str.lower, str.upper, str.capitalize]


@fuzz
@given(st.data(), st.sampled_from(sorted(WORDS)))
def test_words_between_others_are_counted_one_by_one(data, name):
    """Built from a list of words, so the right count is that of the list."""
    assert len(WORDS["lexical"]) > 10
    drawn = data.draw(st.lists(st.tuples(st.sampled_from(sorted(WORDS[name])), st.sampled_from(STYLES)), max_size=30))
    fillers = data.draw(
        st.lists(st.sampled_from(["seven apples", ", the river;", "- 3 -", "\n\nx", "…"]), min_size=31, max_size=31)
    )
    words = [style(word) for word, style in drawn]
    completion = " ".join(part for pair in zip(fillers, [*words, ""], strict=False) for part in pair)
    assert count_markers(completion, name) == Counter(WORDS[name][word] for word, _ in drawn)


@fuzz
@given(text, text)
def test_no_marker_is_lost_or_made_by_a_neighbour(first, second):
    """The plain substring counts of two texts add up. The other sets look at sentences, formulas and code, which may reach over."""
    assert count_markers(f"{first}\n{second}", "legacy") == count_markers(first, "legacy") + count_markers(
        second, "legacy"
    )


@fuzz
@given(text, text, st.sampled_from(["boxed", "stated"]))
def test_grading(completion, answer, name):
    assert get_grader(name)(completion, answer) in (True, False, None)
    assert isinstance(graded_part(completion), str)
    assert isinstance(normalise_answer(answer), str)
    box = extract_boxed(completion)
    assert box is None or box in completion


@fuzz
@given(st.text(alphabet="0123456789abcxyz +-*/=.,", min_size=1, max_size=12).filter(str.strip), text)
def test_a_right_answer_in_a_box_is_right_whatever_stands_before(answer, before):
    if "\\boxed" in before or "</think>" in before or "<think>" in before:
        return
    assert get_grader("boxed")(f"{before} so \\boxed{{{answer}}}", answer) is True


@fuzz
@given(text, text, text)
def test_templates_keep_braces_and_formulas(question, demonstration, answer):
    prompt = render_reprompt(question, demonstration)
    assert question.strip() in prompt
    assert demonstration.strip() in prompt
    assert fill("{a}|{b}", {"a": question, "b": answer}) == f"{question}|{answer}"


@fuzz
@given(text, text, text, st.sampled_from(sorted(CONTEXTS)), st.floats(0, 1))
def test_contexts(rollout, answer, solution, level, fraction):
    shown = CONTEXTS[level].demonstration(Sources(rollout=rollout, answer=answer, solution=solution))
    assert shown is None or isinstance(shown, str)
    assert "<think>" not in strip_thinking(rollout) or "</think>" not in strip_thinking(rollout)
    for found in (extract_answer(rollout), alter_answer(rollout), cut_hint(rollout, fraction)):
        assert found is None or isinstance(found, str)


@pytest.mark.parametrize("piece", [*TRICKY, "(", "wait " * 3, "\\boxed{1} ", "<think> "], ids=repr)
def test_a_million_characters_on_one_line(piece):
    """Linear time: ten times the text takes about ten times as long, and never minutes."""
    if not piece:
        return
    long = (piece * (10**6 // len(piece) + 1))[: 10**6]
    since = time.process_time()
    for markers in SETS:
        count_markers(long, markers)
    extract_boxed(long)
    strip_thinking(long)
    graded_part(long)
    extract_answer(long)
    assert time.process_time() - since < 60
