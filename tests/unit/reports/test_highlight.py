"""Highlighted completions and coloured rollouts, as HTML that is safe to show."""

from types import SimpleNamespace

import pytest

from calibrated_sd.reports.highlight import color_limit, mark_doubt, readable, traces


def trace(tokens, ratios, context="solution", markers=None):
    return {"id": "a", "problem": "p", "answer": "1", "context_label": context, "tokens": tokens, "log_ratio": ratios,
            "is_marker": markers or [False] * len(tokens)}  # fmt: skip


def test_markers_are_tagged_by_kind_and_the_rest_is_escaped():
    html, lexical, held_out = mark_doubt("maybe x < 3 . hold on no .")
    assert html == '<mark class="doubt">maybe</mark> x &lt; 3 . <mark class="held">hold on</mark> no .'
    assert (lexical, held_out) == (1, 1)


def test_long_completions_are_cut_with_a_note_but_counted_whole():
    html, lexical, _ = mark_doubt("hmm . " * 1000)  # 6000 characters
    assert lexical == 1000
    assert html.count("<mark") == 667  # 4000 = 666 · 6 + 4 characters: 666 times "hmm . ", then "hmm "
    assert "2000 characters left out" in html


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["maybe", "x", "="], "maybe x ="),
        (["Wait", "Ġno", "Ċ", "x"], "Wait no\nx"),
        (["▁Wait", "▁no", "pe"], " Wait nope"),
        ([" Wait", ",", " no"], " Wait, no"),
    ],
)
def test_tokens_of_several_tokenizers_are_readable(tokens, text):
    assert "".join(readable(tokens)) == text


def test_colour_is_red_for_suppressed_blue_for_boosted_and_absent_near_zero():
    folder = SimpleNamespace(
        traces=[trace(["a", "b", "c", "d", "e"], [-2.0, 0.5, 0.01, None, -9.0], markers=[True] + [False] * 4)]
    )
    html = traces(folder, limit=2)[0].levels[0].html
    # 8 shades for 2 nats: −2.0 is the 8th, 0.5 the 2nd; −9 is cut at the 8th.
    assert html == (
        '<span class="t m r8" title="−2.00 nats">a</span> <span class="t b2" title="+0.50 nats">b</span> '
        '<span class="t" title="+0.01 nats">c</span> <span class="t" title="no value">d</span> '
        '<span class="t r8" title="−9.00 nats">e</span>'
    )


def test_the_strongest_suppressions_are_named_for_readers_without_a_mouse():
    folder = SimpleNamespace(traces=[trace(["maybe", "x", "no"], [-1.5, 0.4, -3.04])])
    assert traces(folder, limit=2)[0].levels[0].strongest == "“no” −3.0, “maybe” −1.5"


def test_one_rollout_is_shown_under_all_its_contexts_from_poor_to_rich():
    rows = [trace(["a"], [0.0], context) for context in ("solution", "own level", "stripped")]
    (shown,) = traces(SimpleNamespace(traces=rows), limit=1)
    assert [level.label.split(":")[0] for level in shown.levels] == ["c = s∖think", "c = s", "own level"]


def test_damaged_traces_are_shown_as_far_as_they_go():
    rows = [{"id": "a", "tokens": ["x", "y"]}, {"id": "b"}, {"id": "a", "tokens": ["x"], "log_ratio": ["?", 1.0]}]
    (shown,) = traces(SimpleNamespace(traces=rows), limit=1)
    assert [level.html.count("no value") for level in shown.levels] == [2, 1]


@pytest.mark.parametrize(
    ("ratios", "limit"),
    [([], 1), ([0.0, 0.01], 1), ([-0.3, 0.2], 1), ([-2.2] * 50, 3), ([-2.2] * 99 + [-9.0], 3), ([-30.0] * 3, 6)],
)
def test_the_scale_ends_where_nearly_all_values_do(ratios, limit):
    assert color_limit([trace(["a"] * len(ratios), ratios)]) == limit
