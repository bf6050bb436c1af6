"""What the package writes to disk, and how it is read back. Imports neither torch nor any model library.

Reports, tables and figures are rebuilt from these files alone, so the reader is strict: a line that cannot be trusted
raises :class:`~calibrated_sd.errors.DataError` with the file and the line number instead of being skipped.

Every number that is published is a *figure*: ``{value, lo, hi, n, unit, method}`` (see :func:`figure`). The fields of
a completion line are described in ``docs/reference/records_schema.md``.
"""

from calibrated_sd.records.files import (
    append_jsonl,
    read_completions,
    read_json,
    read_jsonl,
    read_object,
    repair_tail,
    write_json,
    write_jsonl,
)
from calibrated_sd.records.folders import IF_EXISTS, MANIFEST, check_output, prepare_output
from calibrated_sd.records.schema import (
    MARKER_COUNTS,
    SCHEMA_VERSION,
    SCHEMA_VERSIONS,
    CompletionRecord,
    figure,
    prompt_sha256,
)

__all__ = [
    "IF_EXISTS",
    "MANIFEST",
    "MARKER_COUNTS",
    "SCHEMA_VERSION",
    "SCHEMA_VERSIONS",
    "CompletionRecord",
    "append_jsonl",
    "check_output",
    "figure",
    "prepare_output",
    "prompt_sha256",
    "read_completions",
    "read_json",
    "read_jsonl",
    "read_object",
    "repair_tail",
    "write_json",
    "write_jsonl",
]
