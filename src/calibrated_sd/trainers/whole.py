"""Whether the files of a checkpoint are all there and as long as they say they are. Imports nothing heavy.

A cut-off file is found, wherever it was cut. Bytes that changed in the middle of a file are not.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from calibrated_sd.errors import DataError, OutputError

OURS = ("ema_teacher", "rollouts_")
"""How the names of safetensors files begin that are not the model's weights."""

_WEIGHTS = ("adapter_model", "pytorch_model")
_SHARDED = "global_step"  # DeepSpeed keeps weights and optimizer in a folder of that name


def damage(folder: Path, required: Sequence[str] = ()) -> str | None:
    """What is wrong with a checkpoint, e.g. ``"optimizer.pt is cut off or damaged"``; None if nothing is.

    Args:
        folder: the checkpoint.
        required: names of files that it has in any case.

    A checkpoint of weights alone (`save_only_model`) lacks optimizer, scheduler and random state together, and is whole.

    Raises:
        OutputError: a file cannot be read, which says nothing of what is in it.
    """
    for file in sorted(folder.rglob("*")):  # adapters and DeepSpeed have folders of their own
        try:
            problem = _problem(file) if file.is_file() else None
        except OSError as error:
            raise unreadable(file, error) from error
        if problem:
            return f"{file.relative_to(folder).as_posix()} {problem}"
    names = [entry.name for entry in sorted(folder.iterdir())]
    for name in required:
        if name not in names:
            return f"{name} is missing"
    for index in folder.glob("*.index.json"):
        absent = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) - set(names))
        if absent:
            return f"{absent[0]} is missing"
    return _missing(names)


def unreadable(file: Path, error: OSError) -> OutputError:
    """The error for a checkpoint's file that the system does not give."""
    return OutputError(
        f"{file} cannot be read ({error.strerror}), so it is not known whether the run can go on from there. Nothing was "
        "changed. Change its permissions or wait for the disk, and run the command again."
    )


def check_weights(model: str) -> None:
    """Refuse a model folder whose weights cannot be read or are cut off; names of models on a hub pass.

    Raises:
        DataError: the file, and what is wrong with it.
    """
    for file in sorted(Path(model).glob("*.safetensors")):
        try:
            problem = _problem(file)
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        if problem:
            raise DataError(
                f"{file} {problem}. Give another model, change its permissions, or save or download it again."
            )


def _problem(file: Path) -> str | None:
    try:
        if file.suffix == ".safetensors":
            whole = _whole_safetensors(file)
        elif file.suffix in (".pt", ".pth", ".bin"):  # PyTorch's are zip files, whose table of contents is at the end
            with open(file, "rb") as stream:  # given a name, is_zipfile takes an error of the system for another format
                whole = zipfile.is_zipfile(stream)
        elif file.suffix == ".json":
            data = json.loads(file.read_text(encoding="utf-8"))
            whole = not file.name.endswith(".index.json") or isinstance(data["weight_map"], dict)
        else:
            whole = True
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error):
        whole = False
    return None if whole else "is cut off or damaged"


def _whole_safetensors(file: Path) -> bool:
    """Eight bytes with the header's length, the header with every tensor's extent, the tensors."""
    with open(file, "rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        size = os.fstat(stream.fileno()).st_size
        if length > size:
            return False
        header = json.loads(stream.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def _missing(names: Iterable[str]) -> str | None:
    names = list(names)

    def any_begins(*beginnings: str) -> bool:
        return any(name.startswith(beginnings) for name in names)

    weights = [n for n in names if n.endswith(".safetensors") and not n.startswith(OURS)]
    if not weights and not any_begins(*_WEIGHTS, _SHARDED):
        return "its weights are missing"
    state = {
        "the optimizer's state": any_begins("optimizer", _SHARDED),
        "scheduler.pt": "scheduler.pt" in names or any_begins(_SHARDED),
        "the random state": any_begins("rng_state"),
    }
    if not any(state.values()):  # save_only_model
        return None
    return next((f"{what} is missing" for what, there in state.items() if not there), None)
