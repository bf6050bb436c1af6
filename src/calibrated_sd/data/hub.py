"""Files of a known data set from the Hugging Face hub, at one exact commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.data.sources import Source
from calibrated_sd.errors import ConfigError, DataError


@dataclass(frozen=True)
class Downloaded:
    """Local copies of the files, and the commit they are from."""

    files: tuple[Path, ...]
    revision: str


def wanted_revision(source: Source, given: str | None, recorded: Mapping[str, Any] | None) -> str | None:
    """The commit to download: the one asked for, else the recorded one, else the source's own; None if none is known.

    Args:
        source: the known data set.
        given: what ``--revision`` says.
        recorded: the ``source`` block of an earlier ``suite.json`` in the same place, if there is one.

    Raises:
        ConfigError: the earlier preparation used another commit than the source's own.
    """
    if given is not None:
        return given
    earlier = None if recorded is None else recorded.get("revision")
    if earlier and source.revision and earlier != source.revision:
        raise ConfigError(
            f"{source.name} was prepared here from revision {earlier}, and now would be from {source.revision}. Figures "
            "of the two do not belong together. Say which one with --revision, or give another output folder."
        )
    return source.revision or earlier


def download(source: Source, revision: str | None) -> Downloaded:
    """Download the files of a known data set, or find them in the hub's local cache.

    Args:
        source: a data set with a ``hub_id``.
        revision: commit, tag or branch; None for the newest state, whose commit is then in the result.

    Raises:
        DataError: it cannot be downloaded, or has none of the files.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            str(source.hub_id), repo_type="dataset", revision=revision, allow_patterns=list(source.files)
        )
    except Exception as error:  # the hub's library raises its own errors, those of its transport, and OSError
        raise DataError(
            f"{source.hub_id} at {revision or 'its newest state'} cannot be downloaded "
            f"({' '.join(str(error).split())[:300]}). Where there is no network, get the file some other way and give it "
            f"with --source-file: csd data prepare {source.name} --source-file FILE."
        ) from error
    root = Path(str(folder))
    files = sorted(file for pattern in source.files for file in root.glob(pattern))
    if not files:
        raise DataError(
            f"{source.hub_id} at {revision or 'its newest state'} has none of the files {', '.join(source.files)}. Give "
            "another --revision, or a local file with --source-file."
        )
    return Downloaded(tuple(files), root.name)  # the folder of a snapshot is named after its commit
