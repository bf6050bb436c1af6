"""From a published folder's small files to the tables on its pages and its figures; and the check that they agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibrated_sd.errors import CalibratedSDError, ConfigError
from calibrated_sd.records.files import write_bytes
from calibrated_sd.reports.canvas import drawn_from
from calibrated_sd.reports.published.arms_table import arms_table, summary_rows_table
from calibrated_sd.reports.published.blocks import differences, read_blocks, write_blocks
from calibrated_sd.reports.published.claims_table import claims_table
from calibrated_sd.reports.published.early_warning_table import early_warning_table
from calibrated_sd.reports.published.figures import picture
from calibrated_sd.reports.published.headline import headline_problems
from calibrated_sd.reports.published.hypotheses import hypotheses_table
from calibrated_sd.reports.published.json_table import figures_table
from calibrated_sd.reports.published.listing import LISTING, Entry, Listing, is_inside, load_listing
from calibrated_sd.reports.published.markdown import PublishedTable, provenance_line
from calibrated_sd.reports.published.measured import load_measured, provenance_of
from calibrated_sd.reports.published.moonshot import moonshot_table
from calibrated_sd.reports.published.sweep_tables import matched_table, points_table

TABLES: dict[str, Callable[[Path, Mapping[str, Any]], PublishedTable]] = {
    "claims": claims_table,
    "arms": lambda place, options: arms_table(load_measured(place), options),
    "summary": lambda place, options: summary_rows_table(load_measured(place), options),
    "matched": matched_table,
    "points": points_table,
    "moonshot": moonshot_table,
    "figures": figures_table,
    "early_warning": early_warning_table,
    "hypotheses": hypotheses_table,
}
"""Kind → the function that makes the table of a source. Kinds and their options are listed in `listing.TABLE_KINDS`."""


@dataclass(frozen=True)
class PublishedCheck:
    """Whether a published folder agrees with its data.

    Attributes:
        problems: what does not; empty where everything does.
        tables, figures: how many were compared.
    """

    problems: tuple[str, ...]
    tables: int
    figures: int


@dataclass
class _Pages:
    """Text of every page, and where each table stands."""

    texts: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, dict[str, tuple[int, str]]] = field(default_factory=dict)


def build_published(directory: str | Path) -> list[Path]:
    """Rewrite the tables on the pages of a published folder and its figures; returns the files that changed.

    Everything is made before anything is written, and each file is replaced in one step. Text outside of the markers is
    not touched; the headline is written by hand and only checked.

    Raises:
        ConfigError: the listing or a page's markers are wrong, or a table stands on no page.
        DataError: a source lacks what a table needs.
        OutputError: a file cannot be written.
    """
    listing = load_listing(directory)
    pages = _read(listing)
    lost = _unplaced(listing, pages)
    if lost:
        raise ConfigError(f"{listing.path / LISTING} and the pages disagree: {'; '.join(lost)}.")
    new: dict[Path, bytes] = {}
    for page, text in pages.texts.items():
        wanted = {name: render_table(listing, listing.tables[name], page) for name in pages.blocks[page] if name}
        new[listing.path / page] = write_blocks(text, wanted, page).encode()
    for entry in listing.figures.values():
        found = picture(listing.path, entry)
        if drawn_from(listing.path / entry.file) != found.fingerprint:
            new[listing.path / entry.file] = found.draw().png
    changed = [path for path, content in new.items() if not path.is_file() or path.read_bytes() != content]
    for path in changed:
        write_bytes(path, new[path])
    return changed


def check_published(directory: str | Path) -> PublishedCheck:
    """Make every table anew in memory and compare; compare each figure's data with what it was drawn from; writes nothing.

    Raises:
        ConfigError, DataError: the listing itself is wrong. What is wrong with one table or figure is a problem instead.
    """
    listing = load_listing(directory)
    pages = _read(listing)
    problems = _unplaced(listing, pages)
    for page, blocks in pages.blocks.items():
        for name, (line, text) in blocks.items():
            if name in listing.tables:
                problems += _attempt(
                    f"{page}, table {name}",
                    lambda n=name, p=page, t=text, i=line: differences(
                        t, render_table(listing, listing.tables[n], p), i
                    ),
                )  # type: ignore[misc]
    for entry in listing.figures.values():
        problems += _attempt(f"{entry.file}, figure {entry.name}", lambda e=entry: _figure_problems(listing, e, pages))  # type: ignore[misc]
    if listing.headline:
        problems += _attempt(f"{listing.headline.page}, headline", lambda: _headline_problems(listing))
    return PublishedCheck(tuple(problems), len(listing.tables), len(listing.figures))


def render_table(listing: Listing, entry: Entry, page: str) -> str:
    """The text of a table as it stands on a page.

    Raises:
        ConfigError, DataError: as the table's kind says.
    """
    if len(entry.sources) > 1:
        raise ConfigError(
            f"The table {entry.name!r} has {len(entry.sources)} sources; a table has one. Make one table of each."
        )
    place = listing.path / entry.sources[0]
    options = {key: value for key, value in entry.options.items() if key != "note"}
    try:
        table = TABLES[entry.kind](place, options)
    except CalibratedSDError as error:
        raise type(error)(f"Table {entry.name} of {listing.path / LISTING}: {error}") from error
    text = table.to_markdown(provenance_line(place, provenance_of(place), listing.path / page))
    return f"\n{str(entry.options['note']).strip()}\n{text}" if entry.options.get("note") else text


def _attempt(what: str, find: Callable[[], list[str]]) -> list[str]:
    """The problems with one thing, each with its name; an error is one of them and hides no other's."""
    try:
        return [f"{what}: {problem}" for problem in find()]
    except CalibratedSDError as error:
        return [f"{what}: {error}"]


