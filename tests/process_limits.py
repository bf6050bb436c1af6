"""Limits of this process that hold for a block of a test and for nothing after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def soft_limit(which: str, size: int) -> Iterator[None]:
    """Bound a resource, e.g. ``"RLIMIT_FSIZE"``, to so many bytes; a process started within inherits the bound."""
    import resource

    kind = getattr(resource, which)
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)
