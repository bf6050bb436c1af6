"""What strangers could give, and the rule for it: a result, or one paragraph that says what to do. Never a traceback, never a hang.

The suite tries 15 cases of each kind (`test_fuzz.py`). The campaign is the same with more:
`CSD_FUZZ_EXAMPLES=1000 pytest -o addopts= tests/fuzz/fuzz_*.py`.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from calibrated_sd.errors import CalibratedSDError

EXAMPLES = int(os.environ.get("CSD_FUZZ_EXAMPLES", "60"))

TRIED: Counter[str] = Counter()
"""Cases by test."""

_SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= 15,  # the suite tries the same cases each time; what is new is for the campaign
    deadline=20_000,  # ms; a case that takes longer counts as a hang
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


def fuzz(test: Any) -> Any:
    """Decorate what `given` returns: our settings, and a count of the cases."""
    inner = test.hypothesis.inner_test

    @functools.wraps(inner)
    def counted(*arguments: Any, **keywords: Any) -> None:
        TRIED[test.__name__] += 1
        inner(*arguments, **keywords)

    test.hypothesis.inner_test = counted
    return _SETTINGS(test)


TRICKY = [
    *("", " ", "\0", "\x1b[31m", "\r\n", "\u2028", "\u202e", "\ufeff", "\ud800", "😀", "e\u0301", "İ", "ﬁ"),
    *("wait", "Wait,", "maybe", "hmm", "perhaps", "double-check", "un", "likely", "not sure"),
    *("<think>", "</think>", "<|im_end|>", "<script>", "{", "}", "{{", "}}", "{prompt}", "{0}", "%s", "{!r}"),
    *(
        "\\boxed{",
        "\\boxed{}",
        "\\boxed{\\boxed{1}}",
        "\\frac{1}{0}",
        "$",
        "$$",
        "\\(",
        "`",
        "```",
        "####",
        "\\",
        "$\\{",
    ),
    *("1e999", "-0", "nan", "inf", "1/0", "9" * 400, "0x1", "½", "١٢", "1_000"),
    *("null", "true", "~", "!!python/object/apply:os.system [id]", "&a [*a]", "- - -", ": :", "#", "---", "..", "/"),
]
text = st.lists(st.sampled_from(TRICKY) | st.text(max_size=12), max_size=10).map("".join)
scalar = st.none() | st.booleans() | st.integers() | st.floats() | text
anything = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=8
)


def allowed(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """The call's result, or None where it ended as a user's mistake, in one readable paragraph."""
    try:
        return call(*arguments, **keywords)
    except CalibratedSDError as error:
        message = str(error)
        assert message.strip()
        assert "\n\n" not in message.strip("\n")
        assert len(message) < 4000
        return None
