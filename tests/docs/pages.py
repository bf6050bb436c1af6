"""The documentation's pages and the code blocks in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CSD_MODULE = "calibrated_sd.cli.main"
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block: what stands behind the fence, and the lines in it."""

    page: Path
    info: str
    code: str

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info.strip() else ""

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, if it is one: ```python title="name.py"."""
        found = re.search(r'title="([^"]+)"', self.info)
        return found.group(1) if found else None


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield Block(page, found["info"].strip(), found["code"])


def commands(block: Block) -> Iterator[list[str]]:
    """The words of every `csd` command of a shell block, also as `-m calibrated_sd.cli.main`; loops, pipes, variables and comments are
    left as they are."""
    for words in lines(block):
        if "csd" in words[:2]:
            yield words[words.index("csd") + 1 :]
        elif CSD_MODULE in words:
            yield words[words.index(CSD_MODULE) + 1 :]


def lines(block: Block) -> Iterator[list[str]]:
    """The words of every command of a shell block."""
    for line in block.code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\||\bdo\b", line.strip()):
            if words := shlex.split(part, comments=True):
                yield words
