"""What to do with an output folder that is not empty, the same for every command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from calibrated_sd.errors import OutputError, unknown_name
from calibrated_sd.records.folder_lock import lock_folder

MANIFEST = "manifest.json"
"""The file that marks an output folder as ours. Only such folders may be overwritten."""
IF_EXISTS = ("raise", "resume", "overwrite")
"""What to do with an output folder that is not empty."""


def prepare_output(
    folder: str | os.PathLike[str],
    if_exists: Literal["raise", "resume", "overwrite"] | str = "raise",
    *,
    kind: str | None = None,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> Path:
    """Make an output folder ready, following the policy for one that is not empty.

    Args:
        folder: where a command will write.
        if_exists: ``"raise"`` refuses a folder that holds anything; ``"resume"`` keeps what is there; ``"overwrite"``
            empties it. The last two want a ``manifest.json`` written by this package, so that nobody else's files
            are continued or deleted by accident.
        kind: what the command's own manifests are called; a folder of another kind is neither continued nor emptied.
        inputs: what the command reads; a folder that holds some of it is not emptied. None and what is no path here
            (a hub id) are passed over.

    The folder stays locked until the process ends.

    Raises:
        OutputError: the folder is not empty, is not ours, is another command's, would take its own inputs along, is a
            file, cannot be written, or another process writes to it. Nothing has been changed.
        ConfigError: ``if_exists`` is not one of the three words.
    """
    folder = check_output(folder, if_exists, kind=kind, inputs=inputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_folder(folder)
        if if_exists == "overwrite":
            _empty(folder)
    except OutputError:  # of another process that holds it
        raise
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be written ({error}). Give another folder.") from error
    return folder


def check_output(
    folder: str | os.PathLike[str],
    if_exists: str = "raise",
    *,
    kind: str | None = None,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
) -> Path:
    """The checks of :func:`prepare_output` without changing anything; for commands that load a model first."""
    if if_exists not in IF_EXISTS:
        raise unknown_name("if_exists", if_exists, IF_EXISTS)
    folder = Path(folder)
    if not folder.exists():
        return folder
    if not folder.is_dir():
        raise OutputError(f"The output {folder} is a file. Give a folder.")
    try:
        contents = sorted(folder.iterdir())
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be read ({error}). Give another folder.") from error
    if not contents:
        return folder
    if if_exists == "raise":
        raise OutputError(
            f"The output folder {folder} is not empty ({len(contents)} entries, e.g. {contents[0].name}). Nothing was "
            "changed. Give an empty folder, or add --if-exists resume (continue) or --if-exists overwrite (start anew)."
        )
    written = _kind_of(folder)
    if written is None:
        raise OutputError(
            f"The output folder {folder} is not empty and has no {MANIFEST} written by this package ({folder / MANIFEST} is "
            f"missing, cut off or another's), so it will not be used with --if-exists {if_exists}. Nothing was changed. Give "
            "an empty folder."
        )
    if kind is not None and written != kind:
        raise OutputError(
            f"The output folder {folder} holds what a command of the kind {written!r} wrote, and this one writes {kind!r}, "
            f"so it will not be used with --if-exists {if_exists}. Nothing was changed. Give another folder, or remove "
            "this one yourself."
        )
    if if_exists == "overwrite":
        _check_inputs(folder, inputs)
    return folder


def _check_inputs(folder: Path, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    emptied = folder.resolve()
    for given in inputs:
        if given is None or not os.path.exists(given):
            continue
        path = Path(os.path.abspath(given))
        # A link in the folder would go, too, wherever it points.
        places = (path.resolve(), path.parent.resolve() / path.name)
        if any(emptied == place or emptied in place.parents for place in places):
            raise OutputError(
                f"The input {given} lies in the output folder {folder}, which --if-exists overwrite would empty. Nothing was "
                "changed. Give another output folder."
            )


def _kind_of(folder: Path) -> str | None:
    """The kind in the folder's manifest; None where the folder is not ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        return None
    # A version-controlled folder is never ours to empty, whatever it holds.
    kind = manifest.get("kind")
    return kind if isinstance(kind, str) and not (folder / ".git").exists() else None


def _empty(folder: Path) -> None:
    # The manifest goes last: an interrupted deletion leaves a folder that is still recognised as ours.
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
