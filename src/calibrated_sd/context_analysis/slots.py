"""Where a text doubts, in tokens, and which neutral words could have stood there instead."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from calibrated_sd.context_analysis.hedge_sentences import neutral_words
from calibrated_sd.markers import MarkerSet, find_spans, token_ranges


@dataclass(frozen=True)
class Slot:
    """One marker of a text.

    Attributes:
        phrase: the marker.
        start, stop: its tokens are ``start … stop − 1``: all that hold a letter of it.
        neutral_ids: one-token neutral words that could stand where it begins; empty where the tokenizer has none.
    """

    phrase: str
    start: int
    stop: int
    neutral_ids: tuple[int, ...] = ()


def find_slots(
    tokenizer: Any, ids: Sequence[int], marker_set: MarkerSet, avoid: Collection[int] = (), neutral: bool = True
) -> list[Slot]:
    """The markers of a tokenised text, traced back to tokens by their characters (see `markers.alignment`).

    Args:
        tokenizer: any Hugging Face tokenizer.
        ids: the text.
        marker_set: what to look for.
        avoid: ids that are never neutral: the markers' own.
        neutral: whether to look for neutral words.
    """
    text, ranges = token_ranges(tokenizer, ids)
    ends = [end for _, end in ranges]
    slots = []
    for span in find_spans(text, marker_set):
        start = bisect_right(ends, span.start)  # the first token that ends after the marker begins
        stop = start
        while stop < len(ranges) and ranges[stop][0] < span.end:
            stop += 1
        if start == stop:
            continue
        found: tuple[int, ...] = ()
        if neutral:
            begin = ranges[start][0]
            before, lead = text[max(0, begin - 1) : begin], text[begin : span.start]
            words = neutral_words(span.phrase, _opens_clause(text[: span.start]))
            if text[span.start].isupper():
                words = tuple(word.capitalize() for word in words)
            candidates = (_one_token(tokenizer, before, lead + word) for word in words)
            found = tuple(i for i in candidates if i is not None and i not in avoid)
        slots.append(Slot(span.phrase, start, stop, found))
    return slots


def _opens_clause(before: str) -> bool:
    stripped = before.rstrip(" ")
    return not stripped or stripped[-1] in "\n.,;:!?…>"


def _one_token(tokenizer: Any, before: str, surface: str) -> int | None:
    """The id of the token that spells exactly `surface` after `before`; None if it takes more than one."""
    ids = list(tokenizer(before + surface, add_special_tokens=False)["input_ids"])
    text, ranges = token_ranges(tokenizer, ids)
    if not ranges or not text.endswith(surface):
        return None
    start, end = ranges[-1]
    return ids[-1] if text[start:end] == surface else None
