"""Figures of a probe from lines written by hand."""

from __future__ import annotations

import math

import pytest

from calibrated_sd.context_analysis.probe_figures import base_density, probe_figures


def line(problem, level, logps, neutral=None, *, mass=1.0, tokens=100, other=-50.0, held_out=(), phrases=None, **more):
    neutral = neutral or [None] * len(logps)
    phrases = phrases or ["wait"] * len(logps)
    return {
        "suite": "s",
        "problem_id": problem,
        "trace": 0,
        "level": level,
        "is_sample": False,
        "tokens": tokens,
        "marker_mass": mass,
        "neutral_mass": 2 * mass,
        "other_tokens": 50,
        "other_logp": other,
        "markers": [
            {"phrase": p, "logp": a, "neutral_logp": b} for p, a, b in zip(phrases, logps, neutral, strict=True)
        ],
        "held_out": [{"phrase": "hold on", "logp": value, "neutral_logp": None} for value in held_out],
        **more,
    }


TWO = [
    line("a", "none", [-1.0, -3.0], [-2.0, -2.0], mass=1.0, other=-50.0, held_out=[-4.0], phrases=["wait", "hmm"]),
    line("a", "solution", [-2.0, -4.0], [-1.0, -2.5], mass=0.5, other=-25.0, held_out=[-4.5], phrases=["wait", "hmm"]),
    line("a", "irrelevant", [-1.5, -3.0], [-2.0, -2.0], mass=0.75, held_out=[-4.0], phrases=["wait", "hmm"]),
    line("b", "none", [-10.0], [-5.0], mass=3.0, other=-100.0),
    line("b", "solution", [-13.0], [-4.0], mass=1.5, other=-80.0),
    line("b", "irrelevant", [-11.0], [-5.0], mass=3.0),
]


def test_by_hand():
    found = probe_figures(TWO)
    figures = found["levels"]["solution"]
    # problems weigh alike: a changes by (−1 − 1) / 2 = −1, b by −3
    assert figures["marker"]["value"] == pytest.approx((-1 - 3) / 2)
    assert figures["marker"]["n"] == 2
    assert figures["neutral"]["value"] == pytest.approx(((1.0 - 0.5) / 2 + 1.0) / 2)  # a .25, b 1
    assert figures["marker_minus_neutral"]["value"] == pytest.approx((-1.25 - 4.0) / 2)
    assert figures["held_out"]["value"] == pytest.approx(-0.5)
    assert figures["other_tokens"]["value"] == pytest.approx((25 / 50 + 20 / 50) / 2)
    assert figures["mass_ratio"]["value"] == pytest.approx((0.5 + 1.5) / (1.0 + 3.0))
    assert figures["by_phrase"]["wait"]["value"] == pytest.approx((-1 - 3) / 2)
    assert figures["by_phrase"]["hmm"]["value"] == pytest.approx(-1.0)
    assert found["levels"]["none"]["marker_mass_per_1k"]["value"] == pytest.approx(1000 * 4 / 200)
    # beyond another's solution: on the markers a (−.5 − 1) / 2 = −.75, b −2
    beyond = found["contrasts"]["irrelevant"]
    assert beyond["marker"]["value"] == pytest.approx((-0.75 - 2.0) / 2)
    gap_a = ((-2.0 + 1.0) - (-1.5 + 2.0) + (-4.0 + 2.5) - (-3.0 + 2.0)) / 2
    gap_b = (-13.0 + 4.0) - (-11.0 + 5.0)
    assert beyond["marker_minus_neutral"]["value"] == pytest.approx((gap_a + gap_b) / 2)
    assert set(found["contrasts"]) == {"irrelevant"}
    assert found["counts"] == {
        "problems": 2,
        "texts": 2,
        "tokens": 200,
        "markers": 3,
        "markers_with_neutral_words": 3,
        "held_out": 1,
    }


def test_intervals_are_paired():
    """Problems differ by tens of nats, the context by one: only a paired interval knows that."""
    rows = []
    for i in range(12):
        change = -1.0 + 0.1 * (-1) ** i
        rows += [line(f"p{i}", "none", [-5.0 * i]), line(f"p{i}", "solution", [-5.0 * i + change])]
    figure = probe_figures(rows)["levels"]["solution"]["marker"]
    assert figure["value"] == pytest.approx(-1.0)
    assert -1.1 <= figure["lo"] < -1.0 < figure["hi"] <= -0.9
    assert "paired" in figure["method"]


def test_more_markers_in_a_text_are_no_more_problems():
    few = [row for i in range(6) for row in (line(f"p{i}", "none", [-1.0]), line(f"p{i}", "wrong", [-1.0 - i]))]
    many = [
        row for i in range(6) for row in (line(f"p{i}", "none", [-1.0] * 50), line(f"p{i}", "wrong", [-1.0 - i] * 50))
    ]
    a, b = (probe_figures(rows)["levels"]["wrong"]["marker"] for rows in (few, many))
    assert a == b
    assert a["n"] == 6


def test_problems_that_lack_a_level_or_neutral_words_are_left_out_of_its_figures():
    rows = [*TWO, line("c", "none", [-1.0]), line("c", "solution", [-2.0]), line("d", "none", [-7.0])]
    figures = probe_figures(rows)["levels"]["solution"]
    assert figures["marker"]["n"] == 3
    assert figures["marker_minus_neutral"]["n"] == 2
    assert (
        probe_figures([line("a", "none", []), line("a", "solution", [])])["levels"]["solution"]["marker"]["value"]
        is None
    )


def test_base_density():
    assert base_density(TWO)["value"] == pytest.approx(20.0)
    built = [line("a", "none", [-1.0], mass=9.0, plain_tokens=50, plain_marker_mass=0.1)]
    assert base_density(built)["value"] == pytest.approx(2.0)
    samples = [line("a", "none", [-1.0], mass=9.0, is_sample=True), line("b", "none", [], mass=9.0, is_sample=True)]
    assert base_density(samples)["value"] == pytest.approx(1000 * 1 / 200)
    assert math.isclose(base_density([*samples, TWO[1]])["value"], 5.0)  # only lines without context count
