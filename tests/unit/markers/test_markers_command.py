"""`csd markers` on files written by hand, with counts derived by hand."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from calibrated_sd.cli.main import app, main
from calibrated_sd.errors import ConfigError, DataError

# legacy, lexical, held out; words
ROWS = [
    # wait, maybe | wait, maybe | -; 6 words
    {"problem_id": "a", "completion": "Wait, maybe x is three. Yes."},
    # "unlikely" counts as likely, "checks" as check | unlikely | not sure; 8 words
    {"problem_id": "a", "completion": "Unlikely. She checks it, but is not sure."},
    # - | - | -; 4 words
    {"problem_id": "b", "completion": "So x is three."},
    # hmm, "double-check" | hmm | hold on, double-check; 7 words
    {"problem_id": "c", "completion": "Hmm. Hold on, let me double-check that."},
]


@pytest.fixture
def write(tmp_path):
    def write_rows(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write_rows


def figures(*arguments):
    result = CliRunner().invoke(app, ["markers", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.output)["files"]


def test_counts_by_hand(write):
    (report,) = figures(write(ROWS))
    assert {name: entry["count"] for name, entry in report["sets"].items()} == {
        "legacy": 6,
        "lexical": 4,
        "held_out": 3,
    }
    assert report["sets"]["legacy"]["by_phrase"] == {"wait": 1, "maybe": 1, "likely": 1, "check": 2, "hmm": 1}
    assert report["sets"]["lexical"]["by_phrase"] == {"wait": 1, "maybe": 1, "unlikely": 1, "hmm": 1}
    assert report["sets"]["lexical"]["by_kind"] == {"interrupt": 2, "hedge": 2}
    assert report["sets"]["held_out"]["by_phrase"] == {"not sure": 1, "hold on": 1, "double-check": 1}
    assert (report["rows"], report["questions"], report["resampled"]) == (4, 3, "questions")


def test_figures_by_hand(write):
    (report,) = figures(write(ROWS))
    per_response, per_1k = (report["sets"]["legacy"][key] for key in ("per_response", "per_1k"))
    assert set(per_response) == {"value", "lo", "hi", "n", "unit", "method"}
    assert per_response["value"] == pytest.approx(6 / 4)
    assert per_1k["value"] == pytest.approx(1000 * 6 / 25)
    assert (per_response["unit"], per_1k["unit"]) == ("markers per response", "markers per 1k words")
    assert per_response["n"] == 3
    assert "questions" in per_response["method"]
    # a question's rates are 2 (a), 0 (b) and 2 (c) per response: no resample leaves this range
    assert 0 <= per_response["lo"] < 1.5 < per_response["hi"] <= 2


def test_lengths_are_tokens_only_if_every_row_has_them(write):
    with_tokens = [{**row, "n_tokens": 10} for row in ROWS]
    (report,) = figures(write(with_tokens))
    assert report["length_unit"] == "n_tokens"
    assert report["sets"]["legacy"]["per_1k"]["value"] == pytest.approx(1000 * 6 / 40)
    assert report["sets"]["legacy"]["per_1k"]["unit"] == "markers per 1k tokens"
    (report,) = figures(write(with_tokens[:3] + ROWS[3:]))
    assert report["length_unit"] == "whitespace-separated words"
    assert report["length"] == 25


def test_without_problem_ids_rows_are_resampled(write):
    (report,) = figures(write([{"text": row["completion"]} for row in ROWS]))
    assert (report["text_key"], report["resampled"], report["rows"]) == ("text", "rows", 4)
    assert report["sets"]["legacy"]["per_response"]["n"] == 4
    assert "rows" in report["sets"]["legacy"]["per_response"]["method"]


def test_equal_ids_in_two_suites_are_two_questions(write):
    suites = ("train", "train", "heldout", "heldout")
    (report,) = figures(write([{**row, "problem_id": "0", "suite": s} for row, s in zip(ROWS, suites, strict=True)]))
    assert (report["questions"], report["sets"]["legacy"]["per_1k"]["n"]) == (2, 2)


def test_results_do_not_change_from_run_to_run(write):
    path = write(ROWS)
    assert figures(path) == figures(path)


def test_many_rows_are_pooled_and_the_value_stays_exact(write, monkeypatch):
    monkeypatch.setattr("calibrated_sd.cli.markers.MAX_UNITS", 5)
    (report,) = figures(write([{"text": "Maybe." if i < 6 else "No."} for i in range(20)]))
    rate = report["sets"]["lexical"]["per_response"]
    assert rate["value"] == pytest.approx(6 / 20)
    assert rate["n"] == 20
    assert rate["lo"] < 0.3 < rate["hi"]
    assert "pooled at random into 5" in rate["method"]


def test_zero_markers_claim_no_certainty(write):
    (report,) = figures(write([{"text": "So x is 3."}] * 4))
    rate = report["sets"]["lexical"]["per_response"]
    assert (rate["value"], rate["lo"], rate["hi"]) == (0.0, None, None)
    assert rate["method"] == "none in 4 rows: no interval"


def test_empty_texts_have_no_rate(write):
    (report,) = figures(write([{"text": ""}] * 3))
    assert report["sets"]["legacy"]["per_1k"]["value"] is None


def test_messages(write):
    chat = [
        {"role": "user", "content": "Maybe wait?"},
        {"role": "assistant", "content": "Perhaps.", "reasoning_content": "Hmm, maybe."},
        {"role": "assistant", "content": [{"type": "text", "text": "Wait, no."}, {"type": "image"}]},
        {"role": "assistant", "content": None},
    ]
    (report,) = figures(write([{"response": chat}]))
    assert report["sets"]["lexical"]["by_phrase"] == {"hmm": 1, "maybe": 1, "perhaps": 1, "wait": 1}


def test_prompt_key_drops_quotes(write):
    row = {"q": "Say that it might rain on Monday.", "output": "They say that it might rain on Monday. Maybe."}
    path = write([row])
    assert figures(path)[0]["sets"]["lexical"]["by_phrase"] == {"might": 1, "maybe": 1}
    (report,) = figures(path, "--prompt-key", "q")
    assert report["sets"]["lexical"]["by_phrase"] == {"maybe": 1}
    assert report["sets"]["legacy"]["by_phrase"] == {"might": 1, "maybe": 1}


def test_own_set_and_several_files(write, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nversion: 3\nmode: word\nphrases: [so, three]\n")
    first, second = figures(write(ROWS), write(ROWS[2:3], "second.jsonl"), "--markers", own)
    assert first["sets"]["own"]["by_phrase"] == {"three": 2, "so": 1}
    assert second["sets"]["own"]["count"] == 2
    assert second["sets"]["own"]["version"] == 3


def test_table(write):
    result = CliRunner().invoke(app, ["markers", str(write(ROWS))])
    assert result.exit_code == 0
    assert "1.50 [" in result.output
    assert "240.00 [" in result.output
    assert "wait 1, maybe 1, unlikely 1, hmm 1" in result.output
    assert "25 words" in result.output


def run_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["csd", "markers", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, " ".join(capsys.readouterr().err.split())


def test_truncated_line(write, monkeypatch, capsys):
    path = write(ROWS[:2])
    path.write_text(path.read_text() + '{"completion": "wai')
    code, error = run_main(monkeypatch, capsys, path)
    assert code == 2
    assert "line 3: the last line is cut off" in error


def test_invalid_line_in_the_middle(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{text: b}\n{"text": "c"}\n')
    code, error = run_main(monkeypatch, capsys, path)
    assert code == 2
    assert "line 2: not valid JSON" in error


def test_unknown_text_key_lists_the_keys_that_exist(write, monkeypatch, capsys):
    code, error = run_main(monkeypatch, capsys, write([{"answer": "maybe", "id": 1}]))
    assert code == 2
    assert "Its first row has: answer, id." in error
    assert "--text-key" in error


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"text": "a", "id": 1}], ["--text-key", "txt"], "row 1: there is no field 'txt'. The row has: text, id"),
        ([{"text": "a"}, {"id": 1}], [], "row 2: there is no field 'text'"),
        ([{"text": 7}], [], "'text' holds int"),
        ([{"text": ["a"]}], [], "'text' holds list"),
        ([{"text": [{"content": 7}]}], [], "'text' holds list"),
        ([{"text": "a"}], ["--prompt-key", "q"], "there is no field 'q'"),
        ([], [], "holds no rows"),
    ],
)
def test_bad_rows(write, rows, arguments, message):
    result = CliRunner().invoke(app, ["markers", str(write(rows)), *arguments])
    assert isinstance(result.exception, DataError)
    assert message in str(result.exception)


def test_missing_file(tmp_path):
    result = CliRunner().invoke(app, ["markers", str(tmp_path / "none.jsonl")])
    assert isinstance(result.exception, DataError)


def test_own_set_must_not_take_a_shipped_name(write, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("name: lexical\nversion: 1\nmode: word\nphrases: [so]\n")
    result = CliRunner().invoke(app, ["markers", str(write(ROWS)), "--markers", str(own)])
    assert isinstance(result.exception, ConfigError)
    assert "Give it another name" in str(result.exception)
