"""Markers in token space: ids that begin a marker, and token positions that a marker covers.

Works with any Hugging Face tokenizer, because it only decodes: what a tokenizer calls its pieces ("Ġwait", "▁wait",
"##wait") never enters. Nothing is imported from transformers; tokenizers are known by their methods.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor

from calibrated_sd.errors import ConfigError
from calibrated_sd.markers.counting import find_spans
from calibrated_sd.markers.lexicon import MarkerSet
from calibrated_sd.markers.normalise import fold
from calibrated_sd.shapes import MarkerIds, TokenIds, TokenMask

LEADS = ("", "a ", " ", "\n", "\n\n", ". ", "(", '"', "**")
"""What can stand before a marker; each may lead a tokenizer to another first token."""

_PIECES: WeakKeyDictionary[Any, dict[int, str]] = WeakKeyDictionary()


def marker_token_ids(tokenizer: Any, marker_set: MarkerSet) -> MarkerIds:
    """Ids of the tokens that begin a marker of one word, in every surface variant.

    Variants are lower case, Capital and UPPER case, at the start of a text, after a space, a line break, punctuation
    or an opening mark. The first token of a variant is kept if it spells the whole word, or at least `distinct_from`
    letters of it (see :class:`Phrase`). Shorter pieces begin unrelated words ("like" of "likely", "alter" of
    "alternatively") and are left out, as are phrases of several words ("i think": "i" begins anything) and entries
    with ``token: false``. What is left out is not protected, so the mass is a lower bound.

    Args:
        tokenizer: any Hugging Face tokenizer.
        marker_set: the phrases. `lexical` for training; ids cannot see word senses, so its conditions do not apply.

    Returns:
        (M,) int64, sorted, without repeats.

    Raises:
        ConfigError: no marker has such a first token, so a calibrator would do nothing.
    """
    wanted: dict[str, int] = {}
    for entry in marker_set.entries:
        for form in entry.forms:
            if entry.token and form.isalnum():
                wanted[form] = entry.distinct_from if form == entry.text and entry.distinct_from else len(form)
    ids: set[int] = set()
    for word, enough in wanted.items():
        for variant in dict.fromkeys((word, word.capitalize(), word.upper())):
            for lead in LEADS:
                first = _first_token(tokenizer, lead + variant, word)
                if first is None:
                    continue
                spelled = _letters(first[1])
                if len(spelled) >= enough and word.startswith(spelled):
                    ids.add(first[0])
    if not ids:
        raise ConfigError(
            f"No phrase of the marker set {marker_set.name!r} begins with a token of its own in this tokenizer, so a "
            "calibrator would have nothing to act on. Use a set with words that the tokenizer knows "
            "(calibration_markers), or give `distinct_from` to the phrases whose first pieces are safe."
        )
    return torch.tensor(sorted(ids), dtype=torch.int64)


def marker_token_mask(
    tokenizer: Any,
    completion_ids: TokenIds,
    marker_set: MarkerSet,
    completion_mask: TokenMask | None = None,
    prompts: Sequence[str] | None = None,
    begins_only: bool = False,
) -> Bool[Tensor, "B T"]:
    """Which tokens of each completion belong to a marker, under the same rules as counting in text.

    The completion is decoded, markers are found in the text, and their characters are traced back to tokens. Tokens
    that only decode together (the bytes of one character) are covered together.

    Args:
        tokenizer: any Hugging Face tokenizer.
        completion_ids: (B, T).
        marker_set: what to look for.
        completion_mask: 1 where a position counts, (B, T). Default: all but the padding at the end of a row.
        prompts: one text per row; markers quoted from it are left out, as in :func:`count_markers`.
        begins_only: only the first token of each marker, so that the number of tokens is that of markers.

    Returns:
        (B, T), on the device of `completion_ids`; always within the completion.
    """
    result = torch.zeros_like(completion_ids, dtype=torch.bool)
    pad = getattr(tokenizer, "pad_token_id", None)
    rows = completion_ids.tolist()
    masks = completion_mask.tolist() if completion_mask is not None else [None] * len(rows)
    for b, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        if mask is not None:
            positions = [t for t, counts in enumerate(mask) if counts]
        else:
            size = len(row)
            while size and row[size - 1] == pad:
                size -= 1
            positions = list(range(size))
        text, ranges = token_ranges(tokenizer, [row[t] for t in positions])
        ends = [end for _, end in ranges]
        hits = []
        for span in find_spans(text, marker_set, prompts[b] if prompts is not None else None):
            i = bisect_right(ends, span.start)  # first token that ends after the span begins
            while i < len(ranges) and ranges[i][0] < span.end:
                if ranges[i][0] < ranges[i][1]:
                    hits.append(positions[i])
                    if begins_only:
                        break
                i += 1
        if hits:
            result[b, torch.tensor(hits, device=result.device)] = True
    return result


def token_ranges(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The decoded text of some tokens (special ones included), and the character range of each token in it.

    Args:
        tokenizer: any Hugging Face tokenizer.
        ids: token ids of one completion.

    Returns:
        The text, and one (start, end) per token, in order. Tokens that only decode together share their range.
    """
    if not ids:
        return "", []
    decode = _decoder(tokenizer)
    pieces = _PIECES.setdefault(tokenizer, {})
    parts: list[str | None] = [decode([ids[0]])]
    for i in ids[1:]:
        piece = pieces.get(i)
        if piece is None:
            # what a token adds to a text: the first token of a text may lose its space, the second does not
            once = decode([i])
            piece = pieces[i] = decode([i, i])[len(once) :]
        parts.append(piece)
    text = decode(list(ids))
    if "".join(filter(None, parts)) != text:
        text, parts = _decode_gradually(decode, ids)
    ranges: list[tuple[int, int]] = []
    end = 0
    for part in parts:
        start, end = (end, end + len(part)) if part is not None else ranges[-1]
        ranges.append((start, end))
    return text, ranges


