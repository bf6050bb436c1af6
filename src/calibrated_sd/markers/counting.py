"""Where a text expresses doubt, and how often."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from calibrated_sd.markers.lexicon import MarkerSet, Phrase
from calibrated_sd.markers.normalise import Folded, fold, lower, not_prose

QUOTE_WORDS = 6
"""A marker is a quotation if these many words in a row, the marker's among them, stand in the prompt as well."""


REACH = 300
"""How far a word of `near` may stand from its phrase; keeps a text without full stops from taking quadratic time."""


class Span(NamedTuple):
    """One marker in a text: ``text[start:end]`` is the phrase, or one of its forms."""

    start: int
    end: int
    phrase: str


def count_markers(text: str, markers: str | MarkerSet = "lexical", prompt: str | None = None) -> Counter[str]:
    """How often each phrase of a set occurs in a text.

    In substring mode this is ``text.lower().count(phrase)`` per phrase, as in the public code of arXiv:2603.24472.

    Args:
        text: a response.
        markers: a marker set, the name of one that ships, or a path (see :meth:`MarkerSet.load`).
        prompt: what the response answers; markers quoted from it are not counted (word mode only).

    Returns:
        Phrase -> count, for the phrases that occur. It is a :class:`collections.Counter`: other phrases read as 0, and
        ``.total()`` is the number of markers.

    Raises:
        ConfigError: unknown marker set.
        DataError: unreadable marker set file.

    >>> dict(count_markers("Wait, that is unlikely. Maybe x = 3?"))
    {'wait': 1, 'unlikely': 1, 'maybe': 1}
    >>> dict(count_markers("Wait, that is unlikely. Maybe x = 3?", "legacy"))
    {'wait': 1, 'maybe': 1, 'likely': 1}
    """
    marker_set = markers if isinstance(markers, MarkerSet) else MarkerSet.load(markers)
    if marker_set.mode == "substring":
        lowered = text.lower()
        counts = ((phrase, lowered.count(phrase)) for phrase in marker_set.phrases)
        return Counter({phrase: n for phrase, n in counts if n})
    return Counter(span.phrase for span in find_spans(text, marker_set, prompt))


def find_spans(text: str, marker_set: MarkerSet, prompt: str | None = None) -> list[Span]:
    """The markers of a text, in order.

    Word mode: whole words, on folded text (case, Unicode form, apostrophes, hyphens), outside code and LaTeX, under
    the conditions of the set. Longer phrases take their words first, so spans never overlap. Substring mode: every
    string that :func:`count_markers` counts; two of *different* phrases may then share letters ("hmmaybe").

    Args:
        text: a response.
        marker_set: what to look for.
        prompt: see :func:`count_markers`.
    """
    if marker_set.mode == "substring":
        return _substrings(lower(text), marker_set)
    folded = fold(text)
    spans = _matcher(marker_set).spans(folded.text)
    if not spans:
        return []
    if prompt:
        spans = _without_quotes(spans, folded.text, prompt)
    spans = [Span(*folded.original(start, end), phrase) for start, end, phrase in spans]
    ignored = not_prose(text)
    if ignored:
        starts = [start for start, _ in ignored]
        # the last range that begins before the span ends is the only one that can reach into it
        spans = [s for s in spans if (i := bisect_left(starts, s.end) - 1) < 0 or ignored[i][1] <= s.start]
    return spans


def per_1k(count: int | float, n_tokens: int | float) -> float:
    """Occurrences per 1000 tokens (or words); nan where there are no tokens.

    >>> per_1k(3, 1500)
    2.0
    """
    return 1000.0 * count / n_tokens if n_tokens else float("nan")


def _substrings(lowered: Folded, marker_set: MarkerSet) -> list[Span]:
    spans = []
    for phrase in marker_set.phrases:
        for start in _occurrences(lowered.text, phrase):
            spans.append(Span(*lowered.original(start, start + len(phrase)), phrase))
    return sorted(spans)


def _occurrences(text: str, string: str) -> Iterator[int]:
    start = text.find(string)
    while start >= 0:
        yield start
        start = text.find(string, start + len(string))


# ------------------------------------------------------------------------------------------------------- word mode
# The text is scanned once per *anchor* (the longest word of a form) with str.find, which runs at memory speed; only
# around the few hits are forms, boundaries and conditions checked. One alternation over all forms is several times slower.

_START = r"(?:\A|[.,;:!?…。\n>(\[—–→•]|(?<!\S)-)"
_SENTENCE = r"(?:\A|[.;:!?…。\n>→•]|(?<!\S)-)"
_THROUGH = r"[\s*_#\"'“”(\[]*"
_OBJECT = re.compile(r"\s+[\w$\\(\"“`|]")
_SENTENCE_END = re.compile(r"[.!?。\n]")
_WORD = re.compile(r"[^\W_]+")


class _Form(NamedTuple):
    phrase: str
    before: re.Pattern[str] | None  # the words before the anchor
    after: re.Pattern[str] | None  # the words after it
    n_words: int
    allowed: Callable[[str, int, int], bool] | None


