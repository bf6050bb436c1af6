"""Where the rows of a preparation come from: local files, the hub, or a generator."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.data.folder import describe_files
from calibrated_sd.data.generated import DEFAULT_SIZE, gsm_symbolic_rows
from calibrated_sd.data.hub import download, wanted_revision
from calibrated_sd.data.sources import Source, known_sources
from calibrated_sd.data.suites import PROBLEMS
from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.evaluation.problem_files import ENDINGS, iter_rows
from calibrated_sd.records.folder_names import check_folder_name


@dataclass(frozen=True)
class Chosen:
    """What is to be prepared: a known data set, local files, or both.

    Attributes:
        name: name of the suite, and of its folder.
        source: the known data set, or None.
        files: local files; empty where the data are downloaded or made.
    """

    name: str
    source: Source | None
    files: tuple[Path, ...]


def choose(what: str, source_files: Sequence[Path] = (), name: str | None = None) -> Chosen:
    """Understand ``SOURCE|FILE`` of the command line.

    A file that is called like a known data set (``math500.parquet``) is read as that set.

    Raises:
        ConfigError: neither a known name nor a file, or a name no folder can have.
        DataError: a local file does not exist.
    """
    sources = known_sources()
    if what in sources:
        chosen = Chosen(check_folder_name(name or what, "The suite"), sources[what], tuple(source_files))
    else:
        path = Path(what)
        if not path.is_file() and not what.lower().endswith(ENDINGS):
            raise unknown_name("data source", what, sources)
        if source_files:
            raise ConfigError(f"--source-file goes with the name of a data set, but {what} is a file. Leave it out.")
        stem = path.parent.name if path.name == PROBLEMS else path.name.split(".")[0]
        chosen = Chosen(check_folder_name(name or stem, "The suite"), sources.get(stem), (path,))
    for file in chosen.files:
        if not file.is_file():
            raise DataError(f"There is no problem file {file}. Check the path.")
    return chosen


@dataclass(frozen=True)
class Input:
    """Rows, a path to name in messages, and the ``source`` block of ``suite.json``."""

    rows: Iterator[dict[str, Any]]
    path: Path
    described: dict[str, Any]


def open_input(
    chosen: Chosen,
    *,
    revision: str | None = None,
    recorded: Mapping[str, Any] | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Input:
    """Open what was chosen; downloads it where it is not local.

    Args:
        chosen: as :func:`choose` gives it.
        revision: commit on the hub; None for the known one.
        recorded: an earlier ``suite.json`` in the same place, or None.
        size, seed: of a generated data set.

    Raises:
        ConfigError: options that do not go together, or another commit than before.
        DataError: a file cannot be read or downloaded.
    """
    source = chosen.source
    block: dict[str, Any] = {"id": None if source is None else source.name}
    if source is not None:
        block |= {"hub_id": source.hub_id, "licence": source.licence}
    if revision is not None and (chosen.files or source is None or source.hub_id is None):
        raise ConfigError("--revision names a commit on the hub, but nothing is downloaded here. Leave it out.")
    if chosen.files:
        block |= {"revision": None, "files": describe_files(chosen.files)}
        return Input(_rows(chosen.files), chosen.files[0], block)
    assert source is not None
    if source.generator is not None:
        import importlib.metadata

        rows = gsm_symbolic_rows(DEFAULT_SIZE if size is None else size, seed)
        version = importlib.metadata.version(source.generator.replace("_", "-"))
        block |= {"generator": f"{source.generator} {version}", "revision": None, "files": []}
        return Input(rows, Path(source.name), block)
    before = None if recorded is None else recorded.get("source")
    found = download(source, wanted_revision(source, revision, before))
    block |= {"revision": found.revision, "files": describe_files(found.files)}
    return Input(_rows(found.files), found.files[0], block)


def _rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    return itertools.chain.from_iterable(map(iter_rows, files))
