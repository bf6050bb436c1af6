r"""From a row as its file has it to question, answer, solution and what else is known about the problem."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.contexts.answers import last_box
from calibrated_sd.data.instructions import BOXED, BOXED_LETTER, as_messages, question_of
from calibrated_sd.data.sources import Source
from calibrated_sd.errors import DataError, unknown_name
from calibrated_sd.evaluation.datasets import COLUMNS, find_column, lookup, read_answer, read_prompt

CANDIDATES: dict[str, tuple[str, ...]] = {
    **COLUMNS,
    "solution": ("solution", "Solution"),
    "problem_id": ("problem_id", "id", "unique_id", "ID", "extra_info.index", "index"),
}
"""Column names looked for, as in ``evaluation.datasets``, and further ones for identifiers."""
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
_BARE_BOX = re.compile(r"\\boxed\s*([^\s{}$\\][^{}$\\\n]*)\$")
_LEVEL = re.compile(r"(?:level\s*)?(\d+)", re.IGNORECASE)


class Unusable(Exception):
    """A row that holds no problem; the message is the reason it is dropped for."""


@dataclass
class RowForm:
    """How the rows of one file are read.

    Args:
        where: column of each key, as found in the first rows.
        name: what the problems are called after, and what their ``source`` is where the row names none.
        source: the known data set, or None for any file.
        instruction: closing instruction of every prompt; None leaves prompts alone.
    """

    where: Mapping[str, str | None]
    name: str
    source: Source | None = None
    instruction: str | None = BOXED

    @classmethod
    def of(
        cls,
        first_rows: Sequence[Mapping[str, Any]],
        path: Path,
        *,
        name: str,
        source: Source | None,
        columns: Mapping[str, str],
        boxed: bool,
    ) -> RowForm:
        """Look at the first rows of a file.

        Raises:
            ConfigError: unknown key in ``columns``.
            DataError: no column for the prompt or the answer.
        """
        for key in columns:
            if key not in CANDIDATES:
                raise unknown_name("column mapping", key, CANDIDATES)
        names = dict(CANDIDATES)
        if source is not None and source.choices:
            names["answer"] = ("answerKey", *names["answer"])
        where = {key: find_column(first_rows, key, columns.get(key), path, names) for key in names}
        instruction = BOXED_LETTER if source is not None and source.choices else BOXED
        return cls(where, name, source, instruction if boxed else None)

    def belongs(self, row: Mapping[str, Any]) -> bool:
        """Whether the source's definition takes this row; a row without the field was selected before."""
        keep = {} if self.source is None else self.source.keep
        return all((value := lookup(row, key)) is None or value in allowed for key, allowed in keep.items())

    def problem(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The problem in a row, ``{problem_id, prompt, answer, …}``; its id is None where the row has none.

        Raises:
            Unusable: it holds none.
        """
        cells = {key: lookup(row, column) for key, column in self.where.items() if column is not None}
        for key in ("prompt", "answer"):
            if cells.get(key) is None or str(cells[key]).strip() == "":
                raise Unusable(f"no {key}")
        try:
            prompt = read_prompt(cells["prompt"], "")
        except DataError as error:
            raise Unusable("the prompt is neither text nor messages") from error
        answer, solution = self._answer(cells)
        if self.source is not None and self.source.choices and "choices" in row:
            prompt = _with_choices(prompt, row, answer)
        messages = as_messages(prompt, self.instruction)
        if not question_of(messages):
            raise Unusable("no prompt")
        found = {"solution": solution, "level": _level(row), "subject": self._subject(row)}
        return {
            "problem_id": self._identifier(cells.get("problem_id")),
            "prompt": messages,
            "answer": answer,
            **{key: value for key, value in found.items() if value is not None},
            "source": str(row.get("source") or row.get("data_source") or self.name),
        }

    def _answer(self, cells: Mapping[str, Any]) -> tuple[str, str | None]:
        """Final answer and worked solution."""
        given = str(cells["answer"])
        try:
            answer = read_answer(cells["answer"], self.where["answer"])
        except DataError as error:
            raise Unusable("the answer is not one value") from error
        solution = None if cells.get("solution") is None else str(cells["solution"])
        if "####" in given:  # the answer column of grade-school sets holds the whole solution
            answer = answer.replace(",", "") if _THOUSANDS.fullmatch(answer) else answer
            solution = solution or worked_solution(given, answer)
        if self.source is not None and self.source.boxed_answer and solution is not None:
            boxed = _boxed(solution)
            if boxed is None and self.where["answer"] in CANDIDATES["solution"]:
                raise Unusable("no final answer in the solution")
            answer = answer if boxed is None else boxed
        elif self.where["answer"] in CANDIDATES["solution"] and answer == given.strip() and not _is_short(answer):
            raise Unusable("no final answer in the solution")
        if answer == "":
            raise Unusable("no answer")
        return answer, solution

    def _identifier(self, value: Any) -> str | None:
        if value is None:
            return None
        text = str(value).strip()
        return f"{self.name}-{int(text):05d}" if text.isdecimal() else text or None

    def _subject(self, row: Mapping[str, Any]) -> str | None:
        subject = row.get("subject")
        if subject is None and self.source is not None:
            subject = lookup(row, "details.subtask") if self.source.choices else row.get("type")
        return None if subject is None else str(subject)


def worked_solution(text: str, answer: str) -> str:
    r"""A grade-school solution without calculator annotations, its ``#### 18`` written as a sentence with a box.

    >>> worked_solution("16 - 7 = <<16-7=9>>9, and 9 * 2 = <<9*2=18>>18.\n#### 18", "18")
    '16 - 7 = 9, and 9 * 2 = 18.\nThe answer is \\boxed{18}.'
    """
    steps = _CALCULATOR.sub("", text.rsplit("####", 1)[0]).strip()
    return f"{steps}\nThe answer is \\boxed{{{answer}}}."


def _boxed(solution: str) -> str | None:
    r"""What the last box holds, also in the older spellings of MATH, ``\fbox{4}`` and ``$\boxed 4$``."""
    braced = solution.replace("\\fbox", "\\boxed")
    box = last_box(braced)
    if box is not None:
        return braced[slice(*box)].strip()
    bare = _BARE_BOX.findall(braced)
    return bare[-1].strip().rstrip(".,") if bare else None


def _is_short(text: str) -> bool:
    """Whether a "solution" without a box is itself the answer."""
    return len(text) <= 40 and "\n" not in text


def _with_choices(prompt: str | list[dict[str, str]], row: Mapping[str, Any], answer: str) -> str:
    """The question and its options, one a line."""
    if not isinstance(prompt, str):
        raise Unusable("choices beside a chat")
    labels, texts = list(lookup(row, "choices.label") or []), list(lookup(row, "choices.text") or [])
    if not labels or len(labels) != len(texts):
        raise Unusable("choices without labels or texts")
    if answer not in labels:
        raise Unusable("the answer is none of the choices")
    options = "\n".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    return f"{prompt.strip()}\n\n{options}"


def _level(row: Mapping[str, Any]) -> int | str | None:
    level = lookup(row, "level") if "level" in row else lookup(row, "details.level")
    if level is None:
        return None
    number = _LEVEL.fullmatch(str(level).strip())
    return int(number[1]) if number else str(level)
