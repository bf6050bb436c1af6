"""The headline: shown claims only, and no number that is not theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_published import make_study

from calibrated_sd.errors import ConfigError
from calibrated_sd.records import read_json, write_json
from calibrated_sd.reports.published.headline import headline_problems
from calibrated_sd.reports.published.listing import Headline

C5 = Headline("index.md", ("C5",), "study")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("headline")
    make_study(root / "study", arms=["sdpo"])
    return root


@pytest.mark.parametrize(
    "sentence",
    [
        "SDPO falls by −0.57 [−0.60, −0.53] (n = 273, 3 seeds).",
        "SDPO loses 57 points [53, 60] at 95 % (273 questions).",  # a loss is written without its sign, a share in points
        "SDPO loses 0.567 [0.529, 0.601] of `--steps 16`, see [C5](a/7.md), arXiv:2603.24472, SmolLM2-135M, https://x.y/9.",
        "From 0.78 by −0.57 [−0.60, −0.53].",
    ],
)
def test_sentences_that_agree(root, sentence):
    assert headline_problems(root, C5, sentence) == []


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("SDPO falls by −0.58 [−0.60, −0.53].", ["no figure of claim C5", "−0.58 is no figure"]),
        ("SDPO gains +0.57 [−0.60, −0.53].", ["no figure of claim C5", "+0.57 is no figure"]),
        ("SDPO falls by −0.57 [−0.60, −0.53] with 5 seeds.", ["5 is no figure"]),
        ("SDPO falls by −0.57.", ["no figure of claim C5 stands there with its value and both bounds"]),
        ("SDPO falls a lot.", ["holds no number"]),
        ("From 0.781 by −0.57 [−0.60, −0.53].", ["0.781 is no figure"]),
    ],
)
def test_sentences_that_do_not(root, sentence, words):
    problems = "; ".join(headline_problems(root, C5, sentence))
    assert [part for part in words if part not in problems] == []


def test_settings_are_named_in_the_listing(root):
    sentence = "0.3 policy gradient: −0.57 [−0.60, −0.53]."
    assert headline_problems(root, C5, sentence) == ["0.3 is no figure of C5"]
    assert headline_problems(root, Headline("index.md", ("C5",), "study", (0.3,)), sentence) == []


def test_a_claim_that_is_not_shown_cannot_be_a_headline(root, tmp_path):
    content = read_json(root / "study/claims.json")
    content["claims"][0]["verdict"] = "not shown"
    write_json(tmp_path / "study/claims.json", content)
    assert headline_problems(tmp_path, C5, "−0.57 [−0.60, −0.53]") == ["claim C5 is 'not shown', not 'shown'"]
    with pytest.raises(ConfigError, match="Unknown claim"):
        headline_problems(tmp_path, Headline("index.md", ("C99",), "study"), "1")


@given(st.floats(-0.99, 0.99).filter(lambda v: abs(v) > 0.005), st.integers(2, 4), st.integers(1, 9))
def test_any_change_of_a_digit_is_seen(tmp_path_factory, value, decimals, off):
    """The sentence that a figure itself would give agrees; with another value it does not."""
    root = tmp_path_factory.getbasetemp() / "digits"
    ours = {"d": {"value": value, "lo": value - 2, "hi": value + 2, "n": 10, "unit": "ratio", "method": ""}}
    write_json(root / "study/claims.json", {"claims": [{"id": "C5", "verdict": "shown", "ours": ours}]})

    def sentence(shown):
        return f"{shown:+.{decimals}f} [{value - 2:+.{decimals}f}, {value + 2:+.{decimals}f}]"

    assert headline_problems(root, C5, sentence(value)) == []
    assert headline_problems(root, C5, sentence(value + off * 10.0**-decimals)) != []
