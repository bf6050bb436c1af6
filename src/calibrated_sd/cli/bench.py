"""`csd bench`: what calibration costs beside TRL and other packages, measured in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from calibrated_sd.cli.console import console, error_console, quiet_libraries
from calibrated_sd.errors import ConfigError

FIGURE = "cost.png"
DOCUMENT = "bench.json"


def bench_command(
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the measurements there, and no figure.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help=f"Write DIR/{DOCUMENT} and DIR/{FIGURE}.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Sections to run, with commas: loss, step, growth, peers (the default), model_step."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: shows that it works, judges nothing.")] = False,
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="For a GPU: losses at V = 151,936 and steps of a 0.6B model; up to 40 minutes."),
    ] = False,
    device: Annotated[str, typer.Option(help="Where the losses run: cpu or cuda.")] = "cpu",
    peers: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Make a virtual environment with sdpo-rl there (needs a package index)."),
    ] = None,
    peer_python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Interpreter of an environment that has sdpo-rl already.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"Measure nothing; draw {FIGURE} beside this JSON file.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if a bar is not met.")] = False,
) -> None:
    """Measure step time and peak memory beside TRL's trainers and sdpo-rl; print ratios and the bars they must meet.

    loss: the distillation loss at V = 151,936; step: whole training steps of the organism; growth: time and memory along
    positions, vocabulary, contexts and markers; peers: other packages, each in its own environment. One thread. Takes
    about twelve minutes and up to 8 GB of memory; run nothing else meanwhile.

    Examples:

      csd bench --output bench-out --peers bench-peers

      csd bench --only loss,step --json bench.json

      csd bench --gpu --json bench-gpu.json
    """
    if draw is not None:
        _draw(draw, draw.parent / FIGURE)
        return
    if gpu and quick:
        raise ConfigError("--gpu and --quick exclude each other: one is the largest run, the other the smallest.")
    device = "cuda" if gpu else device
    _check(json_file, output, peers, peer_python, device)
    quiet_libraries()
    from calibrated_sd.benchmarks.peers import PeerSetupError, set_up_peers
    from calibrated_sd.benchmarks.profiles import GPU_SECTIONS, SECTIONS, check_sections, load_profile
    from calibrated_sd.benchmarks.run import NO_PEER, run_benchmarks
    from calibrated_sd.cli.recipes import find_recipe
    from calibrated_sd.experiments.recipe import load_plan
    from calibrated_sd.records import write_json

    usual = GPU_SECTIONS if gpu else SECTIONS
    sections = usual if only is None else tuple(name.strip() for name in only.split(","))
    check_sections(sections)
    why_no_peer = NO_PEER
    if peers is not None and "peers" in sections:
        try:
            peer_python = set_up_peers(peers, _say)
        except PeerSetupError as error:
            why_no_peer = str(error)
            _say(why_no_peer)
    document = run_benchmarks(
        load_profile("gpu" if gpu else "quick" if quick else "default"),
        dict(load_plan(find_recipe("organism/reproduce.yaml")).trainer),
        only=sections,
        peer_python=peer_python,
        device=device,
        why_no_peer=why_no_peer,
        say=_say,
    )
    if json_file is not None or output is not None:
        target = json_file if json_file is not None else output / DOCUMENT  # type: ignore[operator]
        write_json(target, document)
        console.print(f"measurements: {target}", highlight=False, markup=False)
        if output is not None:
            _draw(target, output / FIGURE)
    _show(document)
    if strict and not all(bar["met"] for bar in document["bars"]):
        raise typer.Exit(1)


def _check(
    json_file: Path | None, output: Path | None, peers: Path | None, peer_python: Path | None, device: str
) -> None:
    """Refuse what would fail only after minutes of measuring."""
    if json_file is not None and output is not None:
        raise ConfigError("--json and --output exclude each other. --output DIR writes the JSON file, too.")
    if peers is not None and peer_python is not None:
        raise ConfigError("--peers and --peer-python exclude each other. Give one of them.")
    if peer_python is not None and not peer_python.is_file():
        raise ConfigError(
            f"--peer-python {peer_python} does not exist. Give the interpreter of a virtual environment with sdpo-rl "
            "(its bin/python), or let --peers DIR make one."
        )
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"--device must be cpu or cuda, got {device!r}.")
    for path in (json_file, None if output is None else output / DOCUMENT):
        if path is not None and path.is_dir():
            raise ConfigError(f"{path} is a folder, where a file is to be written. Give another name.")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ConfigError("--device cuda was asked for, but torch sees no GPU. Leave it out to measure on the CPU.")


def _say(line: str) -> None:
    error_console.print(line, highlight=False, markup=False)


def _draw(file: Path, figure: Path) -> None:
    from calibrated_sd.benchmarks.drawing import draw_costs, load_document
    from calibrated_sd.records.files import write_bytes

    write_bytes(figure, draw_costs(load_document(file)))
    console.print(f"figure: {figure}", highlight=False, markup=False)


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table

    from calibrated_sd.benchmarks.drawing import named_ratios

    table = Table("measured", "time", "peak memory", title="Ratios, median over repeats", title_justify="left")
    for name, time, memory in named_ratios(document):
        table.add_row(name, time, memory)
    if table.row_count:
        console.print(table)
    bars = Table("bar", "at most", "found", "met", title="Bars", title_justify="left")
    for bar in document["bars"]:
        found = "–" if bar["value"] is None else f"{bar['value']:.3g}"
        bars.add_row(bar["what"], f"{bar['bar']:.3g}", found, {True: "yes", False: "NO", None: "–"}[bar["met"]])
    if bars.row_count:
        console.print(bars)
    _show_model_steps(document.get("model_step"))
    for name, peer in document.get("peers", {}).items():
        if "not_measured" in peer:
            console.print(f"{name} was not measured: {peer['not_measured']}", highlight=False, markup=False)


def _show_model_steps(section: dict[str, Any] | None) -> None:
    if section is None:
        return
    from rich.table import Table

    where = section["device_name"] or section["device"]
    title = f"One step of {section['n_parameters']:,} parameters, {section['dtype']}, {where}"
    table = Table("variant", "completion", "seconds", "peak memory", title=title, title_justify="left")
    for variant in section["variants"]:
        for row in variant["lengths"]:
            peak = row.get("peak_bytes")
            table.add_row(
                variant["label"],
                f"{row['completion_tokens']} tokens",
                row["not_measured"] if "not_measured" in row else f"{row['seconds']['value']:.3g}",
                "–" if peak is None else f"{peak['value'] / 2**30:.2f} GiB",
            )
        longest = variant["longest"].get("completion_tokens")
        if longest is not None:
            table.add_row(variant["label"], f"longest: {longest} tokens", "", "")
    console.print(table)
