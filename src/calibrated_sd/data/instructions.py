r"""The closing instruction of a math prompt: taken off, put on, or exchanged, the same however often it is done.

The paper's prompts are the problem, a line break and :data:`BOXED`. DAPO's file frames every problem with another request
instead ("… of the form Answer: $Answer …"), which a reward that reads ``\boxed{}`` would never see fulfilled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
"""The paper's instruction for problems with a free answer."""
BOXED_LETTER = r"Please reason step by step, and put the letter of the right option within \boxed{}."
"""For multiple choice: the same way to answer, so that the same graders read it."""


def _spaced(text: str) -> str:
    """A pattern for the text, whatever whitespace stands between its words."""
    return r"\s+".join(map(re.escape, text.split()))


_BEFORE = re.compile(
    r"\A"
    + _spaced("Solve the following math problem step by step. The last line of your response should be of the form")
    + r"\s+Answer:\s+\$?Answer\s+\(without\s+quotes\)\s+where\s+\$?Answer\s+"
    + _spaced("is the answer to the problem.")
    + r"\s*",
    re.IGNORECASE,
)
_AFTER = (
    re.compile(
        _spaced('Remember to put your answer on its own line after "Answer:"')
        + rf"(?:,?\s+{_spaced('and you do not need to use a')}\s+\\boxed\s+command)?\.?\Z",
        re.IGNORECASE,
    ),
    *(re.compile(rf"{_spaced(line)}\Z") for line in (BOXED, BOXED_LETTER, "Please reason step by step.")),
)


@lru_cache(maxsize=1 << 16)  # files exist that hold every problem a hundred times
def bare_question(text: str) -> str:
    """The problem without any of the known instructions, and without blanks around it."""
    bare = text.strip()  # blanks go here and not in the patterns, which would look at every long run of them again
    while True:
        before = bare
        for pattern in (_BEFORE, *_AFTER):
            bare = pattern.sub("", bare).strip()
        if bare == before:
            return bare


@lru_cache(maxsize=1 << 16)
def with_instruction(text: str, instruction: str = BOXED) -> str:
    """The problem followed by one instruction on a line of its own, whatever instructions it came with.

    A text in that form is returned as it is, so that prompts of the paper's own files keep every character. For any
    text, ``with_instruction(with_instruction(text)) == with_instruction(text)``.
    """
    bare = bare_question(text)
    if instruction == BOXED and text.rstrip().endswith(BOXED_LETTER):
        instruction = BOXED_LETTER  # it was made for multiple choice, which cannot be seen from the question alone
    ending = "\n" + instruction
    if text.endswith(ending) and text.removesuffix(ending).strip() == bare:
        return text
    return bare + ending


def question_of(prompt: str | Sequence[dict[str, str]]) -> str:
    """The problem's own text: of a text, or of the last user message of a chat. Empty where there is none."""
    return bare_question(prompt if isinstance(prompt, str) else _last_user(prompt))


def same_question(prompt: str | Sequence[dict[str, str]]) -> str:
    """What two prompts of one problem share: the question and the turns before it, their whitespace squeezed."""
    turns = [] if isinstance(prompt, str) else [m for m in prompt if m["role"] != "system"]
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    before = [f"{m['role']}: {m['content']}" for m in turns[:-1]]
    return " ".join(" ".join([*before, question_of(prompt)]).split())


def as_messages(prompt: str | Sequence[dict[str, str]], instruction: str | None = BOXED) -> list[dict[str, str]]:
    """The prompt as chat messages, the last user message ending in the instruction (None leaves it as it is)."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    if instruction is not None:
        for message in reversed(messages):
            if message["role"] == "user":
                message["content"] = with_instruction(message["content"], instruction)
                break
    return messages


def _last_user(messages: Sequence[dict[str, str]]) -> str:
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
