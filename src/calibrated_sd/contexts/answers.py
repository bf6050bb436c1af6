r"""The final answer of a solution: found, taken out, or altered.

A text states its answer in the last ``\boxed{…}``; without one, in what follows the last word "answer" (or "answers", or
the sign ``####`` of GSM8K) on its line: ``The answer is 4.``, ``Answer: 4``, ``#### 4``. Thinking is not searched, unless
there is nothing else.
"""

from __future__ import annotations

import re

from calibrated_sd.contexts.strip import strip_thinking

_BRACES = re.compile(r"(?P<box>\\boxed\s*\{)|\\[{}]|(?P<open>\{)|(?P<close>\})")
_STATED = re.compile(
    r"(?:\banswers?\b(?:[ \t]+(?:is|are|was|equals)\b)?[ \t]*(?:[:=][ \t]*)?|####[ \t]*)(?P<what>\S[^\n]*)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d{1,18}(?:\.\d+)?")  # a bound, because longer ones are no answers but loops


def extract_answer(text: str) -> str | None:
    r"""The final answer that a text states, or None.

    >>> extract_answer(r"So x = 4, hence \boxed{\frac{4}{2}}.")
    '\\frac{4}{2}'
    >>> extract_answer("2 + 2 = 4. The answer is 4.")
    '4'
    """
    for part in (strip_thinking(text), text):
        span = _answer_span(part)
        if span is not None:
            return part[slice(*span)].strip()
    return None


def alter_answer(text: str) -> str | None:
    r"""The same solution with another final answer, or None if it holds no number that could be changed.

    The last number of the stated answer is raised by one; where no answer is stated, the last number of the text.
    Nothing else changes, so that the solution argues for one thing and concludes another.

    >>> alter_answer(r"2 + 2 = 4, so \boxed{4}.")
    '2 + 2 = 4, so \\boxed{5}.'
    """
    thinking = len(text) - len(_after_thinking(text))
    stated = _answer_span(text[thinking:])
    spans = [] if stated is None else [(thinking + stated[0], thinking + stated[1])]
    for start, end in [*spans, (0, len(text))]:
        numbers = list(_NUMBER.finditer(text, start, end))
        if numbers:
            last = numbers[-1]
            return text[: last.start()] + _next_number(last.group()) + text[last.end() :]
    return None


def _after_thinking(text: str) -> str:
    """What follows the last closing tag: a true suffix of the text, where `strip_thinking` may join pieces."""
    return text.rpartition("</think>")[2]


def _next_number(number: str) -> str:
    """One more, written in the same way: 9 → 10, 2.50 → 3.50, 000 (of 1,000) → 001."""
    whole, point, rest = number.partition(".")
    return str(int(whole) + 1).zfill(len(whole)) + point + rest


def _answer_span(text: str) -> tuple[int, int] | None:
    boxed = last_box(text)
    if boxed is not None:
        return boxed
    stated = list(_STATED.finditer(text))
    if not stated:
        return None
    start, end = stated[-1].span("what")
    end = start + len(text[start:end].rstrip())
    # A full stop ends the sentence, not the answer.
    return (start, end - 1) if text[start:end].endswith(".") and end - start > 1 else (start, end)


def last_box(text: str, empty: bool = False) -> tuple[int, int] | None:
    """Where the content of the last complete box stands. One pass: a looping text may open thousands.

    Args:
        text: what is searched. A box that is never closed does not count.
        empty: whether a box with nothing in it counts.
    """
    pending: list[int | None] = []  # start of each open box's content; None for another open brace
    last: tuple[int, int] | None = None
    for brace in _BRACES.finditer(text):
        if brace["box"]:
            pending.append(brace.end())
        elif brace["open"]:
            pending.append(None)
        elif brace["close"] and pending:
            start = pending.pop()
            if (
                start is not None
                and (last is None or start > last[0])
                and (empty or text[start : brace.start()].strip())
            ):
                last = (start, brace.start())
    return last
