"""Model cards that say how a model was trained and what came of it: a mixin for every trainer here.

TRL writes the card; this adds what TRL does not know: the calibration, its sources, the figures of an evaluation, and the
base model where it is a folder (TRL then writes "a fine-tuned version of None").
"""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import calibrated_sd
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.markers import MarkerSet
from calibrated_sd.records import read_json
from calibrated_sd.records.files import write_bytes

if TYPE_CHECKING:
    from trl.trainer.base_trainer import _BaseTrainer as Host
else:
    Host = object  # at run time the mixin has no base of its own

TAG = "calibrated-sd"

STUDY = {
    "title": "Why Does Self-Distillation (Sometimes) Degrade the Reasoning Capability of LLMs?",
    "id": "2603.24472",
    "citation": textwrap.dedent("""\
        @article{kim2026selfdistillation,
            title        = {{Why Does Self-Distillation (Sometimes) Degrade the Reasoning Capability of LLMs?}},
            author       = {Kim, J. and Luo, X. and Kim, M. and Lee, S. and Kim, D. and Jeon, J. and Li, D. and Yang, Y.},
            year         = 2026,
            eprint       = {arXiv:2603.24472}
        }"""),
}
"""The paper whose effect the calibrators act against."""

RESULT_FILES = ("metrics.json", "claims.json")
OBJECTIVE_FIELDS = (
    *("teacher_model_kind", "teacher_update_rate", "distillation_mode", "distillation_topk", "distillation_add_tail"),
    *("distillation_alpha", "distillation_weight", "beta", "loss_type", "learning_rate", "max_steps", "seed"),
)
"""Settings of TRL's that a reader wants to see beside the calibration; shown if the trainer has them."""


class ModelCardMixin(Host):
    """Put it before a TRL trainer in the bases.

    Attributes:
        card_results: a `metrics.json` or `claims.json` to be shown; None looks for both in `output_dir`.
        card_provenance: the provenance block of the run (commit, command, …), if there is one.
    """

    card_results: str | os.PathLike[str] | None = None
    card_provenance: Mapping[str, Any] | None = None

    def create_model_card(self, model_name=None, dataset_name=None, tags=None) -> None:  # type: ignore[override]
        """Write `README.md` into `output_dir`: TRL's card and the blocks of this package."""
        tags = [tags] if isinstance(tags, str) else list(tags or [])
        super().create_model_card(model_name=model_name, dataset_name=dataset_name, tags=[*tags, TAG])
        if not self.is_world_process_zero():
            return
        args: Any = self.args
        path = Path(args.output_dir) / "README.md"
        model: Any = self.model
        card = complete_card(
            path.read_text(encoding="utf-8"),
            base_model=getattr(model.config, "_name_or_path", ""),
            model_name=model_name,
            training=training_block(args, self.card_provenance),
            results=results_block(self._result_files()),
        )
        write_bytes(path, card.encode("utf-8"))

    def _result_files(self) -> list[Path]:
        args: Any = self.args
        if self.card_results is not None:
            return [Path(self.card_results)]
        return [path for name in RESULT_FILES if (path := Path(args.output_dir) / name).is_file()]

    def _save_checkpoint(self, model, trial) -> None:
        # SDPO and SDFT write no card here, TRL's other trainers do.
        args: Any = self.args
        trls = [cls for cls in type(self).__mro__ if cls.__module__.startswith("trl.")]
        if not any("_save_checkpoint" in vars(cls) for cls in trls):
            name = args.hub_model_id or Path(args.output_dir).name
            self.create_model_card(model_name=name.split("/")[-1])
        super()._save_checkpoint(model, trial)


def complete_card(card: str, *, base_model: str, model_name: str | None, training: str, results: str) -> str:
    """TRL's card with what it lacks.

    Args:
        card: TRL's text.
        base_model: name or path of the base model, or an empty text.
        model_name: name of this model.
        training: from `training_block`.
        results: from `results_block`; may be empty.
    """
    local = base_model.rstrip("/\\").replace("\\", "/").split("/")[-1]
    base = f"the local model `{local}`" if local else "a model that was not loaded from a repository"
    card = card.replace("[None](https://huggingface.co/None)", base)
    card = card.replace('model="None"', f'model="{model_name or local or "path/to/model"}"')
    study = (
        f"Cite the study of how self-distillation suppresses doubt ({STUDY['id']}) as:\n\n"
        f"```bibtex\n{STUDY['citation']}\n```\n"
    )
    card = _before(card, "### Framework versions", training)
    card = _before(card, "- TRL: ", f"- calibrated-sd: {calibrated_sd.__version__}", gap="\n")
    card = _before(card, "## Citations", results)
    return _before(card, "Cite TRL as:", study)


