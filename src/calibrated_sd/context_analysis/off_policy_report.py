"""What the off-policy data sets hold, with intervals over problems, and how well the controls match. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from calibrated_sd.context_analysis.off_policy import Answer, OffPolicy, Pairs
from calibrated_sd.evaluation.statistics import (
    mean_interval,
    paired_difference,
    rate_per_1k_interval,
    ratio_interval,
)
from calibrated_sd.records import MARKER_COUNTS


def off_policy_figures(built: OffPolicy) -> dict[str, Any]:
    """The content of ``report.json``.

    Returns:
        ``sets``: counts, tokens, lengths and markers of each file; ``pairs`` and ``length_matched``: differences
        D_ug − D_sg in length and markers over the same problems, the residual of the match among them;
        ``token_matched``: how far each control is from its target.
    """
    tokens = {name: sum(a.n_tokens for a in rows) for name, rows in built.sets.items()}
    found: dict[str, Any] = {
        "sets": {name: set_figures(rows) for name, rows in built.sets.items()},
        "skipped": dict(built.skipped),
        "cut_answers_left_out": built.n_cut,
        "pairs": pair_figures(built.pairs),
        "length_matched": {
            **pair_figures(built.closest),
            "n_pairs_left_out": len(built.pairs) - len(built.closest),
        },
        "token_matched": {},
    }
    for name, target in (("D_ug_token_matched", "D_sg"), ("D_sg_token_matched", "D_ug")):
        if name in tokens:
            found["token_matched"][name] = {
                "target_tokens": tokens[target],
                "tokens": tokens[name],
                "residual_tokens": tokens[name] - tokens[target],
                "residual_share": (tokens[name] - tokens[target]) / tokens[target],
            }
    return found


def set_figures(rows: Sequence[Answer]) -> dict[str, Any]:
    """Counts and figures of one data set; a problem's examples are averaged first where it has several."""
    columns: dict[str, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        columns["n_tokens"][row.key].append(row.n_tokens)
        for name in MARKER_COUNTS:
            columns[name][row.key].append(row.markers[name])
    shown: dict[str, Any] = {
        "examples": len(rows),
        "different_examples": len({(row.key, row.completion) for row in rows}),
        "problems": len({row.key for row in rows}),
        "tokens": sum(row.n_tokens for row in rows),
        "n_tokens": mean_interval(columns["n_tokens"], unit="tokens"),
    }
    for name in MARKER_COUNTS:
        shown[f"{name}_per_response"] = mean_interval(columns[name], unit="per response")
        shown[f"{name}_per_1k"] = rate_per_1k_interval(columns[name], columns["n_tokens"])
    return shown


def pair_figures(pairs: Pairs) -> dict[str, Any]:
    """D_ug − D_sg over the same problems, in tokens and markers per response; ratio and mean gap of the lengths."""
    ug, sg = ({pair[side].key: pair[side] for pair in pairs} for side in (0, 1))

    def column(side: dict[Any, Answer], name: str) -> dict[Any, float]:
        return {key: float(a.n_tokens if name == "n_tokens" else a.markers[name]) for key, a in side.items()}

    shown: dict[str, Any] = {"n_pairs": len(pairs)}
    for name in ("n_tokens", *MARKER_COUNTS):
        unit = "tokens" if name == "n_tokens" else "per response"
        difference, p_value = paired_difference(column(ug, name), column(sg, name), unit=unit)
        shown[f"{name}_difference"] = {**difference, "p_value": p_value}
    shown["length_ratio"] = ratio_interval(column(ug, "n_tokens"), column(sg, "n_tokens"))
    gaps = {a.key: float(abs(a.n_tokens - b.n_tokens)) for a, b in pairs}
    shown["mean_length_gap"] = mean_interval(gaps, unit="tokens")
    return shown
