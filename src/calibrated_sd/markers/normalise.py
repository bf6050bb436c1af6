"""What a text looks like to the counter: folded characters with a way back, and the parts that are not prose."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

PUNCTUATION = {"’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-"}
IGNORABLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"

NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)"  # fenced code; a fence that a cut-off text never closes runs to its end
    r"|`[^`\n]+`"
    r"|\\\$"  # an escaped dollar opens nothing
    r"|\$\$[^$]+\$\$"
    r"|\$(?![\s$])(?:[^$\\\n]|\\.)*(?<!\s)\$(?!\d)"  # as in Pandoc, so that "$5 and maybe $7" stays prose
    r"|\\\(.{0,5000}?\\\)"
    r"|\\\[.{0,5000}?\\\]"
    r"|\\begin\{([a-z]+\*?)\}.{0,5000}?\\end\{\1\}"
    r"|\\[A-Za-z]+(?:\{[^{}\n]*\})*",  # a command with its arguments: \check{x}, \text{maybe}
    re.DOTALL,
)
_MAY_OPEN = re.compile(r"[`$\\]")


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text; `starts[i]` and `ends[i]` bound folded character i in the original, None: same positions."""

    text: str
    starts: tuple[int, ...] | None = None
    ends: tuple[int, ...] | None = None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The original positions of the folded characters from `start` to `end` (not empty)."""
        if self.starts is None or self.ends is None:
            return start, end
        return self.starts[start], self.ends[end - 1]


def fold(text: str) -> Folded:
    """The text in lower case and NFKC form, with plain apostrophes and hyphens and without invisible characters.

    A character that NFKC would turn into several ones without a letter among them ("…", "½") stays as it is.
    """
    if text.isascii():
        return Folded(text.lower())
    folds = {char: _fold_char(char) for char in set(text) if not char.isascii()}
    if all(len(folded) == 1 for folded in folds.values()) and not any(map(unicodedata.combining, folds)):
        for char, folded in folds.items():
            if char != folded:
                text = text.replace(char, folded)
        return Folded(text.lower())
    return _fold_by_segment(text)


def lower(text: str) -> Folded:
    """`str.lower` with a way back: some capitals become two characters."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return Folded(lowered)
    sizes = [len(char.lower()) for char in text]
    starts = tuple(i for i, size in enumerate(sizes) for _ in range(size))
    return Folded(lowered, starts, tuple(i + 1 for i in starts))


@cache
def _fold_char(char: str) -> str:
    if char in IGNORABLE:
        return ""
    folded = unicodedata.normalize("NFKC", char).lower()
    folded = PUNCTUATION.get(folded, folded)
    return folded if len(folded) == 1 or any(map(str.isalpha, folded)) else char


def _fold_by_segment(text: str) -> Folded:
    """Fold each character together with the combining marks after it, and remember where the pieces came from."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        segment = text[start:end]
        piece = _fold_char(segment) if len(segment) == 1 else unicodedata.normalize("NFKC", segment).lower()
        pieces.append(piece)
        starts.extend([start] * len(piece))
        ends.extend([end] * len(piece))
        start = end
    return Folded("".join(pieces), tuple(starts), tuple(ends))


def not_prose(text: str) -> list[tuple[int, int]]:
    """Ranges of code and LaTeX, in order: Markdown fences and inline code, math between dollars, brackets or
    begin/end, and LaTeX commands with their arguments."""
    if not _MAY_OPEN.search(text):
        return []
    return [match.span() for match in NOT_PROSE.finditer(text)]
