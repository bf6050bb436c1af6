"""The parts of a page that are generated: what stands between ``<!-- table: NAME -->`` and ``<!-- /table -->``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from calibrated_sd.errors import ConfigError

TABLE, HEADLINE = "table", "headline"
_OPEN = re.compile(r"^<!-- (table: (?P<name>[A-Za-z0-9_-]+)|headline) -->$")
_CLOSE = {TABLE: "<!-- /table -->", HEADLINE: "<!-- /headline -->"}
_LIKE_A_MARKER = re.compile(r"^\s*<!--\s*/?\s*(table|headline)\b.*-->\s*$")
_WINDOW = 70
MOST_LINES = 3
"""Differences that are told of one table."""


def read_blocks(text: str, page: str) -> dict[str, tuple[int, str]]:
    """Name of each generated block → the number of its first line (from 1) and its text; the headline's name is ``""``.

    Raises:
        ConfigError: a block that is not closed, is closed without being open, stands twice, or a line that is nearly a
            marker and would be passed over.
    """
    found: dict[str, tuple[int, str]] = {}
    kind, name, start = "", "", 0
    lines = [line.rstrip("\r") for line in text.split("\n")]
    for i, line in enumerate(lines):
        opened = _OPEN.match(line)
        if opened and not kind:
            kind, name, start = (TABLE if opened["name"] else HEADLINE), opened["name"] or "", i + 1
            if name in found:
                raise ConfigError(f"{page}, line {i + 1}: this block stands twice on the page. Keep one of them.")
        elif kind and line == _CLOSE[kind]:
            found[name] = (start + 1, "\n".join(lines[start:i]))
            kind = ""
        elif _LIKE_A_MARKER.match(line):
            raise ConfigError(
                f"{page}, line {i + 1}: {line.strip()!r} does not fit here. A table stands between the lines "
                f"'<!-- table: NAME -->' and '{_CLOSE[TABLE]}', a headline between '<!-- headline -->' and "
                f"'{_CLOSE[HEADLINE]}', each marker on a line of its own."
            )
    if kind:
        raise ConfigError(f"{page}, line {start}: the block is not closed. Add the line '{_CLOSE[kind]}'.")
    return found


def write_blocks(text: str, blocks: Mapping[str, str], page: str) -> str:
    """The page with the text of each named block replaced; everything else stays, byte for byte."""
    places = {first: name for name, (first, _) in read_blocks(text, page).items() if name in blocks}
    result: list[str] = []
    inside = False
    for i, line in enumerate(text.split("\n"), 1):
        inside = inside and line.rstrip("\r") not in _CLOSE.values()
        if i in places:
            result.append(blocks[places[i]])
            inside = line.rstrip("\r") not in _CLOSE.values()  # an empty block ends where it begins
        if not inside:
            result.append(line)
    return "\n".join(result)


def differences(found: str, wanted: str, first_line: int) -> list[str]:
    """Which lines of a block differ, at most ``MOST_LINES``, each with its number on the page and where it differs."""
    old, new = found.split("\n"), wanted.split("\n")
    told: list[str] = []
    more = 0
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for k in range(max(i2 - i1, j2 - j1)):
            if len(told) == MOST_LINES:
                more += 1
                continue
            here = old[i1 + k] if i1 + k < i2 else None
            there = new[j1 + k] if j1 + k < j2 else None
            line = first_line + min(i1 + k, i2 if here is None else i1 + k)
            told.append(f"line {line}: {_apart(here, there)}")
    return [*told, *([f"and {more} more lines"] if more else [])]


def _apart(here: str | None, there: str | None) -> str:
    if here is None:
        return f"missing: {_short(there or '', 0)}"
    if there is None:
        return f"not in the data: {_short(here, 0)}"
    at = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), min(len(here), len(there)))
    return f"is {_short(here, at)}, should be {_short(there, at)}"


def _short(line: str, at: int) -> str:
    """The part of a long line around a position."""
    start = max(0, at - _WINDOW // 2)
    part = line[start : start + _WINDOW]
    return f"'{'…' if start else ''}{part}{'…' if start + _WINDOW < len(line) else ''}'"
