"""Which rollouts succeeded, and which of them may serve as a demonstration for which row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Successes:
    """Which rollouts succeeded, over all processes, and what they said."""

    succeeded: list[bool]
    completion_ids: list[list[int]]
    group_size: int
    first_row: int

    def siblings(self, place: int, skip_self: bool) -> list[int]:
        """Successful rows of the same group, in order."""
        start = place // self.group_size * self.group_size
        return [
            other
            for other in range(start, start + self.group_size)
            if self.succeeded[other] and not (skip_self and other == place)
        ]

    def group_fraction(self) -> float:
        """Share of groups with at least one success."""
        groups = range(0, len(self.succeeded), self.group_size)
        return sum(any(self.succeeded[g : g + self.group_size]) for g in groups) / max(1, len(groups))