def _before(card: str, heading: str, block: str, gap: str = "\n\n") -> str:
    """`card` with a block before the line that begins with `heading`, or at the end if there is no such line."""
    if not block:
        return card
    at = card.find(f"\n{heading}")
    if at < 0:
        return f"{card.rstrip()}\n\n{block.rstrip()}\n"
    return f"{card[: at + 1]}{block.rstrip()}{gap}{card[at + 1 :]}"


def training_block(args: Any, provenance: Mapping[str, Any] | None = None) -> str:
    """The settings that this package added, and those of TRL's that matter beside them, as a Markdown table."""
    rows: list[tuple[str, Any]] = []
    own = _own_fields(args)
    calibrated = getattr(args, "is_calibrated", False)
    for field in own:
        value = getattr(args, field.name)
        if (
            field.name == "calibration_strength"
            or (value != _default(field) and field.name != "calibration_markers")
            or (calibrated and field.name in ("calibration_method", "calibration_kl"))
        ):
            rows.append((field.name, value))
    if own:
        rows.append(("marker set", _marker_set(args.calibration_markers)))
    rows += [(name, getattr(args, name)) for name in OBJECTIVE_FIELDS if getattr(args, name, None) is not None]
    for name in ("commit", "command"):
        if provenance and provenance.get(name):
            rows.append((name, provenance[name]))
    state = "with" if calibrated else "without"
    intro = (
        f"Trained with calibrated-sd {calibrated_sd.__version__}, {state} a "
        f"calibrator against the loss of expressed doubt that self-distillation can cause "
        f"([arXiv:{STUDY['id']}](https://arxiv.org/abs/{STUDY['id']}))."
    )
    return f"### Training\n\n{intro}\n\n{_table(('setting', 'value'), rows)}"


def _own_fields(args: Any) -> list[dataclasses.Field]:
    """Fields of a config that none of its TRL bases has."""
    trls = [cls for cls in type(args).__mro__ if not cls.__module__.startswith("calibrated_sd.")]
    theirs = {name for cls in trls for name in getattr(cls, "__dataclass_fields__", {})}
    return [field for field in dataclasses.fields(args) if field.name not in theirs]


def _default(field: dataclasses.Field) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _marker_set(name: str) -> str:
    try:
        found = MarkerSet.load(name)
    except CalibratedSDError:
        return "unknown"
    return f"{found.name} {found.version} ({found.hash})"


def results_block(files: Iterable[Path]) -> str:
    """Figures and claims of these files as Markdown; empty if there are none. An unreadable file is left out."""
    blocks = []
    for path in files:
        try:
            data = read_json(path)
            blocks.append(_claims(data) if "claims" in data else _metrics(data))
        except (CalibratedSDError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is left out of the model card, because it cannot be read: {error}", stacklevel=2)
    return "## Results\n\n" + "\n\n".join(blocks) if blocks else ""


def _metrics(data: Mapping[str, Any]) -> str:
    rows = [
        (suite, metric, _interval(shown), shown["unit"], shown["n"])
        for suite, metrics in data["suites"].items()
        for metric, shown in metrics.items()
        if shown["value"] is not None
    ]
    return _table(("suite", "metric", "value [95 % interval]", "unit", "n"), rows) + _source(data)


def _claims(data: Mapping[str, Any]) -> str:
    rows = [(claim["id"], claim["statement"], claim["verdict"]) for claim in data["claims"]]
    return _table(("claim", "statement", "verdict"), rows) + _source(data)


def _interval(shown: Mapping[str, Any]) -> str:
    value, low, high = (shown[name] for name in ("value", "lo", "hi"))
    if low is None and high is None:
        return f"{value:.4g}"
    return f"{value:.4g} [{'−∞' if low is None else f'{low:.4g}'}, {'∞' if high is None else f'{high:.4g}'}]"


def _source(data: Mapping[str, Any]) -> str:
    provenance = data.get("provenance") or {}
    parts = [f"`{provenance['command']}`"] if provenance.get("command") else []
    if provenance.get("commit"):
        parts.append(
            f"commit {provenance['commit']}" + (" with local changes" if provenance.get("dirty") is True else "")
        )
    if provenance.get("seed") is not None:
        parts.append(f"seed {provenance['seed']}")
    return f"\n\nMade by {', '.join(parts)}." if parts else ""


def _table(headings: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.split()).replace("|", "\\|")
