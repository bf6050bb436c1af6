"""Problems made ready: one row per problem, one form of prompt, one answer, and a report of what was dropped."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.data.instructions import question_of, same_question
from calibrated_sd.data.report import Report
from calibrated_sd.data.row_forms import RowForm, Unusable
from calibrated_sd.data.sources import Source
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.grading import normalise_answer

REPEATED = "repeats a problem"
CONTRADICTORY = "contradictory answers to one problem"
_FIRST = 20


@dataclass
class Prepared:
    """Problems ready to be written, and how they came about."""

    problems: list[dict[str, Any]]
    report: Report


@dataclass
class _Entry:
    problem: dict[str, Any]
    row: int
    rows: int
    second_row: int
    answers: dict[str, str]


def prepare_rows(
    rows: Iterable[Mapping[str, Any]],
    path: Path,
    *,
    name: str,
    source: Source | None = None,
    columns: Mapping[str, str] | None = None,
    boxed: bool = True,
    max_prompt_tokens: int | None = None,
    count_tokens: Callable[[list[dict[str, str]]], int] | None = None,
    on_row: Callable[[int], None] | None = None,
) -> Prepared:
    """Clean the rows of one file. Cleaning the result again changes nothing.

    Rows are the same problem when their questions are, apart from whitespace and from the known closing instructions.
    The first is kept. If two of them state answers that differ (as numbers, or as text), all are dropped, because
    nobody can tell which is right.

    Args:
        rows: rows as ``evaluation.problem_files.iter_rows`` gives them.
        path: where they are from, for messages.
        name: what the problems are called after where they have no identifier.
        source: the known data set they belong to, or None.
        columns: names of unusual columns, by ``prompt``, ``answer``, ``solution``, ``problem_id``.
        boxed: end every prompt in the boxed instruction; False leaves prompts as they are.
        max_prompt_tokens: drop longer prompts.
        count_tokens: tokens of a chat; needed for ``max_prompt_tokens``.
        on_row: told the number of rows read so far, every few thousand rows.

    Raises:
        DataError: no rows, a missing column, or nothing left.
        ConfigError: a token limit without a tokenizer or below 1, or an unknown key in ``columns``.
    """
    if max_prompt_tokens is not None and max_prompt_tokens < 1:
        raise ConfigError(f"The limit of prompt tokens must be at least 1, got {max_prompt_tokens}.")
    if max_prompt_tokens is not None and count_tokens is None:
        raise ConfigError("Prompts can only be measured with a tokenizer: add --tokenizer, a folder or a Hub id.")
    iterator = iter(rows)
    first = list(itertools.islice(iterator, _FIRST))
    if not first:
        raise DataError(f"{path} holds no rows. Give a file with at least one problem.")
    form = RowForm.of(first, path, name=name, source=source, columns=columns or {}, boxed=boxed)

    report, entries = Report(), dict[str, _Entry]()
    for number, row in enumerate(itertools.chain(first, iterator), 1):
        report.rows_read = number
        if on_row is not None and number % 4096 == 0:
            on_row(number)
        if not form.belongs(row):
            report.drop("not part of this set", number, row.get("question", ""))
            continue
        try:
            problem = form.problem(row)
        except Unusable as error:
            report.drop(str(error), number, _excerpt(row, form))
            continue
        _add(entries, problem, number)

    kept = [entry.problem for entry in entries.values() if _settled(entry, report)]
    if max_prompt_tokens is not None and count_tokens is not None:
        kept = _short_enough(kept, entries, report, max_prompt_tokens, count_tokens)
    if not kept:
        reasons = ", ".join(f"{reason} ({what['count']})" for reason, what in report.dropped.items())
        raise DataError(f"Nothing is left of the {report.rows_read} rows of {path}: {reasons}. Are the columns right?")
    _name(kept, name)
    report.kept = len(kept)
    return Prepared(kept, report)


def token_counter(tokenizer: str) -> Callable[[list[dict[str, str]]], int]:
    """A function that counts the tokens of a chat as the model would see it, its chat template included.

    Raises:
        ConfigError: the tokenizer cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"The tokenizer {tokenizer!r} cannot be loaded ({' '.join(str(error).split())[:300]}). Give a folder with a "
            "tokenizer, or a Hub id that can be reached."
        ) from error

    def count(messages: list[dict[str, str]]) -> int:
        if loaded.chat_template is None:
            text = "\n".join(message["content"] for message in messages)
        else:
            text = str(loaded.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        return len(loaded(text, add_special_tokens=False)["input_ids"])

    return count


def _add(entries: dict[str, _Entry], problem: dict[str, Any], number: int) -> None:
    key = same_question(problem["prompt"])
    answer = normalise_answer(problem["answer"])
    entry = entries.get(key)
    if entry is None:
        entries[key] = _Entry(problem, number, 1, number, {answer: problem["answer"]})
        return
    if entry.rows == 1:
        entry.second_row = number
    entry.rows += 1
    entry.answers.setdefault(answer, problem["answer"])


def _settled(entry: _Entry, report: Report) -> bool:
    """Whether one answer was stated; counts the rows that are dropped either way."""
    question = question_of(entry.problem["prompt"])
    if len(entry.answers) > 1:
        report.drop(CONTRADICTORY, entry.row, question, " | ".join(entry.answers.values()), entry.rows)
        return False
    if entry.rows > 1:
        report.drop(REPEATED, entry.second_row, question, f"first in row {entry.row}", entry.rows - 1)
    return True


def _short_enough(
    problems: list[dict[str, Any]],
    entries: Mapping[str, _Entry],
    report: Report,
    limit: int,
    count_tokens: Callable[[list[dict[str, str]]], int],
) -> list[dict[str, Any]]:
    short = []
    for problem in problems:
        tokens = count_tokens(problem["prompt"])
        if tokens <= limit:
            short.append(problem)
        else:
            row = entries[same_question(problem["prompt"])].row
            report.drop(f"longer than {limit} tokens", row, question_of(problem["prompt"]), f"{tokens} tokens")
    return short


def _name(problems: list[dict[str, Any]], name: str) -> None:
    """Number the problems, unless every one has an identifier of its own."""
    given = [problem["problem_id"] for problem in problems]
    if None in given or len(set(given)) < len(given):
        for index, problem in enumerate(problems):
            problem["problem_id"] = f"{name}-{index:05d}"


def _excerpt(row: Mapping[str, Any], form: RowForm) -> object:
    column = form.where["prompt"]
    return row.get(column, "") if column is not None else ""
