"""Marker sets: what ships, what a file may hold, what the hash covers."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.markers import MARKER_SETS, MarkerSet, Phrase, find_spans
from calibrated_sd.markers.lexicon import parse

PAPER = ["wait", "hmm", "perhaps", "maybe", "actually", "alternatively", "seems", "might", "likely", "check"]


def test_every_shipped_file_is_a_set_of_its_own_name():
    assert MARKER_SETS[:3] == ("legacy", "lexical", "held_out")
    for name in MARKER_SETS:
        assert MarkerSet.load(name).name == name


def test_legacy_is_the_paper_list():
    legacy = MarkerSet.load("legacy")
    assert list(legacy.phrases) == PAPER
    assert legacy.mode == "substring"


def test_lexical_has_all_ten_words_in_three_kinds():
    lexical = MarkerSet.load("lexical")
    assert set(PAPER) <= set(lexical.phrases)
    assert set(lexical.kinds.values()) == {"interrupt", "hedge", "redirect"}
    assert lexical.kinds["wait"] == "interrupt"
    assert lexical.kinds["maybe"] == "hedge"
    assert lexical.kinds["alternatively"] == "redirect"


def test_held_out_has_the_promised_phrases():
    promised = "hold on|not quite|not sure|i suppose|i doubt|let me reconsider|on second thought|i guess"
    companion = (
        "let me verify|let me re-examine|on closer look|i realize|another way to see|it's possible that|double-check"
    )
    assert set((promised + "|" + companion).split("|")) <= set(MarkerSet.load("held_out").phrases)


@pytest.mark.parametrize("name", [name for name in MARKER_SETS if name not in ("legacy", "held_out")])
def test_held_out_stays_out_of_sets_for_calibrators(name):
    """No form of the set, e.g. `lexical`, holds a held-out one, and no word that can become a marker id occurs in a held-out one.

    One exception: "double check" holds "check", whose conditions keep it out there (next test); the word that makes
    it a different phrase, "double", is no marker.
    """
    lexical = {form for entry in MarkerSet.load(name).entries for form in entry.forms}
    held_out = {form for entry in MarkerSet.load("held_out").entries for form in entry.forms}
    assert not lexical & held_out
    assert not [(a, b) for a in lexical for b in held_out if f" {b} " in f" {a} "]
    words = {form for form in lexical if " " not in form}
    expected = {("check", "double check")} if "check" in words else set()
    assert {(word, form) for form in held_out for word in form.split() if word in words} == expected


def test_no_text_of_two_phrases_is_counted_by_both_sets_at_one_place():
    lexical, held_out = MarkerSet.load("lexical"), MarkerSet.load("held_out")
    forms = [form for s in (lexical, held_out) for entry in s.entries for form in entry.forms]
    for a in forms:
        for b in forms:
            text = f"{a} {b} . {a} , {b}"
            for one in find_spans(text, lexical):
                for other in find_spans(text, held_out):
                    assert one.end <= other.start or other.end <= one.start, (text, one, other)


def test_a_set_is_immutable_and_usable_as_a_key():
    lexical = MarkerSet.load("lexical")
    with pytest.raises(FrozenInstanceError):
        lexical.name = "other"
    assert {lexical: 1}[MarkerSet.load("lexical")] == 1


@pytest.mark.parametrize("name", MARKER_SETS)
def test_hash_changes_with_the_content(name):
    shipped = MarkerSet.load(name)
    assert len(shipped.hash) == 12
    assert int(shipped.hash, 16) >= 0
    assert replace(shipped, version=shipped.version + 1).hash != shipped.hash
    assert replace(shipped, entries=shipped.entries[1:]).hash != shipped.hash


def test_hash_ignores_the_order_of_phrases_but_sees_conditions():
    one = MarkerSet("own", 1, "word", (Phrase("wait"), Phrase("hmm")))
    assert replace(one, entries=one.entries[::-1]).hash == one.hash
    assert replace(one, entries=(Phrase("wait", position="clause_start"), Phrase("hmm"))).hash != one.hash


def test_the_documentation_states_version_and_hash():
    """A change to a shipped set must be meant: raise its version, then correct docs/reference/marker_sets.md."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "marker_sets.md"
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w{12})` \| (\w+) \|", page.read_text(encoding="utf-8"), re.M)
    shipped = map(MarkerSet.load, MARKER_SETS)
    assert rows == [(one.name, str(one.version), one.hash, one.mode) for one in shipped]


def test_load_from_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(
        "name: own\nversion: 2\nmode: word\nphrases:\n  - um\n  - {text: dunno, kind: hedge, also: [no idea]}\n"
    )
    own = MarkerSet.load(path)
    assert own.phrases == ("um", "dunno")
    assert own.entries[1].forms == ("dunno", "no idea")
    assert MarkerSet.load(str(path)) == own


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'lexical'"):
        MarkerSet.load("lexcial")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"Cannot read the marker set .*none\.yaml"):
        MarkerSet.load(tmp_path / "none.yaml")


HEAD = "name: own\nversion: 1\nmode: word\nphrases:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- just\n- a list", "must be a mapping with name, version, mode and phrases"),
        (HEAD.replace("version: 1\n", "") + "  - um", "must be a mapping with"),
        (HEAD + "  - {text: um, kinds: hedge}", "Did you mean 'kind'"),
        (HEAD + "  - {text: um, position: clause-start}", "Did you mean 'clause_start'"),
        (HEAD.replace("word", "words") + "  - um", "Did you mean 'word'"),
        (HEAD + "  - Um", "must be lower-case"),
        (HEAD + "  - 'um  er'", "single spaces"),
        (HEAD + "  - um\n  - {text: er, also: [um]}", "lists 'um' twice"),
        (HEAD + "  - no", "quote words such as"),  # YAML reads a bare no as false
        (HEAD + "  - {text: um, also: [no]}", "quote words such as"),
        (HEAD + "  - {text: um, distinct_from: 3}", "from 1 to 2"),
        (HEAD + "  - {text: um, token: 7}", "true or false"),
        (HEAD + "  - {text: um, not_after_near: {after: [a]}}", "exactly after and near"),
        (HEAD.replace("version: 1", "version: one") + "  - um", "must be an integer"),
        (HEAD.replace("mode: word", "mode: substring") + "  - {text: um, also: [er]}", "would be ignored"),
        ("name: own\nversion: 1\nmode: word\nphrases: []", "has no phrases"),
        ("name: own\nversion: 1\nmode: word\nphrases: um", "must be a list of phrases"),
    ],
)
def test_a_bad_file_says_what_is_wrong(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text, "own.yaml")


def test_a_file_that_is_not_yaml():
    with pytest.raises(DataError, match=r"own\.yaml is not YAML"):
        parse("name: [", "own.yaml")
