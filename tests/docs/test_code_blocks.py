"""Every Python block of the documentation runs, page by page, and prints what the page says it prints."""

import contextlib
import io
import re

import pytest
from pages import PAGES, ROOT, blocks

from calibrated_sd.calibrators import CALIBRATORS

WITH_CODE = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]
NOT_RUN = "notest"
"""Marks lines that belong into the reader's own program; such a page has a whole example beside them."""


@pytest.fixture
def registry():
    """The registry, as it was, after the test: one page adds a method."""
    before = dict(CALIBRATORS)
    yield
    CALIBRATORS.clear()
    CALIBRATORS.update(before)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_runs_and_prints_what_the_page_says(page, registry, tmp_path, monkeypatch):
    """The blocks of a page are one program, in an empty folder; `#> ` marks a line that is printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace = {"__name__": "page"}
    for block in blocks(page):
        if block.language != "python" or NOT_RUN in block.info.split():
            continue
        if block.file:
            (tmp_path / block.file).write_text(block.code, encoding="utf-8")
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, str(page), "exec"), namespace)
        said = re.findall(r"^# ?> (.*)$", block.code, re.M)
        if said:
            assert printed.getvalue().splitlines() == said


def test_blocks_that_are_not_run_are_few_and_compile():
    skipped = [block for page in PAGES for block in blocks(page) if NOT_RUN in block.info.split()]
    for block in skipped:
        compile(block.code, str(block.page), "exec")
    assert len(skipped) <= 8


def test_no_python_hides_behind_another_name():
    """A block without a language, or with a misspelt one, would not be run."""
    known = {"", "bash", "diff", "json", "jsonl", "markdown", "python", "text", "yaml", "toml"}
    for page in PAGES:
        for block in blocks(page):
            assert block.language in known, f"{page.name}: ```{block.info}"
            assert not (block.language == "" and re.search(r"^(from|import) \w+", block.code, re.M)), page.name
