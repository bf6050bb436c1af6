"""What the campaigns of faults and bad input have tried, in the lines that pytest ends with.

A test says `record_property("counted", ["kill -9 of csd train", 14])`; tests with the same words are added up.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

COUNTED = "counted"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []) if report.when == "call" else []:
                if name == COUNTED:
                    tried[value[0]] += value[1]
                    failed[value[0]] += outcome == "failed"
    if tried:
        terminalreporter.section("faults and bad input: what was tried")
        for words, number in sorted(tried.items()):
            terminalreporter.line(f"{words}: {number:,} tried, failures {failed[words]}")
