"""Laws of marker sets, counting, alignment and mass."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calibrated_sd.markers import (
    MARKER_SETS,
    MarkerSet,
    count_markers,
    find_spans,
    log_marker_mass,
    log_marker_mass_from_logits,
    marker_mass,
    marker_token_mask,
    retention,
    suppression,
)
from calibrated_sd.markers.normalise import fold, not_prose

law = settings(deadline=None)  # a busy machine is no counterexample

SETS = [MarkerSet.load(name) for name in MARKER_SETS]
LEGACY, LEXICAL, HELD_OUT = map(MarkerSet.load, ("legacy", "lexical", "held_out"))
FORMS = [form for one in SETS for entry in one.entries for form in entry.forms]
FILLER = [
    "x",
    "=",
    "12",
    "the",
    "so",
    "but",
    "double",
    "un",
    "time",
    "const",
    "i",
    "that's",
    "let",
    "me",
    "İ",
    "ﬁ",
    "½",
    "≡",
]
MARKS = [".", ",", "\n", " ", "-", "'", "’", "_", "(", ")", "…", "*", "\u00ad"]
OPENING = ["$", "`", "```", "\\(", "\\text{", "}"]

words = st.sampled_from([*FORMS, *FILLER]).flatmap(lambda w: st.sampled_from([w, w.upper(), w.capitalize()]))
prose = st.lists(st.one_of(words, st.sampled_from(MARKS), st.just(" ")), max_size=14).map(
    lambda parts: "".join(part + " " if i % 3 else part for i, part in enumerate(parts))
)
text = st.one_of(prose, st.lists(st.sampled_from([*FORMS, *MARKS, *OPENING]), max_size=12).map(" ".join), st.text())
any_set = st.sampled_from(SETS)
word_set = st.sampled_from([one for one in SETS if one.mode == "word"])


@law
@given(text)
def test_legacy_is_a_plain_substring_count(t):
    naive = {word: t.lower().count(word) for word in LEGACY.phrases}
    assert count_markers(t, LEGACY) == {word: n for word, n in naive.items() if n}


@law
@given(text, any_set)
def test_counts_and_spans_agree(t, one):
    spans = find_spans(t, one)
    assert count_markers(t, one).total() == len(spans)
    assert spans == sorted(spans)


@law
@given(text, any_set)
def test_spans_hold_their_phrase(t, one):
    forms = {entry.text: entry.forms for entry in one.entries}
    for start, end, phrase in find_spans(t, one):
        assert 0 <= start < end <= len(t)
        if one.mode == "substring":
            assert phrase in t[start:end].lower()
        else:
            assert " ".join(fold(t[start:end]).text.split()) in forms[phrase]


@law
@given(text, word_set)
def test_spans_of_word_sets_never_overlap_and_are_prose(t, one):
    spans = find_spans(t, one)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    for start, end in not_prose(t):
        assert all(span.end <= start or end <= span.start for span in spans)


@law
@given(prose, prose, word_set)
def test_counts_add_over_paragraphs(a, b, one):
    joined = count_markers(f"{a}.\n\n{b}", one)
    assert joined == count_markers(f"{a}.", one) + count_markers(b, one)


@law
@given(text, text)
def test_legacy_counts_add_over_a_separator(a, b):
    assert count_markers(f"{a}\n{b}", LEGACY) == count_markers(a, LEGACY) + count_markers(b, LEGACY)


@law
@given(st.lists(st.sampled_from([*FORMS, "x", "12", "the", ".", ",", "\n"]), max_size=12).map(" ".join), any_set)
def test_case_does_not_matter(t, one):
    assert count_markers(t.upper(), one) == count_markers(t, one) == count_markers(t.title(), one)


@law
@given(prose, word_set)
def test_typographic_variants_do_not_matter(t, one):
    wide = t.translate({ord(c): ord(c) + 0xFEE0 for c in "abcdefghijklmnopqrstuvwxyz"})
    assert count_markers(wide.replace("'", "’"), one) == count_markers(t, one)


@law
@given(prose, prose, word_set)
def test_a_prompt_only_takes_away(t, prompt, one):
    assert set(find_spans(t, one, prompt)) <= set(find_spans(t, one))


@law
@given(st.lists(st.sampled_from(["x", "the", "so", *LEXICAL.phrases]), min_size=6, max_size=14), word_set)
def test_nothing_is_counted_in_a_copy_of_the_prompt(parts, one):
    t = " ".join(parts)
    assert find_spans(t, one, t) == []


@law
@given(st.sampled_from([entry.text for entry in HELD_OUT.entries]), st.sampled_from([e.text for e in LEXICAL.entries]))
def test_held_out_and_lexical_do_not_see_each_other(held_out, lexical):
    t = f"{lexical} x . {held_out} x"  # each starts a clause and has an object
    assert count_markers(t, LEXICAL) == {lexical: 1}
    assert count_markers(t, HELD_OUT) == {held_out: 1}


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = [
        "<pad>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "wa",
        "it",
        "wait",
        "Ġm",
        "ay",
        "be",
        "aybe",
        "Ġmaybe",
    ]
    merges = [("w", "a"), ("i", "t"), ("wa", "it"), ("Ġ", "m"), ("a", "y"), ("b", "e"), ("ay", "be"), ("Ġm", "aybe")]
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", clean_up_tokenization_spaces=False)


BYTES = _byte_tokenizer()
ids_row = st.lists(st.integers(0, len(BYTES) - 1), min_size=8, max_size=8)


@law
@given(prose.filter(bool), any_set)
def test_mask_marks_exactly_the_tokens_of_the_spans(t, one):
    ids = BYTES.encode(t, add_special_tokens=False)
    mask = marker_token_mask(BYTES, torch.tensor([ids]), one)[0].tolist()
    at, covered = 0, []  # byte ranges of the tokens, from the bytes themselves
    for i in ids:
        size = len(BYTES.convert_ids_to_tokens(i))
        covered.append((at, at + size))
        at += size
    spans = [(len(t[: s.start].encode()), len(t[: s.end].encode())) for s in find_spans(t, one)]
    assert at == len(t.encode())
    assert mask == [any(start < s_end and s_start < end for s_start, s_end in spans) for start, end in covered]


@law
@given(st.lists(ids_row, min_size=1, max_size=3), st.data())
def test_mask_is_within_the_completion_even_for_broken_bytes(rows, data):
    shape = st.lists(st.lists(st.integers(0, 1), min_size=8, max_size=8), min_size=len(rows), max_size=len(rows))
    completion = torch.tensor(data.draw(shape))
    mask = marker_token_mask(BYTES, torch.tensor(rows), LEXICAL, completion)
    assert mask.shape == completion.shape
    assert not (mask & ~completion.bool()).any()


@law
@given(prose.filter(bool), st.integers(0, 5))
def test_padding_changes_no_mask(t, n):
    ids = BYTES.encode(t, add_special_tokens=False)
    padded = torch.tensor([ids + [BYTES.pad_token_id] * n])
    mask = marker_token_mask(BYTES, padded, LEXICAL)
    assert torch.equal(mask[:, : len(ids)], marker_token_mask(BYTES, torch.tensor([ids]), LEXICAL))
    assert not mask[:, len(ids) :].any()


@st.composite
def logits_and_ids(draw):
    v = draw(st.integers(2, 6))
    rows = draw(st.lists(st.lists(st.floats(-30, 30, width=32), min_size=v, max_size=v), min_size=1, max_size=3))
    ids = draw(st.lists(st.integers(0, v - 1), min_size=1, max_size=v, unique=True))
    return torch.tensor([rows], dtype=torch.float32), torch.tensor(sorted(ids))


@law
@given(logits_and_ids())
def test_mass_is_a_probability_and_its_complement_is_the_rest(case):
    logits, ids = case
    logps = logits.log_softmax(-1)
    mass = marker_mass(logps, ids)
    assert ((mass >= 0) & (mass <= 1)).all()
    rest = [v for v in range(logits.shape[-1]) if v not in ids.tolist()]
    if rest:
        torch.testing.assert_close(mass + marker_mass(logps, torch.tensor(rest)), torch.ones_like(mass))
    else:
        torch.testing.assert_close(mass, torch.ones_like(mass))


@law
@given(logits_and_ids(), st.randoms(use_true_random=False))
def test_permuting_the_vocabulary_changes_no_mass(case, rng):
    logits, ids = case
    order = list(range(logits.shape[-1]))
    rng.shuffle(order)
    moved = torch.tensor([order.index(i) for i in ids.tolist()])  # where the markers went
    torch.testing.assert_close(
        log_marker_mass(logits[..., order].log_softmax(-1), moved), log_marker_mass(logits.log_softmax(-1), ids)
    )


@law
@given(logits_and_ids(), st.floats(-50, 50, width=32))
def test_adding_a_constant_to_logits_changes_no_mass(case, c):
    logits, ids = case
    expected = log_marker_mass(logits.log_softmax(-1), ids)
    torch.testing.assert_close(log_marker_mass_from_logits(logits + c, ids), expected, atol=1e-4, rtol=1e-4)


@law
@given(logits_and_ids(), st.data())
def test_more_markers_have_more_mass(case, data):
    logits, ids = case
    fewer = ids[: data.draw(st.integers(1, len(ids)))]
    logps = logits.log_softmax(-1)
    assert (log_marker_mass(logps, fewer) <= log_marker_mass(logps, ids) + 1e-5).all()


@law
@given(logits_and_ids())
def test_equal_models_retain_everything_and_suppress_nothing(case):
    logits, ids = case
    log_mass = log_marker_mass(logits.log_softmax(-1), ids)
    assert suppression(log_mass, log_mass).abs().max() == 0
    assert retention(log_mass.exp(), log_mass.exp(), torch.ones_like(log_mass)) == 1


@law
@given(logits_and_ids(), st.floats(0.0625, 1, width=32))
def test_retention_is_linear_in_the_student_and_blind_outside_the_mask(case, share):
    logits, ids = case
    mass = marker_mass(logits.log_softmax(-1), ids).clamp(min=1e-6)
    mask = torch.ones_like(mass)
    torch.testing.assert_close(retention(share * mass, mass, mask), torch.tensor(share))
    padded = torch.cat([mass, torch.full_like(mass, torch.nan)], dim=1)
    wide = torch.cat([mask, torch.zeros_like(mask)], dim=1)
    torch.testing.assert_close(retention(share * padded, padded, wide), torch.tensor(share))
