"""Problem sets made ready for training and evaluation: cleaned, deduplicated, with a report of what was dropped."""

from calibrated_sd.data.coverage import coverage_subsets
from calibrated_sd.data.instructions import BOXED, with_instruction
from calibrated_sd.data.preparing import Prepared, prepare_rows
from calibrated_sd.data.sources import Source, find_source, known_sources
from calibrated_sd.data.suites import Sampled, SuiteDefinition, built_in_suites, find_suite, suite_definition

__all__ = [
    "BOXED",
    "Prepared",
    "Sampled",
    "Source",
    "SuiteDefinition",
    "built_in_suites",
    "coverage_subsets",
    "find_source",
    "find_suite",
    "known_sources",
    "prepare_rows",
    "suite_definition",
    "with_instruction",
]
