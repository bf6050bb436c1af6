"""Nested subsets of a problem set: how many different problems does a training run see? (paper §6.2)"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from calibrated_sd.errors import ConfigError

FULL = "full"
"""The size that stands for all problems."""


def parse_sizes(text: str) -> list[int | None]:
    """Sizes as written on the command line, ``1,8,64,full``, in rising order; None is the full set.

    Raises:
        ConfigError: something that is neither a number from 1 nor ``full``, or nothing at all.
    """
    sizes: set[int] = set()
    full = False
    for part in filter(None, (word.strip() for word in text.split(","))):
        if part.lower() == FULL:
            full = True
        elif part.isdecimal() and int(part) > 0:
            sizes.add(int(part))
        else:
            raise ConfigError(f"--sizes holds {part!r}. Give numbers from 1 and {FULL!r}, e.g. 1,8,64,128,512,full.")
    if not sizes and not full:
        raise ConfigError(f"--sizes names no size. Give numbers from 1 and {FULL!r}, e.g. 1,8,64,128,512,full.")
    return [*sorted(sizes), *([None] if full else [])]


def subset_name(size: int | None, rows: int) -> str:
    """``"8x8"`` for 8 problems written 8 times, ``"128"`` for 128 written once, ``"full"``.

    >>> [subset_name(size, 64) for size in (1, 8, 64, 128, None)]
    ['1x64', '8x8', '64', '128', 'full']
    """
    if size is None:
        return FULL
    return f"{size}x{rows // size}" if size < rows else str(size)


def coverage_subsets(
    problems: Sequence[Mapping[str, Any]], sizes: Sequence[int | None], *, rows: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Subsets of different problems, every one part of the next larger one.

    One shuffle decides the order, and a subset is the beginning of it. A subset of fewer than ``rows`` problems is
    written over and over until it has ``rows`` rows, so that a step over the file takes the same number of prompts.

    Args:
        problems: different problems.
        sizes: how many each subset has; None for all.
        rows: rows of the files of small subsets; 1 repeats nothing.
        seed: of the shuffle.

    Raises:
        ConfigError: more problems wanted than there are, or a small size that does not divide ``rows``.
    """
    if rows < 1:
        raise ConfigError(f"--rows must be at least 1, got {rows}.")
    for size in sizes:
        if size is not None and size > len(problems):
            raise ConfigError(
                f"A subset of {size} problems is wanted, but there are only {len(problems)} different ones. Leave the "
                f"size out, or use {FULL!r}."
            )
        if size is not None and size < rows and rows % size:
            raise ConfigError(
                f"{size} problems cannot be repeated to exactly {rows} rows. Give --rows a multiple of {size}, or 1 to "
                "write every problem once."
            )
    order = list(range(len(problems)))
    random.Random(f"coverage-{seed}").shuffle(order)
    subsets = {}
    for size in sizes:
        chosen = [dict(problems[i]) for i in (order if size is None else order[:size])]
        times = rows // size if size is not None and size < rows else 1
        subsets[subset_name(size, rows)] = chosen * times
    return subsets
