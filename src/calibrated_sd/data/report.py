"""What happened to the rows of a file: how many were kept, and which were dropped for what reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5
"""Dropped rows that are shown per reason."""
_SHOWN = 120


@dataclass
class Report:
    """Counts of one preparation. Every row read is kept or dropped for exactly one reason.

    Attributes:
        rows_read: rows of the input, those filtered by the source's own definition included.
        kept: problems written.
        dropped: reason to ``{count, examples}``; an example is ``{row, prompt}``, rows counted from 1, and ``detail``
            where there is more to say.
    """

    rows_read: int = 0
    kept: int = 0
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)

    def drop(self, reason: str, row: int, prompt: object = "", detail: str = "", count: int = 1) -> None:
        """Count dropped rows, and keep the first few as examples."""
        entry = self.dropped.setdefault(reason, {"count": 0, "examples": []})
        entry["count"] += count
        if len(entry["examples"]) < EXAMPLES:
            text = " ".join(str(prompt).split())
            example = {"row": row, "prompt": text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"}
            entry["examples"].append({**example, "detail": detail} if detail else example)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as it stands in ``suite.json``."""
        return {"rows_read": self.rows_read, "kept": self.kept, "dropped": self.dropped}
