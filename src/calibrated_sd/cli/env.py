"""`csd env`: what a bug report needs."""

from __future__ import annotations

from typing import Annotated

import typer


def env_command(json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print versions, hardware, commit and marker-set hashes, ready to paste into an issue.

    Examples:

      csd env

      csd env --json
    """
    import json

    from calibrated_sd.experiments.provenance import provenance

    block = {key: value for key, value in provenance().items() if value is not None}
    if json_output:
        typer.echo(json.dumps(block, indent=2))
        return
    for key, value in block.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, item in value.items():
                typer.echo(f"  {name}: {item}")
        else:
            typer.echo(f"{key}: {value}")
