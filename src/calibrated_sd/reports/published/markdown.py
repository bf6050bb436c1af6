"""A table of a published page: Markdown with its conditions and the line that says where it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.reports.canvas import span
from calibrated_sd.reports.scores import Score
from calibrated_sd.reports.tables import number


@dataclass(frozen=True)
class PublishedTable:
    """A table, independent of the page it stands on.

    Attributes:
        columns: headings.
        rows: cells as text, as many as headings.
        conditions: n, seeds and the meaning of the intervals.
        warning: why it must not be taken for a result; empty for a complete table.
        notes: how to read it, one line each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    conditions: str
    warning: str = ""
    notes: tuple[str, ...] = ()

    def to_markdown(self, provenance: str) -> str:
        """The text between a page's markers."""
        lines = ["", f"**{self.warning}**", ""] if self.warning else [""]
        lines += [_row(self.columns), "|" + "---|" * len(self.columns), *(_row(row) for row in self.rows), ""]
        lines += [self.conditions, ""]
        if self.notes:
            lines += [*(f"- {note}" for note in self.notes), ""]
        return "\n".join([*lines, provenance, ""])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", r"\|").split()) for cell in cells) + " |"


def provenance_line(folder: Path, block: Mapping[str, Any], page: Path) -> str:
    """``command · runs at commit · files``, with a link from the page to the folder, file or list of hypotheses."""
    link = Path(os.path.relpath(folder, page.parent)).as_posix()
    if folder.suffix == ".yaml":  # a list of questions; its answers come from the folders it names
        return f"*Decided by* [{folder.name}]({link}) *from the folders that it names*"
    parts = [f"`{block['command']}`"] if block.get("command") else []
    commits = [_commit(text) for text in block.get("runs_made_at") or [] if text]
    if not commits and block.get("commit"):
        commits = [_commit(f"{block['commit']}{' (with uncommitted changes)' if block.get('dirty') else ' (clean)'}")]
    parts += [f"at commit {', '.join(commits)}"] if commits else ["commit unknown"]
    parts.append(f"[files]({link}{'/' if folder.is_dir() else ''})")
    return f"*Generated from* {' · '.join(parts)}"


def _commit(text: str) -> str:
    """The first ten digits of a commit, with what is said of local changes."""
    name, _, rest = text.partition(" ")
    return f"{name[:10]} {rest}".strip()


def score_text(score: Score | None, digits: int, *, signed: bool = False) -> str:
    """``0.78 [0.76, 0.81]``; ``–`` where nothing was measured."""
    if score is None or score.value is None:
        return "–"
    value = number(score.value, digits, signed=signed)
    if score.lo is None or score.hi is None:
        return value
    return f"{value} [{number(score.lo, digits)}, {number(score.hi, digits)}]"


def seeds_of(methods: Iterable[str]) -> list[int]:
    """The numbers of training seeds that interval methods name: ``covers questions and 3 seeds`` → 3."""
    return sorted({int(found[1]) for text in methods if (found := re.search(r"(\d+) seeds?\b", text))})


def samples_of(methods: Iterable[str]) -> list[int]:
    """Samples per question that methods name: ``avg@4; …`` → 4."""
    return sorted({int(found[1]) for text in methods if (found := re.search(r"\bavg@(\d+)", text))})


def counts_text(scores: Iterable[Score | None], what: str = "questions") -> str:
    """``n = 273 questions × 2 samples`` of the shown scores."""
    known = [score for score in scores if score is not None and score.value is not None]
    text = f"n = {span(sorted({score.n for score in known if score.n}))} {what}"
    samples = samples_of(score.method for score in known)
    return text + (f" × {span(samples)} sample{'' if samples == [1] else 's'}" if samples else "")
