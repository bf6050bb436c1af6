"""Tables, figures and one self-contained HTML page, rebuilt from what a run has written to disk.

Reports read files and never models: this room imports neither torch nor a model library. Every number comes with its
interval, n, seeds and command; a run that is partial or a smoke test says so on every output.
"""

from calibrated_sd.reports.build import Check, build_report, check_report
from calibrated_sd.reports.folder import ReproduceFolder
from calibrated_sd.reports.loading import load_folder
from calibrated_sd.reports.scores import Score, Scores
from calibrated_sd.reports.tables import SummaryTable, summary_table, terminal_table

__all__ = [
    "Check",
    "ReproduceFolder",
    "Score",
    "Scores",
    "SummaryTable",
    "build_report",
    "check_report",
    "load_folder",
    "summary_table",
    "terminal_table",
]