class _Matcher:
    """A marker set made ready for scanning."""

    def __init__(self, marker_set: MarkerSet) -> None:
        self.anchors: dict[str, list[_Form]] = {}
        for entry in marker_set.entries:
            for form in entry.forms:
                words = list(_WORD.finditer(form))
                anchor = max(words, key=lambda word: word.end() - word.start()) if words else None
                start, end = anchor.span() if anchor else (0, len(form))
                self.anchors.setdefault(form[start:end], []).append(
                    _Form(
                        phrase=entry.text,
                        before=re.compile(_spaced(form[:start]) + r"\Z") if start else None,
                        after=re.compile(_spaced(form[end:])) if end < len(form) else None,
                        n_words=form.count(" ") + 1,
                        allowed=_condition(entry, marker_set.openers) if form == entry.text else None,
                    )
                )

    def spans(self, text: str) -> list[Span]:
        found: list[tuple[int, int, int, str]] = []
        longest = 1
        for anchor, forms in self.anchors.items():
            at = text.find(anchor)
            while at >= 0:
                stop = at + len(anchor)
                for form in forms:
                    start, end = at, stop
                    if form.before is not None:
                        match = form.before.search(text, max(0, at - 60), at)
                        if match is None:
                            continue
                        start = match.start()
                    if form.after is not None:
                        match = form.after.match(text, stop)
                        if match is None:
                            continue
                        end = match.end()
                    if not _whole_word(text, start, end) or (form.allowed and not form.allowed(text, start, end)):
                        continue
                    found.append((start, end, form.n_words, form.phrase))
                    longest = max(longest, form.n_words)
                at = text.find(anchor, stop)
        if longest > 1:
            found = _longest_first(found)
        return [Span(start, end, phrase) for start, end, _, phrase in sorted(found)]


@lru_cache(maxsize=64)
def _matcher(marker_set: MarkerSet) -> _Matcher:
    return _Matcher(marker_set)


def _spaced(part: str) -> str:
    return re.escape(part).replace(r"\ ", r"\s+")


def _whole_word(text: str, start: int, end: int) -> bool:
    """Neither letters nor digits touch the span, nor does a hyphen, apostrophe or underscore join it to some."""
    if start and (text[start - 1].isalnum() or (start > 1 and text[start - 1] in "-'_" and text[start - 2].isalnum())):
        return False
    size = len(text)
    return end >= size or not (
        text[end].isalnum() or (end + 1 < size and text[end] in "-'_" and text[end + 1].isalnum())
    )


def _longest_first(found: list[tuple[int, int, int, str]]) -> list[tuple[int, int, int, str]]:
    kept: list[tuple[int, int, int, str]] = []
    for hit in sorted(found, key=lambda hit: (-hit[2], hit[0] - hit[1], hit[0])):
        at = bisect_right(kept, hit)
        if (at == 0 or kept[at - 1][1] <= hit[0]) and (at == len(kept) or hit[1] <= kept[at][0]):
            kept.insert(at, hit)
    return kept


def _one_of(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(_spaced(word) for word in sorted(words, key=len, reverse=True)) + ")"


def _condition(entry: Phrase, openers: tuple[str, ...]) -> Callable[[str, int, int], bool] | None:
    """The test (text, start, end) -> bool for the conditions of an entry, or None if it has none."""
    tests: list[Callable[[str, int, int], bool]] = []

    def before(pattern: str) -> Callable[[str, int, int], bool]:
        search = re.compile(pattern + r"\Z").search
        return lambda text, start, end: search(text, max(0, start - 60), start) is not None

    if entry.position != "anywhere":
        through = _THROUGH + (rf"(?:{_one_of(openers)}(?![^\W_])[\s,]*)*" if openers else "")
        clause, sentence = before(_START + through), before(_SENTENCE + through)
        admitted = before(rf"(?<![\w'-]){_one_of(entry.after)}\s+") if entry.after else lambda text, start, end: False
        if entry.position == "clause_start":
            tests.append(lambda text, start, end: clause(text, start, end) or admitted(text, start, end))
        else:
            tests.append(
                lambda text, start, end: (
                    sentence(text, start, end)
                    or (clause(text, start, end) and _OBJECT.match(text, end) is not None)
                    or admitted(text, start, end)
                )
            )
    if entry.not_after:
        voided = before(rf"(?<![\w'-]){_one_of(entry.not_after)}\s+")
        tests.append(lambda text, start, end: not voided(text, start, end))
    if entry.not_before:
        follows = re.compile(rf"\s+{_one_of(entry.not_before)}(?![\w])").match
        tests.append(lambda text, start, end: follows(text, end) is None)
    if entry.near_after:
        graded = before(rf"(?<![\w'-]){_one_of(entry.near_after)}\s+")
        near = re.compile(rf"(?<![\w]){_one_of(entry.near)}(?![\w])").search
        tests.append(lambda text, start, end: not (graded(text, start, end) and near(*_sentence(text, start, end))))
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda text, start, end: all(test(text, start, end) for test in tests)


def _sentence(text: str, start: int, end: int) -> tuple[str, int, int]:
    """The text with the bounds of the sentence around a span, at most `REACH` characters away."""
    first, last = max(0, start - REACH), min(len(text), end + REACH)
    begin = max(first, *(text.rfind(mark, first, start) + 1 for mark in ".!?。\n"))
    stop = _SENTENCE_END.search(text, end, last)
    return text, begin, stop.start() if stop else last


def _without_quotes(spans: list[Span], text: str, prompt: str) -> list[Span]:
    grams = _grams(prompt)
    if not grams:
        return spans
    words = list(_WORD.finditer(text))
    starts = [word.start() for word in words]

    def quoted(span: Span) -> bool:
        first = bisect_left(starts, span.start)
        last = bisect_left(starts, span.end) - 1
        for i in range(max(0, last - QUOTE_WORDS + 1), min(first, len(words) - QUOTE_WORDS) + 1):
            if tuple(word.group() for word in words[i : i + QUOTE_WORDS]) in grams:
                return True
        return False

    return [span for span in spans if not quoted(span)]


@lru_cache(maxsize=256)
def _grams(prompt: str) -> frozenset[tuple[str, ...]]:
    words = _WORD.findall(fold(prompt).text)
    return frozenset(tuple(words[i : i + QUOTE_WORDS]) for i in range(len(words) - QUOTE_WORDS + 1))
