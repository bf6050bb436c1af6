"""From characters to tokens and back, for five families of tokenizers."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from calibrated_sd.errors import ConfigError
from calibrated_sd.markers import MarkerSet, Phrase, marker_token_ids, marker_token_mask, token_ranges

LEXICAL = MarkerSet.load("lexical")
FAMILIES = ("byte_level", "single_bytes", "word_level", "sentencepiece_like", "word_piece")


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def marked(tokenizer, text, marker_set=LEXICAL, **options):
    """The tokens (decoded one by one, without spaces) that the mask marks."""
    ids = encode(tokenizer, text)
    mask = marker_token_mask(tokenizer, torch.tensor([ids]), marker_set, **options)[0]
    return [tokenizer.decode([i]).strip() for i, hit in zip(ids, mask.tolist(), strict=True) if hit]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["wait , maybe x = 12 .", "so x = 12 . check x", "", "x"])
def test_ranges_tile_the_decoded_text(tokenizers, family, text):
    tokenizer = tokenizers[family]
    ids = encode(tokenizer, text)
    decoded, ranges = token_ranges(tokenizer, ids)
    assert decoded == tokenizer.decode(ids)
    assert len(ranges) == len(ids)
    assert "".join(decoded[start:end] for start, end in dict.fromkeys(ranges)) == decoded


@pytest.mark.parametrize("family", FAMILIES)
def test_ranges_of_characters_that_only_decode_jointly(tokenizers, family):
    tokenizer = tokenizers[family]
    text = "wait ≡🤔 , maybe"
    ids = encode(tokenizer, text)
    decoded, ranges = token_ranges(tokenizer, ids)
    assert decoded == tokenizer.decode(ids)
    assert ranges == sorted(ranges)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(decoded)
    if family == "single_bytes":
        # "wait " is 5 bytes, "≡" 3, "🤔" 4, then 8 more: the bytes of one character share its range
        assert ranges[5:8] == [(5, 6)] * 3
        assert ranges[8:12] == [(6, 7)] * 4
        assert ranges[12:] == [(i, i + 1) for i in range(7, 15)]


def test_broken_bytes_do_not_break_the_rest(tokenizers):
    tokenizer = tokenizers["single_bytes"]
    whole = encode(tokenizer, "≡ , maybe")
    ids = whole[:2] + whole[3:]  # the last byte of "≡" is missing
    decoded, _ = token_ranges(tokenizer, ids)
    assert decoded.endswith(" , maybe")
    mask = marker_token_mask(tokenizer, torch.tensor([ids]), LEXICAL)[0].tolist()
    assert mask == [False] * (len(ids) - 5) + [True] * 5


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("single_bytes", list("wait") + list("maybe")),
        ("word_level", ["wait", "maybe"]),
        ("word_piece", ["wait", "maybe"]),
        ("sentencepiece_like", ["wait", "maybe"]),
        ("byte_level", ["wait", "maybe"]),
    ],
)
def test_mask_covers_the_marker_and_nothing_else(tokenizers, family, expected):
    assert marked(tokenizers[family], "wait , so x is maybe 12 .") == expected


def test_mask_of_a_marker_in_pieces(tokenizers):
    # "likely" is "▁like" + "ly" for this tokenizer; "likes" begins alike and is not marked
    assert marked(tokenizers["sentencepiece_like"], "so likely x is likes") == ["like", "ly"]
    assert marked(tokenizers["word_piece"], "so likely x = likes") == ["like", "##ly"]


def test_mask_follows_the_conditions_of_the_set(tokenizers):
    tokenizer = tokenizers["word_level"]
    assert marked(tokenizer, "the check is right . check x . wait no") == ["check", "wait"]
    assert marked(tokenizer, "the check is right", MarkerSet.load("legacy")) == ["check"]
    assert marked(tokenizer, ". hold on , not sure", MarkerSet.load("held_out")) == ["hold", "on", "not", "sure"]


def test_mask_of_full_width_letters_made_of_bytes(tokenizers):
    ids = encode(tokenizers["single_bytes"], "ｗａｉｔ x")
    mask = marker_token_mask(tokenizers["single_bytes"], torch.tensor([ids]), LEXICAL)[0]
    assert mask.tolist() == [True] * 12 + [False] * 2  # four letters of three bytes each


def test_mask_stays_within_the_completion(tokenizers):
    tokenizer = tokenizers["word_level"]
    pad = tokenizer.pad_token_id
    rows = [encode(tokenizer, "maybe x = maybe"), [*encode(tokenizer, "wait no"), pad, pad], [pad] * 4]
    ids = torch.tensor(rows)
    assert marker_token_mask(tokenizer, ids, LEXICAL).tolist() == [
        [True, False, False, True],
        [True, False, False, False],
        [False] * 4,
    ]
    # a mask of one's own: the first row ends after two tokens, the second has a hole
    completion_mask = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    assert marker_token_mask(tokenizer, ids, LEXICAL, completion_mask).tolist() == [
        [True, False, False, False],
        [False] * 4,
        [False] * 4,
    ]


def test_mask_drops_quotes(tokenizers):
    text = "so the answer is right , likely x is 12"
    tokenizer = tokenizers["word_level"]
    assert marked(tokenizer, text, prompts=["not so : the answer is right , likely x is 12"]) == []
    assert marked(tokenizer, text, prompts=["the answer"]) == ["likely"]


def texts_of(tokenizer, ids):
    return {tokenizer.convert_ids_to_tokens(i) for i in ids.tolist()}


def test_ids_of_a_word_level_vocabulary(tokenizers):
    # every marker that is a word of this vocabulary, and neither "like", "may" and "actual" nor the unknown token
    expected = {"wait", "hmm", "maybe", "perhaps", "check", "seems", "might", "likely"}
    assert texts_of(tokenizers["word_level"], marker_token_ids(tokenizers["word_level"], LEXICAL)) == expected


def test_ids_of_a_byte_level_vocabulary_have_all_surface_variants(tokenizers):
    tokens = texts_of(tokenizers["byte_level"], marker_token_ids(tokenizers["byte_level"], LEXICAL))
    assert {"wait", "Ġwait", "Wait", "ĠWait", "maybe", "Ġmaybe", "Maybe", "ĠMaybe", "Ġhmm", "ĠHmm"} <= tokens
    words = {token.lstrip("Ġ").lower() for token in tokens}
    assert words <= {form for entry in LEXICAL.entries for form in entry.forms}  # whole words only


def test_ids_leave_out_first_pieces_shared_with_other_words(tokenizers):
    tokens = texts_of(tokenizers["sentencepiece_like"], marker_token_ids(tokenizers["sentencepiece_like"], LEXICAL))
    # "▁like" begins "likely" but also "likes"; "▁perhap" (distinct_from: 5) begins nothing but "perhaps"
    assert tokens == {"▁wait", "wait", "▁Wait", "▁maybe", "▁check", "▁perhap", "perhap"}


def test_ids_respect_token_false_and_distinct_from(tokenizers):
    tokenizer = tokenizers["word_level"]
    one = MarkerSet("own", 1, "word", (Phrase("wait"), Phrase("hmm", token=False)))
    assert texts_of(tokenizer, marker_token_ids(tokenizer, one)) == {"wait"}
    pieces = tokenizers["word_piece"]
    strict = MarkerSet("own", 1, "word", (Phrase("wait"), Phrase("likely")))
    loose = MarkerSet("own", 1, "word", (Phrase("wait"), Phrase("likely", distinct_from=4)))
    assert texts_of(pieces, marker_token_ids(pieces, strict)) == {"wait"}
    assert texts_of(pieces, marker_token_ids(pieces, loose)) == {"wait", "like"}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "single_bytes"])
def test_ids_are_sorted_unique_and_spell_markers(tokenizers, family):
    ids = marker_token_ids(tokenizers[family], LEXICAL)
    assert ids.dtype == torch.int64
    assert ids.tolist() == sorted(set(ids.tolist()))
    forms = {form for entry in LEXICAL.entries for form in entry.forms}
    for i in ids.tolist():
        piece = tokenizers[family].decode([i]).strip().lower()
        assert any(form.startswith(piece) for form in forms), piece


def test_no_ids_is_an_error_and_not_silence(tokenizers):
    with pytest.raises(ConfigError, match="'lexical' begins with a token of its own"):
        marker_token_ids(tokenizers["single_bytes"], LEXICAL)


@pytest.mark.parametrize("strays", [1, 2])
def test_a_stray_byte_spoils_the_bytes_beside_it(strays):
    """A decoder with byte fallback reads a run of bytes as a whole: with a stray one all of them are U+FFFD, and no marker."""
    words = {f"<0x{byte:02X}>": byte for byte in range(256)}
    backend = Tokenizer(models.BPE(vocab={**words, "▁x": 256, "▁": 257}, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    wait, stray = list(b"wait"), [0xE2] * strays
    for ids, marked_tokens in (
        ([*wait, 256], 4),
        ([*wait, *stray, 256], 0),
        ([*stray, *wait, 256], 0),
        ([*wait, 256, *stray, *wait], 4),
        ([*wait, 256, *"…".encode(), 257, *wait], 8),
    ):
        text, ranges = token_ranges(tokenizer, ids)
        assert text == tokenizer.decode(ids)
        assert len(ranges) == len(ids)
        mask = marker_token_mask(tokenizer, torch.tensor([ids]), LEXICAL)
        assert int(mask.sum()) == marked_tokens


def test_the_replacement_character_itself_is_a_character(tokenizers):
    """U+FFFD can stand in a text; in bytes it looks like a character that is not complete yet, and is."""
    tokenizer = tokenizers["single_bytes"]
    for text in ("\ufffd", "\ufffdx", "\ufffdﬁ maybe", "\ufffd🤔 maybe", "maybe \ufffd\ufffdﬁ", "\ufffdé \ufffd maybe"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        found, ranges = token_ranges(tokenizer, ids)
        assert found == tokenizer.decode(ids) == text
        assert [start for start, _ in ranges] == sorted(start for start, _ in ranges)
        mask = marker_token_mask(tokenizer, torch.tensor([ids]), LEXICAL)[0].tolist()
        assert sum(mask) == (5 if "maybe" in text else 0)
        if "maybe" in text:
            assert bytes(text.encode())[mask.index(True) :].startswith(b"maybe")
