"""Remove the thinking from a completion: the step from c = s to c = s∖think (arXiv:2603.24472, section 3).

Reasoning models differ in who writes the opening tag. Qwen3 writes `<think>` itself; the chat template of
DeepSeek-R1-Distill puts it at the end of the prompt, so the completion only holds the closing tag. A pattern that
asks for both tags leaves the whole trace of the second kind in place.
"""

from __future__ import annotations

import re

OPENING_TAG = "<think>"
CLOSING_TAG = "</think>"
_PAIRED = re.compile(re.escape(OPENING_TAG) + r".*?" + re.escape(CLOSING_TAG), flags=re.DOTALL)


def strip_thinking(text: str) -> str:
    """Return `text` without its thinking, surrounding whitespace removed.

    Paired tags go first, with what they enclose. If a closing tag is left over, its opening tag was in the prompt:
    everything up to and including the last such tag goes too. Text without a closing tag is kept whole (an opening
    tag alone means that the completion was cut off while thinking; there is no answer to keep).

    >>> strip_thinking("<think>Wait, is 4 right? Yes.</think>The answer is 4.")
    'The answer is 4.'
    >>> strip_thinking("Wait, is 4 right? Yes.</think>The answer is 4.")
    'The answer is 4.'
    >>> strip_thinking("The answer is 4.")
    'The answer is 4.'
    """
    # Opening tags after the last closing one pair with nothing; a loop of them would each search the text to its end.
    end = text.rfind(CLOSING_TAG) + len(CLOSING_TAG) if CLOSING_TAG in text else 0
    text = _PAIRED.sub("", text[:end]) + text[end:]
    _, _, after = text.rpartition(CLOSING_TAG)
    return after.strip()
