"""The results pages say what their data say: tables, figures, headline, and the data's archives."""

from pathlib import Path

import pytest

from archived_study import make_archived_study
from calibrated_sd.cli.published import archive_problems
from calibrated_sd.reports.published import LISTING, build_published, check_published

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """``docs/results``; before it is a published folder, one with a study of the same shape."""
    if (RESULTS / LISTING).is_file():
        return RESULTS
    root = tmp_path_factory.mktemp("results")
    make_archived_study(root / "study/moonshot")
    tables = "{points: {kind: points, from: study/moonshot}, winner: {kind: moonshot, from: study/moonshot}, arms: {kind: arms, from: study/moonshot}}"
    (root / LISTING).write_text(
        f"pages: [index.md]\ntables: {tables}\nfigures: {{forest: {{kind: forest, from: study/moonshot}}}}\n",
        encoding="utf-8",
    )
    blocks = "".join(f"<!-- table: {name} -->\n<!-- /table -->\n" for name in ("points", "winner", "arms"))
    (root / "index.md").write_text(f"# Results\n\n{blocks}\n![Arms](figures/forest.png)\n", encoding="utf-8")
    build_published(root)
    return root


def test_pages_and_figures_match_the_published_data(root):
    assert list(check_published(root).problems) == []


QUICK = ("study/moonshot", "study/moonshot_second_round")
"""Folders small enough to be computed again in every run of the tests; the others take minutes each."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "only", [pytest.param(QUICK, id="small"), pytest.param(None, marks=pytest.mark.study, id="all")]
)
def test_the_published_data_follow_from_their_archives(root, only):
    found = dict(archive_problems(root, only=only))
    assert [problem for problems in found.values() for problem in problems or ()] == []
    assert len(found) > 0
