"""The recipe of one training run: which trainer, which model and data, and the trainer's own settings. Read and checked.

A recipe is flat: the fields of `RunArguments` stand beside those of the config class of its `trainer`. Nothing here loads
a model or reads data.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from calibrated_sd.errors import ConfigError, shortened, unknown_name
from calibrated_sd.evaluation.grading import GRADERS
from calibrated_sd.experiments.setting_ranges import check_ranges
from calibrated_sd.records.recipe_files import read_recipe
from calibrated_sd.records.setting_types import check_settings

TRAINERS: dict[str, tuple[str, str, str]] = {
    "sdpo": ("calibrated_sd.trainers.sdpo", "CalibratedSDPOConfig", "CalibratedSDPOTrainer"),
    "sdft": ("calibrated_sd.trainers.sdft", "CalibratedSDFTConfig", "CalibratedSDFTTrainer"),
    "sft": ("calibrated_sd.trainers.sft.trainer", "CalibratedSFTConfig", "CalibratedSFTTrainer"),
    "distillation": (
        "calibrated_sd.trainers.distillation.trainer",
        "CalibratedDistillationConfig",
        "CalibratedDistillationTrainer",
    ),
    "grpo": ("trl", "GRPOConfig", "GRPOTrainer"),
}
"""Value of `trainer` → module, config class, trainer class. `grpo` is TRL's own: the baseline is not ours."""

REWARDED = ("sdpo", "grpo")
"""Trainers that grade their rollouts, so that `grader` and `reward` act."""

ALWAYS_SHOWN = ("learning_rate", "max_steps", "output_dir", "per_device_train_batch_size", "seed")
"""Settings suggested where nothing is near to what was written."""


