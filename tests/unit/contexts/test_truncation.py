"""A teacher prompt that is too long loses the end of its demonstration and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.contexts import fit_demonstration
from calibrated_sd.errors import ContextError


def fit(demonstration, limit, frame=3):
    """Tokens are words; the frame around the demonstration is `frame` of them: Q Q … demonstration … END."""
    vocabulary = {}

    def encode(text):
        return [vocabulary.setdefault(word, len(vocabulary)) for word in text.split()]

    words = {}

    def decode(ids):
        words.update({index: word for word, index in vocabulary.items()})
        return " ".join(words[i] for i in ids)

    fitted = fit_demonstration(
        demonstration,
        encode_prompt=lambda shown: encode("Q " * (frame - 1) + shown + " END"),
        encode_text=encode,
        decode_text=decode,
        limit=limit,
    )
    return decode(fitted.ids), fitted.truncated


def test_by_hand():
    assert fit("a b c d", limit=7) == ("Q Q a b c d END", False)
    assert fit("a b c d", limit=6) == ("Q Q a b c END", True)
    assert fit("a b c d", limit=3) == ("Q Q END", True)


@given(st.integers(0, 30), st.integers(3, 40))
def test_question_and_frame_are_always_whole(length, limit):
    demonstration = " ".join(f"w{i}" for i in range(length))
    text, truncated = fit(demonstration, limit)
    kept = text.split()
    assert len(kept) == min(limit, length + 3)
    assert (kept[:2], kept[-1]) == (["Q", "Q"], "END")
    assert kept[2:-1] == demonstration.split()[: len(kept) - 3]
    assert truncated == (length + 3 > limit)


def test_a_question_that_cannot_fit_is_an_error():
    with pytest.raises(ContextError, match=r"takes 5 tokens .* allows 4"):
        fit("a b", limit=4, frame=5)
    with pytest.raises(ContextError, match="max_reprompt_len"):
        fit("", limit=2)


def test_tokens_that_merge_with_the_frame_are_cut_again():
    """A frame that costs one token more for a shorter text: the first guess is too long, and is corrected."""
    fitted = fit_demonstration(
        "abcdef",
        encode_prompt=lambda shown: list(range(len(shown) + (3 if len(shown) < 6 else 2))),
        encode_text=lambda text: list(range(len(text))),
        decode_text=lambda ids: "abcdef"[: len(ids)],
        limit=6,
    )
    assert fitted.truncated
    assert len(fitted.ids) == 6  # 3 letters and a frame of 3