def _read(listing: Listing) -> _Pages:
    pages = _Pages()
    for page in listing.pages:
        pages.texts[page] = _text(listing.path / page)
        pages.blocks[page] = read_blocks(pages.texts[page], page)
        if not pages.blocks[page] and not is_inside(listing.path, page):
            raise ConfigError(
                f"{listing.path / LISTING} lists the page {page}, which lies outside of the folder and has no place for a "
                "table or headline, so it is not this folder's to rewrite. Put the markers there, or take it off the list."
            )
    return pages


def _text(page: Path) -> str:
    try:
        return page.read_bytes().decode("utf-8")  # bytes, because line ends stay as they are
    except UnicodeDecodeError as error:
        raise ConfigError(f"{page} is not UTF-8 text: {error}. Save the page as UTF-8.") from error


def _unplaced(listing: Listing, pages: _Pages) -> list[str]:
    """Tables without a place, places without a table."""
    placed = [name for blocks in pages.blocks.values() for name in blocks if name]
    lost = [
        f"table {name} stands on no page; put '<!-- table: {name} -->' and '<!-- /table -->' where it belongs"
        for name in listing.tables
        if name not in placed
    ]
    for page, blocks in pages.blocks.items():
        lost += [
            f"{page} has a place for a table {name} that {LISTING} does not list"
            for name in blocks
            if name and name not in listing.tables
        ]
    return lost


def _figure_problems(listing: Listing, entry: Entry, pages: _Pages) -> list[str]:
    file = listing.path / entry.file
    wanted = picture(listing.path, entry).fingerprint
    problems = []
    if not file.is_file():
        problems.append("the file is missing")
    elif drawn_from(file) != wanted:
        problems.append("it was drawn from other data")
    if not any(_shows(text, listing.path / page, file) for page, text in pages.texts.items()):
        problems.append("no page shows it")
    return problems


def _shows(text: str, page: Path, file: Path) -> bool:
    links = (part.split(")", 1)[0] for part in text.split("](")[1:])
    return any((page.parent / link).resolve() == file.resolve() for link in links if link and ":" not in link)


def _headline_problems(listing: Listing) -> list[str]:
    assert listing.headline is not None
    page = listing.path / listing.headline.page
    blocks = read_blocks(_text(page), listing.headline.page)
    if "" not in blocks:
        return ["the page has no lines '<!-- headline -->' and '<!-- /headline -->' around the sentence"]
    return headline_problems(listing.path, listing.headline, blocks[""][1])