def _decoder(tokenizer: Any) -> Callable[[list[int]], str]:
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _decode_gradually(decode: Callable[[list[int]], str], ids: Sequence[int]) -> tuple[str, list[str | None]]:
    """Decode token by token, each in view of the ones before it; None marks a token that shares the part before it.

    A text that ends in U+FFFD waits for further bytes, at most four tokens long (the most bytes a character has). Where
    byte tokens follow on each other, one that fits nowhere can spoil those before it, which then count as decoded with it.
    """
    groups: list[tuple[int, int, str]] = []  # ids[first:stop] and what they add to the text
    done = 0  # ids[done:] is not decoded yet
    for stop in range(1, len(ids) + 1):
        text, new = _added(decode, ids, groups, done, stop)
        if (text if new is None else new).endswith("\ufffd") and stop < len(ids) and stop - done < 4:
            continue
        while new is None:
            done = groups.pop()[0]
            text, new = _added(decode, ids, groups, done, stop)
        groups.append((done, stop, new))
        done = stop
    parts: list[str | None] = []
    for first, stop, text in groups:
        parts.append(text)
        parts.extend([None] * (stop - first - 1))
    return "".join(text for _, _, text in groups), parts


def _added(
    decode: Callable[[list[int]], str], ids: Sequence[int], groups: list[tuple[int, int, str]], done: int, stop: int
) -> tuple[str, str | None]:
    """The text of ids[…:stop], and what ids[done:stop] add to it; None where they change what was before."""
    at, width = len(groups), 1
    while at > 0:  # further back, until what is before reads by itself as it does in the whole
        at, width = max(0, at - width), 2 * width
        start = groups[at][0]
        view = decode(list(ids[start:done]))
        known = "".join(text for _, _, text in groups[at:])
        if at == 0 or (view and view in (known, known.removeprefix(" "))):  # a text's first token may lose its space
            joint = decode(list(ids[start:stop]))
            return joint, joint[len(view) :] if joint.startswith(view) else None
    joint = decode(list(ids[:stop]))
    return joint, joint


def _first_token(tokenizer: Any, text: str, word: str) -> tuple[int, str] | None:
    """The token in which `word`, the end of `text`, begins: its id and its text. None if decoding loses the word."""
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    decoded, ranges = token_ranges(tokenizer, ids)
    folded = fold(decoded)
    at = folded.text.rfind(word)
    if at < 0:
        return None
    start, _ = folded.original(at, at + len(word))
    for token, (begin, end) in zip(ids, ranges, strict=True):
        if begin <= start < end:
            return token, decoded[begin:end]
    return None


def _letters(piece: str) -> str:
    """A piece in folded form without the spaces and marks around it."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", fold(piece).text)
