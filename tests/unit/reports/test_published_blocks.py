"""Generated blocks on pages: only what is between the markers is ever touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrated_sd.errors import ConfigError
from calibrated_sd.reports.published.blocks import differences, read_blocks, write_blocks

PAGE = "# A\n<!-- table: one -->\nold\nlines\n<!-- /table -->\nhand\n<!-- table: two -->\n<!-- /table -->"
prose = st.text(alphabet="ab |-*<>!`\t é", max_size=12).filter(lambda line: "<!--" not in line)


def test_blocks_are_found_with_their_line_and_text():
    assert read_blocks(PAGE, "p") == {"one": (3, "old\nlines"), "two": (8, "")}


def test_a_block_is_replaced_and_the_rest_stays():
    new = write_blocks(PAGE, {"one": "x", "two": "\ny\n"}, "p")
    assert new == "# A\n<!-- table: one -->\nx\n<!-- /table -->\nhand\n<!-- table: two -->\n\ny\n\n<!-- /table -->"
    assert write_blocks(PAGE, {"two": "y"}, "p").startswith(PAGE.rsplit("\n", 1)[0])


@given(
    st.lists(prose, max_size=4),
    st.lists(prose, max_size=4),
    st.lists(prose, max_size=4),
    st.lists(prose, min_size=1, max_size=4),
)
def test_what_is_written_is_read_back_and_nothing_else_changes(before, old, after, new):
    page = "\n".join([*before, "<!-- table: t -->", *old, "<!-- /table -->", *after])
    text = "\n".join(new)
    written = write_blocks(page, {"t": text}, "p")
    assert read_blocks(written, "p")["t"][1] == text
    assert written == "\n".join([*before, "<!-- table: t -->", *new, "<!-- /table -->", *after])
    assert write_blocks(written, {"t": text}, "p") == written
    assert differences(text, text, 1) == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<!-- table: a -->\nx", "is not closed"),
        ("<!-- /table -->", "does not fit here"),
        ("<!-- table: a -->\n<!-- table: b -->\n<!-- /table -->", "does not fit here"),
        ("<!-- table: a -->\n<!-- /headline -->", "does not fit here"),
        ("<!-- table a -->", "does not fit here"),
        ("  <!-- table: a -->", "does not fit here"),
        ("<!-- table: a -->\n<!-- /table -->\n<!-- table: a -->\n<!-- /table -->", "stands twice"),
    ],
)
def test_markers_that_would_be_passed_over_are_refused(page, words):
    with pytest.raises(ConfigError, match=words):
        read_blocks(page, "p")


def test_differences_name_the_line_and_the_place():
    long = "x" * 200
    assert differences("a\nb\nc", "a\nB\nc", 10) == ["line 11: is 'b', should be 'B'"]
    assert differences("a", "a\nb", 10) == ["line 11: missing: 'b'"]
    assert differences("a\nb", "a", 10) == ["line 11: not in the data: 'b'"]
    ((told),) = differences(f"{long}1{long}", f"{long}2{long}", 1)
    assert "xxx1xxx" in told
    assert "xxx2xxx" in told
    assert len(told) < 200
    assert len(differences("\n".join("abcdef"), "\n".join("ABCDEF"), 1)) == 4
    assert differences("\n".join("abcdef"), "\n".join("ABCDEF"), 1)[-1] == "and 3 more lines"
