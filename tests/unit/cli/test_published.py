"""`csd report` on a published folder: what it prints, its exit codes, and data that do not follow from their archive."""

import shutil

import pytest
from typer.testing import CliRunner

from archived_study import make_archived_study
from calibrated_sd.cli.main import app
from calibrated_sd.cli.published import archive_problems, first_difference
from calibrated_sd.records import read_json, write_json

LISTING = "pages: [index.md]\ntables: {points: {kind: points, from: study/sweep}}\n"
PAGE = "# Results\n\n<!-- table: points -->\n<!-- /table -->\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "results"
    make_archived_study(root / "study/sweep")
    (root / "index.md").write_text(PAGE, encoding="utf-8")
    (root / "published.yaml").write_text(LISTING, encoding="utf-8")
    assert run(root).exit_code == 0
    return root


@pytest.fixture
def root(built, tmp_path):
    return shutil.copytree(built, tmp_path / "results")


def run(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_folder_is_built_once_and_checked(root):
    again = run(root)
    assert again.exit_code == 0
    assert "everything is up to date" in again.output
    check = run(root, "--check")
    assert check.exit_code == 0, check.output
    assert "1 tables and 0 figures match their data" in check.output
    (root / "index.md").write_text(PAGE, encoding="utf-8")
    assert run(root, "--check").exit_code == 1
    assert (root / "index.md").read_text(encoding="utf-8") == PAGE


def test_a_source_is_checked_with_the_folder_that_publishes_it(root):
    check = run(root / "study/sweep", "--check")
    assert check.exit_code == 0
    assert "is published by" in check.output


def test_a_result_that_does_not_follow_from_its_archive_is_drift(root):
    file = root / "study/sweep/results.json"
    results = read_json(file)
    arm = next(arm for arm in results["arms"] if arm["name"] == "winner")
    arm["figures"]["accuracy"]["value"] = 0.99
    write_json(file, results)
    assert run(root).exit_code == 0  # the page follows the file …
    check = run(root, "--check")
    assert check.exit_code == 1  # … and the file does not follow from the archive
    assert (
        "study/sweep/results.json does not follow from archive.json.gz: arms[winner].figures.accuracy.value is 0.99"
        in check.output
    )
    pages = run(root, "--check", "--no-archives")
    assert pages.exit_code == 0
    assert "follow from their archives was not checked" in pages.output


def test_a_row_of_a_table_is_named(root):
    file = root / "study/sweep/results.csv"
    lines = file.read_text(encoding="utf-8").split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("winner,all,ood,2,accuracy"))
    cells = lines[at].split(",")
    cells[5] = "0.5"
    lines[at] = ",".join(cells)
    file.write_text("\n".join(lines), encoding="utf-8")
    (((source, problems)),) = archive_problems(root)
    assert source == "study/sweep"
    assert len(problems) == 1
    assert (
        f"results.csv does not follow from archive.json.gz: row {at + 1} (winner, all, ood, 2, accuracy): value is 0.5"
        in problems[0]
    )


def test_an_older_folder_without_archive_is_passed_over_and_said(root):
    (root / "study/sweep/archive.json.gz").unlink()
    run(root)
    check = run(root, "--check")
    assert check.exit_code == 0, check.output
    assert "note: study/sweep has no archive.json.gz" in check.output


def test_a_damaged_archive_is_a_problem_in_words(root):
    (root / "study/sweep/archive.json.gz").write_bytes(b"no archive")
    (((_, problems)),) = archive_problems(root)
    assert problems[0].startswith("study/sweep/archive.json.gz: ")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": 1.0, "provenance": 1}, {"a": 1.0 + 1e-12, "provenance": 2}, None),
        ({"a": 1.0}, {"a": 1.0 + 1e-6}, "a is 1.0, should be 1.000001"),
        ({"a": None}, {"a": 0}, "a is None, should be 0"),
        ({"a": True}, {"a": 1.5}, "a is True, should be 1.5"),
        (
            {"c": [{"id": "C5", "v": "shown"}]},
            {"c": [{"id": "C5", "v": "not shown"}]},
            "c[C5].v is 'shown', should be 'not shown'",
        ),
        ({"c": [1]}, {"c": [1, 2]}, "c has 1 entries, should have 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "b is missing"),
        ({"a": 1, "b": 2}, {"a": 1}, "b is too much"),
    ],
)
def test_where_two_files_differ(tmp_path, old, new, told):
    assert first_difference(write_json(tmp_path / "old.json", old), write_json(tmp_path / "new.json", new)) == told
