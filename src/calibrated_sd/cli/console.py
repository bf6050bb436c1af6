"""The terminal: one console, plain lines when the output is not a terminal."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

console = Console(soft_wrap=not os.isatty(1))
error_console = Console(stderr=True, soft_wrap=True)

IfExists = Annotated[
    str,
    typer.Option("--if-exists", help="What to do with an output folder that is not empty: raise, resume or overwrite."),
]


def quiet_libraries() -> None:
    """Keep progress bars and notices of the libraries out of our output; call before importing them."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
