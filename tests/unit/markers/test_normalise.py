"""Folding keeps a way back; code and LaTeX are recognised."""

from __future__ import annotations

import pytest

from calibrated_sd.markers.normalise import fold, lower, not_prose


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("WAIT", "wait"),
        ("ｗａｉｔ，", "wait,"),  # full width
        ("it’s re‑examined", "it's re-examined"),  # typographic apostrophe, non-breaking hyphen
        ("let\u00a0me", "let me"),  # no-break space
        ("x² … ½", "x2 … ½"),  # an expansion without letters is left alone
        ("ﬁne", "fine"),  # ligature: one character becomes two
        ("wa\u00adit", "wait"),  # soft hyphen vanishes
        ("e\u0301te\u0301", "été"),  # combining marks compose
        ("İ", "i\u0307"),
    ],
)
def test_fold(text, folded):
    assert fold(text).text == folded


def test_fold_leads_back_to_the_original():
    # e, combining acute, f-i ligature, space, soft hyphen inside "wait"
    text = "e\u0301ﬁ wa\u00adit"
    folded = fold(text)
    assert folded.text == "éfi wait"
    assert folded.original(0, 1) == (0, 2)  # é came from two characters
    assert folded.original(1, 3) == (2, 3)  # f and i from one
    start, end = folded.original(4, 8)
    assert text[start:end] == "wa\u00adit"


def test_lower_leads_back_where_a_capital_becomes_two_characters():
    lowered = lower("İ wait")
    assert lowered.text == "i\u0307 wait"
    assert lowered.original(3, 7) == (2, 6)


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("a ```py\nwait\n``` b", ["```py\nwait\n```"]),
        ("a ```wait", ["```wait"]),  # cut off inside the fence
        ("a `wait` b", ["`wait`"]),
        ("let $x=1$ and $$y$$", ["$x=1$", "$$y$$"]),
        ("it costs $5 and maybe $7", []),
        (r"it costs \$5 and \$7", [r"\$", r"\$"]),
        (r"\(maybe\) or \[wait\]", [r"\(maybe\)", r"\[wait\]"]),
        (r"\begin{align}wait\end{align} so", [r"\begin{align}wait\end{align}"]),
        (r"\text{wait} \check{x} \boxed{ 12 } .", [r"\text{wait}", r"\check{x}", r"\boxed{ 12 }"]),
        ("nothing here", []),
    ],
)
def test_not_prose(text, ignored):
    assert [text[start:end] for start, end in not_prose(text)] == ignored
