"""From a reproduce folder to its report: figures, summary and page, each replaced in one step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from calibrated_sd.records.files import write_bytes
from calibrated_sd.reports.figures import draw_all
from calibrated_sd.reports.folder import ReproduceFolder
from calibrated_sd.reports.html import render_page
from calibrated_sd.reports.loading import load_folder
from calibrated_sd.reports.scores import Scores
from calibrated_sd.reports.tables import SummaryTable, summary_table

PAGE, SUMMARY, FIGURES = "report.html", "summary.md", "figures"
_FINGERPRINT = re.compile(r'<meta name="calibrated-sd-data" content="([0-9a-f]+)">')


@dataclass(frozen=True)
class Check:
    """Whether the report on disk belongs to the data beside it.

    Attributes:
        problems: why it does not; empty where it does.
        gaps: what the run itself lacks; no fault of the report.
        table: the summary, as it would be written now.
    """

    problems: tuple[str, ...]
    gaps: tuple[str, ...]
    table: SummaryTable


def build_report(directory: str | Path) -> Path:
    """Write ``figures/*.png``, ``summary.md`` and ``report.html`` into a reproduce folder; returns the page's path.

    Nothing else is touched, and each file is complete or absent at any time. A partial run gives a page that says so.

    Raises:
        DataError: not a reproduce folder.
        OutputError: the folder cannot be written.
    """
    folder, files = _render(Path(directory))
    for name, content in files.items():
        write_bytes(folder.path / name, content)
    return folder.path / PAGE


def check_report(directory: str | Path) -> Check:
    """Compare the report on disk with the data, without writing anything.

    The page carries a hash of the files it was made from, so this needs no rendering and does not depend on the version
    of the drawing library.

    Raises:
        DataError: not a reproduce folder.
    """
    folder = load_folder(directory)
    table = summary_table(folder)
    problems = []
    page = _text(folder.path / PAGE)
    if page is None:
        problems.append(f"{PAGE} is missing")
    else:
        found = _FINGERPRINT.search(page)
        if found is None or found[1] != folder.fingerprint:
            problems.append(f"{PAGE} was made from other data")
    summary = _text(folder.path / SUMMARY)
    if summary is None:
        problems.append(f"{SUMMARY} is missing")
    elif summary != table.to_markdown():
        problems.append(f"{SUMMARY} differs from the data")
    if not list((folder.path / FIGURES).glob("*.png")):
        problems.append(f"{FIGURES}/ holds no figure")
    return Check(tuple(problems), tuple(folder.gaps), table)


def _render(directory: Path) -> tuple[ReproduceFolder, dict[str, bytes]]:
    folder = load_folder(directory)
    scores = Scores(folder)
    drawings = draw_all(folder, scores)
    table = summary_table(folder, scores)
    files = {f"{FIGURES}/{drawing.name}.png": drawing.png for drawing in drawings}
    files[SUMMARY] = table.to_markdown().encode()
    files[PAGE] = render_page(folder, scores, table, drawings).encode("utf-8", errors="replace")  # lone surrogates
    return folder, files


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
