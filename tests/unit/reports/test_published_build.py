"""A published folder is built and checked: every kind of drift is named, nothing outside of the markers is touched."""

import shutil

import pytest
from synthetic_published import PAGE, make_published

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.records import figure, read_json, write_json
from calibrated_sd.reports.published import build_published, check_published


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = make_published(tmp_path_factory.mktemp("built") / "results", arms=["policy_gradient", "sdpo"])
    build_published(root)
    return root


@pytest.fixture
def root(built, tmp_path):
    return shutil.copytree(built, tmp_path / "results")


def problems(root):
    return list(check_published(root).problems)


def test_a_built_folder_has_no_problem_and_a_second_build_changes_nothing(built):
    assert check_published(built).problems == ()
    assert build_published(built) == []
    page = (built / "index.md").read_text(encoding="utf-8")
    for part in PAGE.split("<!-- /table -->\n"):
        assert part.split("\n<!-- table:")[0] in page
    assert "| policy gradient |" in page
    assert (
        "*Generated from* `csd reproduce --recipe study/claims --full` · at commit 0123456789 (clean) · [files](study/claims/)"
        in page
    )


def test_a_folder_that_was_never_built(tmp_path):
    root = make_published(tmp_path, arms=["sdpo"])
    found = problems(root)
    assert sum("missing: '| claim |" in problem or "missing: '| arm |" in problem for problem in found) == 2
    assert "figures/forest.png, figure forest: the file is missing" in found
    assert (root / "index.md").read_text(encoding="utf-8") == PAGE  # the check writes nothing
    assert not (root / "figures").exists()


def test_an_edited_number_is_named_with_its_line(root):
    page = root / "index.md"
    lines = page.read_text(encoding="utf-8").split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("| policy gradient |"))
    lines[at] = lines[at].replace("0.91 [0.89", "0.95 [0.89")
    page.write_text("\n".join(lines), encoding="utf-8")
    ((found),) = problems(root)
    assert found.startswith(f"index.md, table arms: line {at + 1}: is ")
    assert "0.95 [0.89" in found
    assert build_published(root) == [page]
    assert problems(root) == []


def test_changed_data_are_drift_of_every_table_and_figure_made_from_them(root):
    summary = root / "study/claims/summary.csv"
    summary.write_text(summary.read_text(encoding="utf-8").replace(",0.91,", ",0.92,"), encoding="utf-8")
    found = problems(root)
    assert any(problem.startswith("index.md, table arms: ") for problem in found)
    assert "figures/forest.png, figure forest: it was drawn from other data" in found
    assert not any("table claims" in problem for problem in found)
    changed = build_published(root)
    assert [path.name for path in changed] == ["index.md", "forest.png"]
    assert problems(root) == []


def test_another_choice_of_arms_is_another_figure(root):
    listing = root / "published.yaml"
    listing.write_text(
        listing.read_text(encoding="utf-8").replace("{kind: forest,", "{kind: forest, arms: [sdpo],"), encoding="utf-8"
    )
    assert problems(root) == ["figures/forest.png, figure forest: it was drawn from other data"]


def test_a_headline_that_the_claims_left_behind(root):
    claims = read_json(root / "study/claims/claims.json")
    claims["claims"][0]["ours"]["ood_sdpo_minus_base"] = figure(
        -0.40, -0.45, -0.35, 273, "share", "covers questions and 3 seeds"
    )
    write_json(root / "study/claims/claims.json", claims)
    build_published(root)  # the sentence is written by hand, so that is not enough
    found = problems(root)
    assert "index.md, headline: no figure of claim C5 stands there with its value and both bounds" in found
    assert "index.md, headline: −0.57 is no figure of C5" in found
    (root / "index.md").write_text(
        (root / "index.md").read_text(encoding="utf-8").replace("headline -->", "-->"), encoding="utf-8"
    )
    assert any("headline: the page has no lines '<!-- headline -->'" in problem for problem in problems(root))


def test_a_table_without_a_place_and_a_place_without_a_table(root):
    page = root / "index.md"
    page.write_text(page.read_text(encoding="utf-8").replace("table: arms", "table: armz"), encoding="utf-8")
    assert problems(root) == [
        "table arms stands on no page; put '<!-- table: arms -->' and '<!-- /table -->' where it belongs",
        "index.md has a place for a table armz that published.yaml does not list",
    ]
    with pytest.raises(ConfigError, match="table arms stands on no page"):
        build_published(root)


def test_a_figure_that_no_page_shows(root):
    page = root / "index.md"
    page.write_text(
        page.read_text(encoding="utf-8").replace("(figures/forest.png)", "(figures/other.png)"), encoding="utf-8"
    )
    assert problems(root) == ["figures/forest.png, figure forest: no page shows it"]


def test_one_broken_source_hides_nothing_else_and_is_not_half_built(root):
    (root / "study/claims/summary.csv").unlink()
    page = root / "index.md"
    page.write_text(page.read_text(encoding="utf-8").replace("**shown**", "**contradicted**"), encoding="utf-8")
    before = page.read_bytes()
    found = problems(root)
    assert any(problem.startswith("index.md, table claims: line") for problem in found)
    assert any("table arms" in problem and "has no summary.csv" in problem for problem in found)
    with pytest.raises(DataError, match=r"Table arms of .*has no summary\.csv"):
        build_published(root)
    assert page.read_bytes() == before


def test_a_note_of_the_listing_stands_above_its_table(root):
    listing = root / "published.yaml"
    listing.write_text(
        listing.read_text(encoding="utf-8").replace("{kind: claims,", "{kind: claims, note: Seen late.,"),
        encoding="utf-8",
    )
    build_published(root)
    assert "<!-- table: claims -->\n\nSeen late.\n\n| claim |" in (root / "index.md").read_text(encoding="utf-8")
