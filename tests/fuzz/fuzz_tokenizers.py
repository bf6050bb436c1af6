"""Random vocabularies: markers in the tokens are those in the text, wherever a tokenizer cuts words and characters."""

from itertools import pairwise

import pytest
import torch
from fuzzing import allowed, fuzz
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrated_sd.markers import MARKER_SETS, MarkerSet, find_spans, marker_token_ids, marker_token_mask, token_ranges

SETS = [MarkerSet.load(name) for name in MARKER_SETS]
WORDS = ["wait", "Wait", "WAIT", "hmm", "maybe", "perhaps", "double-check", "un", "likely", "unlikely", "not sure", "hold on",
         "let me check", "seems", "way", "ay", "be", "the check", "12", "x"]  # fmt: skip
BETWEEN = ["", " ", "  ", "\n", ", ", ". ", "-", "'", "$", "<think>", "</think>", "<pad>", "≡", "🤔", "é", "e\u0301", "ﬁ", "İ", "ｗ", "\u00a0",
           "\ufffd", "👩‍🔬", "\u200b", "`", "\\("]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS) | st.sampled_from(BETWEEN), max_size=14).map("".join)


def wrapped(backend):
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", clean_up_tokenization_spaces=False
    )


@st.composite
def merged(draw, symbols):
    """A vocabulary of these symbols and of random merges of them."""
    vocabulary = {symbol: i for i, symbol in enumerate(["<pad>", "<unk>", *symbols])}
    pieces, merges = [s for s in symbols if len(s) == 1], []
    for _ in range(draw(st.integers(0, 40))):
        pair = draw(st.sampled_from(pieces)), draw(st.sampled_from(pieces))
        if "".join(pair) not in vocabulary and len("".join(pair)) < 12:
            vocabulary["".join(pair)] = len(vocabulary)
            pieces.append("".join(pair))
            merges.append(pair)
    return vocabulary, merges


BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
LETTERS = sorted({*"".join(WORDS), *"▁.,$\\(`<>/"})


def words_of(text):
    """The byte-level symbols of a text, the usual building blocks of its tokens."""
    backend = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return backend.pre_tokenize_str(text)[0][0]


@st.composite
def byte_level(draw):
    # merges along random cuts of real words, and any others
    vocabulary, merges = draw(merged(BYTES))
    for word in draw(st.lists(st.sampled_from([*WORDS, " wait", " maybe", "🤔", "≡ wait", "wait wait"]), max_size=8)):
        symbols = list(words_of(word))
        while len(symbols) > 1 and draw(st.booleans()):
            at = draw(st.integers(0, len(symbols) - 2))
            pair = symbols[at], symbols[at + 1]
            if "".join(pair) not in vocabulary:
                vocabulary["".join(pair)] = len(vocabulary)
                merges.append(pair)
            symbols[at : at + 2] = ["".join(pair)]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=draw(st.booleans()), use_regex=draw(st.booleans())
    )
    backend.decoder = decoders.ByteLevel()
    return wrapped(backend)


@st.composite
def byte_fallback(draw):
    vocabulary, merges = draw(merged([*LETTERS, *(f"<0x{byte:02X}>" for byte in range(256))]))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=draw(st.sampled_from(["always", "first", "never"])))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if draw(st.booleans()) else steps)
    return wrapped(backend)


@st.composite
def word_level(draw):
    known = draw(st.lists(st.sampled_from([*WORDS, *BETWEEN, "<unk>"]).filter(str.strip), unique=True))
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["<pad>", "<unk>", *known]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = draw(st.sampled_from([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Whitespace()]))
    return wrapped(backend)


@st.composite
def word_piece(draw):
    words = draw(st.lists(st.sampled_from(WORDS), unique=True))
    cuts = [draw(st.integers(1, max(1, len(word) - 1))) for word in words]
    pieces = [p for word, cut in zip(words, cuts, strict=True) for p in (word[:cut], f"##{word[cut:]}", word)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(["<pad>", "<unk>", *pieces, *LETTERS]))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase() if draw(st.booleans()) else None
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=draw(st.booleans()))
    return wrapped(backend)


FAMILIES = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "word_level": word_level,
    "word_piece": word_piece,
}


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("family", FAMILIES)
@fuzz
@given(st.data())
def test_markers_in_tokens_are_those_in_the_text(family, data):
    tokenizer = data.draw(FAMILIES[family]())
    if data.draw(st.booleans()):
        ids = tokenizer.encode(data.draw(texts), add_special_tokens=False)
    else:  # what a model samples is no text's encoding, and may cut characters in two
        ids = data.draw(st.lists(st.sampled_from(range(len(tokenizer))), max_size=24))
    markers = data.draw(st.sampled_from(SETS))
    whole = decoded(tokenizer, ids)
    text, ranges = token_ranges(tokenizer, ids)
    assert text == whole
    assert len(ranges) == len(ids)
    ends = [end for _, end in ranges]
    assert ends == sorted(ends)
    assert not ids or (ranges[0][0], ends[-1]) == (0, len(text))
    assert all(start <= end for start, end in ranges)
    assert all(start == before or pair == last for (last, before), (pair, start) in pairs(ranges))

    completion = torch.tensor([ids], dtype=torch.int64)
    counts = torch.ones_like(completion)
    spans = find_spans(whole, markers)
    covered = marker_token_mask(tokenizer, completion, markers, counts)[0].tolist()
    begins = marker_token_mask(tokenizer, completion, markers, counts, begins_only=True)[0].tolist()
    assert all(hit for hit, first in zip(covered, begins, strict=True) if first)
    # each marker begins in a token that shows its first character; two markers within one token are one token
    firsts = {next(r for r in ranges if r[0] <= span.start < r[1]) for span in spans}
    assert sum(begins) == len(firsts)
    assert {r for r, first in zip(ranges, begins, strict=True) if first} == firsts
    for r, hit in zip(ranges, covered, strict=True):
        assert hit == any(r[0] < span.end and span.start < r[1] for span in spans)


def pairs(ranges):
    return [((r, r[1]), (s, s[0])) for r, s in pairwise(ranges)]


@pytest.mark.parametrize("family", FAMILIES)
@fuzz
@given(st.data())
def test_ids_of_markers(family, data):
    """Each id begins a marker when it stands at the beginning of a word, or there are none, which is said."""
    tokenizer, markers = data.draw(FAMILIES[family]()), data.draw(st.sampled_from(SETS))
    ids = allowed(marker_token_ids, tokenizer, markers)
    if ids is not None:
        forms = {form for entry in markers.entries for form in entry.forms}
        for i in ids.tolist():
            piece = decoded(tokenizer, [i]).strip().lower()
            assert any(form.startswith(piece.strip("\"'(*. \n")) for form in forms), piece


@fuzz
@given(byte_level(), texts)
def test_bytes_are_kept(tokenizer, text):
    """What was a text is the same text again, so that its markers are, too."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert decoded(tokenizer, ids).replace(" ", "") == text.replace(" ", "")  # one may be put before a word
    assert token_ranges(tokenizer, ids)[0] == decoded(tokenizer, ids)
