"""The page of the metrics names every figure that a calibrated trainer logs."""

from pages import ROOT

from calibrated_sd.trainers import metrics, non_finite
from calibrated_sd.trainers.sft import metrics as sft

REFERENCE = ROOT / "docs" / "reference"


def test_every_logged_figure_is_on_its_page():
    pages = {
        "metrics.md": {*metrics.figures(dict.fromkeys(metrics.SUMS, 1.0)), non_finite.SKIPPED},
        "trainers/sft.md": set(sft.figures(dict.fromkeys(sft.SUMS, 1.0) | {"n_tokens": 3.0})),
    }
    assert {len(figures) for figures in pages.values()} == {14, 9}
    for page, figures in pages.items():
        text = (REFERENCE / page).read_text(encoding="utf-8")
        assert {name for name in figures if f"`{name}`" not in text} == set(), page
