"""One `csd bench`: the chosen sections one after the other, and the document that they make."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calibrated_sd.benchmarks.bars import bars
from calibrated_sd.benchmarks.losses import Say, growth_section, loss_section, peers_section
from calibrated_sd.benchmarks.processes import Measurer
from calibrated_sd.benchmarks.profiles import MODEL_STEP, SECTIONS, Profile, check_sections
from calibrated_sd.experiments.provenance import provenance

SCHEMA_VERSION = 1
NO_PEER = "no environment was given; `csd bench --peers DIR` makes one, --peer-python PATH names one"


def run_benchmarks(
    profile: Profile,
    recipe: dict[str, Any],
    *,
    only: Sequence[str] = SECTIONS,
    peer_python: str | Path | None = None,
    device: str = "cpu",
    command: str | None = None,
    why_no_peer: str = NO_PEER,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measure and judge.

    Args:
        profile: sizes and repeats.
        recipe: trainer settings for the section ``step``.
        only: names from `SECTIONS`, and `MODEL_STEP`.
        peer_python: interpreter of an environment with `sdpo-rl`.
        device: ``"cpu"`` or ``"cuda"``, of the losses and of whole models; the organism's trainers choose theirs themselves.
        command: for the provenance; the present command line if None.
        why_no_peer: what is recorded if there is no `peer_python`.
        say: told of every measurement.

    Returns:
        ``{schema_version, kind, profile, device, threads, loss, step, growth, peers, model_step, bars, provenance}``;
        sections that were not asked for are missing.

    Raises:
        ConfigError: an unknown section.
    """
    check_sections(only)
    since = time.monotonic()
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "bench",
        "profile": profile.name,
        "device": device,
        "threads": 1,
    }
    if {"loss", "growth", "peers"} & set(only):
        with Measurer() as measurer:
            if "loss" in only:
                document["loss"] = loss_section(profile, measurer, say, device)
            if "growth" in only:
                document["growth"] = growth_section(profile, measurer, say, device)
            if "peers" in only:
                document["peers"] = peers_section(profile, measurer, peer_python, say, device, why_no_peer)
    if "step" in only:
        from calibrated_sd.benchmarks.steps import step_section

        document["step"] = step_section(profile, recipe, say)
    if MODEL_STEP in only and profile.model_steps is not None:
        from calibrated_sd.benchmarks.model_steps import model_step_section

        document[MODEL_STEP] = model_step_section(profile.model_steps, device, say, profile.seed)
    document["bars"] = bars(document)
    document["provenance"] = provenance(
        command=command, seed=profile.seed, wall_time_s=time.monotonic() - since, marker_sets=("lexical",)
    )
    return document
