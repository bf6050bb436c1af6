"""The model behind `csd ladder`: loaded once, bound to the command's settings, asked to sample files of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibrated_sd.cli import evaluate_setup as setup
from calibrated_sd.cli.progress import Progress
from calibrated_sd.errors import ContextError

if TYPE_CHECKING:
    from calibrated_sd.evaluation.engines import Engine

_PASSED_ON = ("seed", "grader", "grading_workers", "max_new_tokens", "temperature", "top_p", "batch_size")


@dataclass(frozen=True)
class LadderModel:
    """An engine with the settings of one command.

    Attributes:
        engine: what samples.
        settings: the command's options.
    """

    engine: Engine
    settings: Mapping[str, Any]

    @property
    def template_kwargs(self) -> dict[str, Any] | None:
        """Further arguments of the chat template."""
        thinking = self.settings["thinking"]
        return None if thinking is None else {"enable_thinking": thinking}

    def check(self, problems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The problems, as chats where the tokenizer has a template; raises what sampling them would raise."""
        rows = [dict(problem) for problem in problems]
        if getattr(self.engine.tokenizer, "chat_template", None):
            for row in rows:
                if isinstance(row["prompt"], str):
                    row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        self._check_prompts(rows)
        return rows

    def too_long(self, row: Mapping[str, Any]) -> bool:
        """Whether the row's prompt leaves less than ``max_new_tokens`` of the model's window."""
        try:
            self._check_prompts([row])
        except ContextError:
            return True
        return False

    def record(
        self, problems: Sequence[Mapping[str, Any]], path: Path, *, n: int, context: str, sampling_seed: int
    ) -> list[dict[str, Any]]:
        """Sample problems into a file; see :class:`~calibrated_sd.context_analysis.ladder.Record`."""
        from calibrated_sd.evaluation.completions import record_completions

        with Progress(path.parent.name, n * len(problems)) as progress:
            return record_completions(
                self.engine.model,
                self.engine.tokenizer,
                problems,
                path,
                n=n,
                context=context,
                sampling_seed=sampling_seed,
                backend=self.engine.iterate,
                on_progress=progress.update,
                chat_template_kwargs=self.template_kwargs,
                **{key: self.settings[key] for key in _PASSED_ON},
            )

    def _check_prompts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from calibrated_sd.evaluation.generate import check_prompts

        window = self.settings["max_model_len"] if self.settings["backend"] == "vllm" else None
        tokens = self.settings["max_new_tokens"]
        engine = self.engine
        check_prompts(
            engine.config, engine.tokenizer, rows, tokens, window=window, chat_template_kwargs=self.template_kwargs
        )


def load_ladder_problems(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``--problems``: a file, a prepared suite, or puzzles of the organism.

    Raises:
        DataError: no such file or suite, or a column is missing.
    """
    file = setup.suite_file(settings["problems"], settings["data_dir"])
    named = {**settings, "suite": settings["problems"]}
    if file is None or not settings["solution_column"]:
        return [dict(row) for row in setup.load_suite_problems(named, file)]
    from calibrated_sd.evaluation.datasets import load_problems

    columns = {key: named[f"{key}_column"] for key in ("prompt", "answer", "solution") if named[f"{key}_column"]}
    return [dict(row) for row in load_problems(file, columns=columns, limit=settings["limit"])]
