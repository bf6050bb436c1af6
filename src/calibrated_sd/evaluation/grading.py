r"""Is the answer right? The last ``\boxed{…}`` of a completion, compared as text, as an exact number or as mathematics.

A grader is a function of completion and expected answer. Training rewards and evaluations use the same ones.

===============  =====================================================================================================
``boxed``        text and exact numbers; needs nothing installed, and is all that a model organism needs
``math-verify``  also LaTeX expressions, sets, intervals, units, percentages; needs the library of that name
``stated``       as ``math-verify``, but without a box takes what follows "the answer is" or ``####``
===============  =====================================================================================================

All of them grade only what follows the last ``</think>``, where there is one; a trace that was cut off while thinking
is graded on its whole text (arXiv:2603.24472, its evaluation code). No box, or an empty one, is wrong.

math-verify can take forever on one expression, so the last two belong into a
:class:`~calibrated_sd.evaluation.grading_pool.GradingPool`, which has time limits.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from fractions import Fraction

from calibrated_sd.contexts.answers import extract_answer, last_box
from calibrated_sd.contexts.strip import CLOSING_TAG
from calibrated_sd.errors import ConfigError, unknown_name

_FRACTION = re.compile(r"([+-]?)\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}")  # all of the answer: 3\frac{1}{2} is not 31/2
_MIXED = re.compile(
    r"(?<!\d)(\d+)\s+(\d+)\s*/\s*(\d+)"
)  # 3 1/2 is not 31/2 either, nor the product that math-verify reads
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)|[+-]?\d+/\d+")  # no exponents: 1e999999999 is a trap
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")
# math-verify reads the spaced thousand 1\,000 as the product of 1 and 000.
_SPACED_THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|~|\s)+(?=\d{3}(?!\d))")
_UNESCAPED_DOLLAR = re.compile(r"(?<!\\)\$")
_LONGEST = 2000  # characters; longer "answers" are loops, and are compared as text only

Grader = Callable[[str, str], bool | None]
"""(completion, expected answer) → right, wrong, or None for "cannot be judged"."""


def graded_part(completion: str) -> str:
    """What is graded: the text after the last ``</think>``, or all of it where there is none."""
    return completion.rpartition(CLOSING_TAG)[2]


def extract_boxed(text: str) -> str | None:
    r"""What stands inside the last complete ``\boxed{…}``, whitespace removed; None without one.

    Braces may nest. A box that is never closed (a completion cut at the token limit) does not count.
    """
    span = last_box(text, empty=True)
    return None if span is None else "".join(text[slice(*span)].split())


def normalise_answer(answer: str) -> str:
    r"""One spelling per answer: no whitespace, ``$`` or final full stop; numbers as reduced fractions.

    ``"1,000"``, ``" 1000 "``, ``"1000.0"`` and ``"$1000$."`` all become ``"1000"``; ``\frac{2}{4}`` and ``0.5``
    become ``"1/2"``. Anything that is not a number stays text, mixed numbers too.
    """
    text = answer.replace("$", "").replace("−", "-")
    text = (" " if _MIXED.search(text) else "").join(text.split()).rstrip(".")
    fraction = _FRACTION.fullmatch(text)
    number = "{}{}/{}".format(*fraction.groups()) if fraction else text
    if _THOUSANDS.fullmatch(number):
        number = number.replace(",", "")
    if not _NUMBER.fullmatch(number):
        return text
    try:
        return str(Fraction(number))
    except (ValueError, ZeroDivisionError):  # thousands of digits, or x/0
        return text


def grade_boxed(completion: str, answer: str) -> bool | None:
    r"""Whether the last ``\boxed{…}`` holds the answer, as text or as an exactly equal number.

    Spaces inside the box are ignored. A completion without a complete box is wrong.

    Args:
        completion: what the model wrote.
        answer: the expected answer, with or without its own ``\boxed{…}``. An empty one cannot be judged: None.
    """
    return _equal(_last_box(graded_part(completion)), answer, _same_text)


def grade_math_verify(completion: str, answer: str) -> bool | None:
    """Whether the last box holds the answer, as :func:`grade_boxed` sees it or mathematically (library math-verify).

    Has no time limit; see the module's docstring. Only the last box is read: the library itself joins neighbouring
    boxes to a set, and takes any number of the text where there is no box.

    Raises:
        ConfigError: math-verify is not installed.
    """
    return _equal(_last_box(graded_part(completion)), answer, _same_mathematics)


def grade_stated(completion: str, answer: str) -> bool | None:
    """As :func:`grade_math_verify`; without a box, the answer is what follows "the answer is", "Answer:" or ``####``.

    For models that were not taught to box their answers. It is more lenient than the paper's grader.
    """
    part = graded_part(completion)
    given = _last_box(part)
    return _equal(extract_answer(part) if given is None else given, answer, _same_mathematics)


def _last_box(text: str) -> str | None:
    span = last_box(text, empty=True)
    return None if span is None else text[slice(*span)]


def _equal(given: str | None, answer: str, same: Callable[[str, str], bool]) -> bool | None:
    boxed = _last_box(answer)
    expected = (answer if boxed is None else boxed).strip()
    if not expected:
        return None
    if given is None or not given.strip():
        return False
    return same(given, expected)


def _same_text(given: str, expected: str) -> bool:
    return normalise_answer(given) == normalise_answer(expected)


def _same_mathematics(given: str, expected: str) -> bool:
    if _same_text(given, expected):
        return True
    if max(len(given), len(expected)) > _LONGEST:
        return False
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ConfigError(
            "The graders 'math-verify' and 'stated' need the library math-verify, which is not installed. Install it "
            "with pip install 'calibrated-sd[eval]', or use --grader boxed (exact numbers and text only)."
        ) from error
    for name in ("math_verify.parser", "math_verify.grader"):  # they warn that they have no time limit of their own
        logging.getLogger(name).setLevel(logging.ERROR)
    # Its own limits are signals, which work in the main thread only and cannot stop compiled code.
    gold, target = (parse(f"\\boxed{{{_plain(text)}}}", parsing_timeout=None) for text in (expected, given))
    return bool(verify(gold, target, timeout_seconds=None))


def _plain(answer: str) -> str:
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", answer.replace("−", "-"))
    return _UNESCAPED_DOLLAR.sub("", _SPACED_THOUSANDS.sub("", text))


GRADERS: dict[str, Grader] = {"boxed": grade_boxed, "math-verify": grade_math_verify, "stated": grade_stated}
"""All graders by the name given on the command line."""


def get_grader(name: str) -> Grader:
    """The grader of that name, checked to be usable now and not after an hour of sampling.

    Raises:
        ConfigError: unknown name, or its library is not installed.
    """
    if name not in GRADERS:
        raise unknown_name("grader", name, GRADERS)
    GRADERS[name](r"\boxed{2}", "1")  # differing texts, so that the library is asked
    return GRADERS[name]