@dataclass
class RunArguments:
    """What a recipe says besides the trainer's settings.

    Parameters:
        trainer (`str`, *optional*, defaults to `"sdpo"`): `"sdpo"`, `"sdft"`, `"sft"`, `"distillation"`, or `"grpo"`,
            which is TRL's own.
        model (`str`): hub id or folder of the model; `"organism"` is the shipped model organism.
        problems (`str`): a problem file (.jsonl, .json, .csv, .parquet) with a prompt and an answer column, and
            optionally a solution; for `trainer="sft"` rows with a prompt and a completion. `"organism"` for the
            organism's training problems.
        n_problems (`int`, *optional*): use only the first so many problems.
        repeat_problems (`bool`, *optional*, defaults to `False`): repeat all problems equally often where there are
            fewer than a generation batch takes, so that narrow coverage costs as many rollouts as wide coverage.
        subset_seed (`int`, *optional*, defaults to `0`): order in which `n_problems` are taken; 0 is the file's.
        grader (`str`, *optional*, defaults to `"boxed"`): how answers become rewards: `"boxed"` or `"math-verify"`.
        reward (`str`, *optional*): a reward function of your own instead of the grader, `"module:function"`.
        lora_r (`int`, *optional*, defaults to `0`): rank of a LoRA adapter; 0 trains all weights.
        lora_alpha (`int`, *optional*): its scale; `None` is twice the rank.
        lora_target_modules (`str`, *optional*): modules that get an adapter, separated by commas; `None` is every
            linear layer but the output head.
        gpus (`int`, *optional*, defaults to `1`): processes that the batch is divided among, one GPU each.
        gpu_memory_gib (`float`, *optional*): memory of one of them in GiB, for the plan of `--dry-run`.
    """

    trainer: str = field(
        default="sdpo", metadata={"help": "sdpo, sdft, sft, distillation, or grpo (TRL's own, the baseline)."}
    )
    model: str = field(default="organism", metadata={"help": "Hub id or folder of the model, or 'organism'."})
    problems: str = field(default="organism", metadata={"help": "Problem file, or 'organism'."})
    n_problems: int | None = field(default=None, metadata={"help": "Use only the first so many problems."})
    repeat_problems: bool = field(
        default=False, metadata={"help": "Repeat the problems where there are fewer than a generation batch takes."}
    )
    subset_seed: int = field(
        default=0, metadata={"help": "Order in which n_problems are taken from the file; 0 is the file's own."}
    )
    grader: str = field(default="boxed", metadata={"help": "How answers become rewards: boxed or math-verify."})
    reward: str | None = field(
        default=None, metadata={"help": "Reward function of your own instead of the grader, 'module:function'."}
    )
    lora_r: int = field(default=0, metadata={"help": "Rank of a LoRA adapter; 0 trains all weights."})
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of the adapter; None is twice the rank."})
    lora_target_modules: str | None = field(
        default=None, metadata={"help": "Modules with an adapter, separated by commas; None is every linear layer."}
    )
    gpus: int = field(default=1, metadata={"help": "Processes that the batch is divided among, one GPU each."})
    gpu_memory_gib: float | None = field(default=None, metadata={"help": "Memory of one GPU in GiB, for the plan."})

    def __post_init__(self):
        if self.trainer not in TRAINERS:
            raise unknown_name("trainer", self.trainer, TRAINERS)
        for name in ("model", "problems"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name} is empty. Give a name or a path, or leave it out for the organism.")
        if self.grader not in GRADERS and ":" not in self.grader:
            raise unknown_name("grader", self.grader, GRADERS)
        if self.reward is not None and not re.fullmatch(r".+:\w+", self.reward):
            raise ConfigError(
                f"reward={shortened(self.reward)} names no function. Write it as module:function or file.py:function."
            )
        for name, least in (("lora_r", 0), ("gpus", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be {least} or more, got {getattr(self, name)}. See `csd train --help`.")
        if self.gpu_memory_gib is not None and not self.gpu_memory_gib > 0:
            raise ConfigError(f"gpu_memory_gib must be above 0, got {self.gpu_memory_gib:g}. A large GPU has 80.")
        if self.n_problems is not None and self.n_problems < 1:
            raise ConfigError(f"n_problems must be 1 or more, got {self.n_problems}. Leave it out to use them all.")
        if not self.lora_r and (self.lora_alpha is not None or self.lora_target_modules is not None):
            raise ConfigError(
                "lora_alpha and lora_target_modules describe an adapter, but lora_r is 0, which trains all weights. Set "
                "lora_r to its rank, e.g. 32, or leave the two out."
            )
        if self.reward is not None and self.trainer not in REWARDED:
            raise ConfigError(
                f"reward={self.reward!r} has nothing to reward: trainer={self.trainer!r} does not grade its rollouts. "
                f"Leave it out, or use one of {', '.join(REWARDED)}."
            )


@dataclass
class SFTRunArguments(RunArguments):
    """The same for SFT, whose config in TRL has no field for chat-template arguments.

    Parameters:
        chat_template_kwargs (`dict`, *optional*): chat-template arguments of every row, e.g. `{enable_thinking: true}`.
    """

    chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Chat-template arguments of every row, a mapping or a JSON object."}
    )

    def __post_init__(self):
        super().__post_init__()
        _read_template_kwargs(self)


def _read_template_kwargs(owner: Any) -> None:
    """Raises ConfigError where `chat_template_kwargs` is no mapping; the others' configs in TRL do not look."""
    from calibrated_sd.trainers.json_settings import as_mapping

    given = getattr(owner, "chat_template_kwargs", None)
    if given is not None:
        owner.chat_template_kwargs = as_mapping(
            given, "chat_template_kwargs", "arguments to values", '{"enable_thinking": true}'
        )


def trainer_classes(trainer: str) -> tuple[type, type]:
    """The config class and the trainer class of that name.

    Raises:
        ConfigError: no such trainer.
    """
    if trainer not in TRAINERS:
        raise unknown_name("trainer", trainer, TRAINERS)
    module, config, cls = TRAINERS[trainer]
    home = importlib.import_module(module)
    return getattr(home, config), getattr(home, cls)


def parse_recipe(path: Path, overrides: Sequence[str], *, on_this_machine: bool = True) -> tuple[RunArguments, Any]:
    """Read a training recipe; command-line overrides win over the file.

    Args:
        path: the YAML file.
        overrides: as on the command line, e.g. ``["--learning_rate", "1e-5"]``.
        on_this_machine: False to read the recipe of another machine, for a plan: bf16 and GPUs are then not asked for
            here. `use_cpu` of the result is still what the recipe says.

    Returns:
        The run's arguments and the finished config of its trainer.

    Raises:
        ConfigError: an unknown key (the nearest one is suggested), or a value that the trainer refuses.
    """
    raw = read_recipe(path)[1]
    trainer = _trainer_of(raw, overrides)
    config_cls = trainer_classes(trainer)[0]
    run_cls = SFTRunArguments if trainer == "sft" else RunArguments
    known = list(dict.fromkeys(f.name for cls in (run_cls, config_cls) for f in fields(cls)))
    _check_names(path, raw, overrides, known, trainer)
    _check_environment(path, raw)
    for cls in (run_cls, config_cls):
        check_settings(raw, cls, str(path), text=True)
    own_choice = [] if on_this_machine else ["--use_cpu", "true"]
    run, settings = _parse([run_cls, config_cls], path, [*overrides, *own_choice])
    if settings.resume_from_checkpoint is not None:  # it would be read by nobody, and the run start anew
        raise ConfigError(
            f"resume_from_checkpoint={shortened(settings.resume_from_checkpoint)} is not how csd train goes on with a run. Use "
            "--if-exists resume, which takes the last finished checkpoint of --output, or train from a checkpoint's weights "
            "as a run of its own with --model."
        )
    _read_template_kwargs(settings)
    check_ranges(settings, str(path))
    check_ranges(run, str(path))
    if not on_this_machine:
        settings.use_cpu = _flag(overrides, "use_cpu", bool(raw.get("use_cpu", False)))
    return run, settings


def _option(overrides: Sequence[str], name: str) -> str | None:
    """What the overrides say about a setting last, or None."""
    found = None
    for i, word in enumerate(overrides):
        key, sign, value = word.partition("=")
        if key.startswith("--") and key[2:].replace("-", "_") == name:
            following = overrides[i + 1] if i + 1 < len(overrides) else "true"
            found = value if sign else ("true" if following.startswith("--") else following)
    return found


def _flag(overrides: Sequence[str], name: str, default: bool) -> bool:
    said = _option(overrides, name)
    return default if said is None else said.lower() in ("true", "yes", "y", "t", "1")


def _trainer_of(raw: dict[str, Any], overrides: Sequence[str]) -> str:
    return _option(overrides, "trainer") or str(raw.get("trainer", RunArguments.trainer))


def _check_names(path: Path, raw: dict[str, Any], overrides: Sequence[str], known: list[str], trainer: str) -> None:
    """Refuse unknown options and keys; a key of another trainer is said to be one. Raises ConfigError."""
    for option in overrides:
        name = option[2:].split("=")[0].replace("-", "_")
        if option.startswith("--") and name not in known and name.removeprefix("no_") not in known:
            raise _unknown("option", option, name, known, trainer, dashes="--")
    for key in raw:
        if key not in known and key != "env":
            raise _unknown(f"key in {path}", key, str(key), known, trainer)


def _check_environment(path: Path, raw: dict[str, Any]) -> None:
    """TRL sets the variables under `env`. Raises ConfigError where they cannot be any."""
    given = raw.get("env", {})
    plain = isinstance(given, dict) and not any(isinstance(value, (dict, list)) for value in given.values())
    if not plain or not all(re.fullmatch(r"\w+", name) for name in given):
        raise ConfigError(
            f"env in {path} must be a mapping of environment variables to values, got {shortened(given)}. Write it like "
            "`env: {NCCL_DEBUG: INFO}`."
        )


def _unknown(kind: str, given: str, name: str, known: list[str], trainer: str, dashes: str = "") -> ConfigError:
    homes = [
        other for other in TRAINERS if other != trainer and name in {f.name for f in fields(trainer_classes(other)[0])}
    ]
    if homes:
        return ConfigError(
            f"{given} is a setting of the trainer{'s' if len(homes) > 1 else ''} {', '.join(homes)}, but trainer is "
            f"{trainer!r}, which does not have it. Leave it out, or set trainer."
        )
    return unknown_name(
        kind, given, [f"{dashes}{n}" for n in difflib.get_close_matches(name[:200], known, n=5) or ALWAYS_SHOWN]
    )


def _parse(classes: list[type], path: Path, arguments: list[str]) -> tuple[Any, Any]:
    from trl import TrlParser

    parser = TrlParser(classes)  # type: ignore[arg-type]

    def refuse(message: str) -> NoReturn:
        raise ConfigError(
            f"The options of this run cannot be read: {shortened(message, 1500, plain=True)}. See `csd train --help` for examples."
        )

    parser.error = refuse  # type: ignore[method-assign]
    try:
        run, settings = parser.parse_args_and_config(args=["--config", str(path), *arguments])
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, OSError, ImportError) as error:
        hint = ""  # errors of libraries, and of files that the settings name
        if "bf16" in str(error):
            hint = (
                " This machine has no GPU for it; look at the run with --dry-run, or add --use_cpu true --bf16 false."
            )
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: {shortened(reason, 1500, plain=True)}{hint}") from error
    return run, settings
