"""``published.yaml``: what it may say, and that every slip is named."""

import pytest
from synthetic_published import make_published

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.reports.published import build_published, load_listing, published_root
from calibrated_sd.reports.published.build import TABLES
from calibrated_sd.reports.published.listing import TABLE_KINDS


@pytest.fixture
def root(tmp_path):
    return make_published(tmp_path / "results", arms=["sdpo"])


def test_a_listing_in_full(root):
    listing = load_listing(root)
    assert listing.pages == ("index.md",)
    assert listing.tables["claims"].sources == ("study/claims",)
    assert listing.figures["forest"].file == "figures/forest.png"  # the default place
    assert (listing.headline.page, listing.headline.claims) == ("index.md", ("C5",))
    assert listing.sources == ["study/claims"]


def test_every_kind_of_table_can_be_made():
    assert set(TABLES) == set(TABLE_KINDS)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("pages: [index.md]\ntabels: {}", ConfigError, "Did you mean 'tables'"),
        ("pages: []", ConfigError, "must be a list of Markdown files"),
        ("pages: [other.md]", DataError, "no file"),
        ("- a", ConfigError, "must be a mapping"),
        ("pages: [index.md", ConfigError, "not valid YAML"),
        ("pages: [index.md]\npages: [index.md]", ConfigError, "pages given twice"),
        ("pages: [index.md]\ntables: {a: {kind: claims}}", ConfigError, "at least 'kind' and 'from'"),
        ("pages: [index.md]\ntables: {a: {kind: claim, from: study/claims}}", ConfigError, "Did you mean 'claims'"),
        (
            "pages: [index.md]\ntables: {a: {kind: claims, from: study/claims, key: 1}}",
            ConfigError,
            "Did you mean 'keys'",
        ),
        ("pages: [index.md]\ntables: {a b: {kind: claims, from: study/claims}}", ConfigError, "letters, digits"),
        ("pages: [index.md]\ntables: {a: {kind: claims, from: study/gone}}", DataError, "names the source study/gone"),
        (
            "pages: [index.md]\nfigures: {a: {kind: forest, from: study/claims, file: a.jpg}}",
            ConfigError,
            "path of a PNG",
        ),
        ("pages: [index.md]\n? [a]\n: 1", ConfigError, "a list or mapping as a key"),
        ("pages: [index.md]\ntables: {a: {? {b: 1} : 1}}", ConfigError, "a list or mapping as a key"),
        ("pages: [index.md]\nx: 2020-13-45", ConfigError, "not valid YAML"),
        ("[" * 5000, ConfigError, "not valid YAML"),
        ("pages: [index.md]\ntables: {a: {kind: [claims], from: study/claims}}", ConfigError, "Unknown kind"),
        *(
            (
                f"pages: [index.md]\nheadline: {{page: index.md, claim: C5, from: study/claims, settings: {settings}}}",
                ConfigError,
                "must be a list of numbers",
            )
            for settings in ("[abc]", "5", "{a: 1}", "[[1]]", f"[{'9' * 400}]")
        ),
        ("pages: [index.md]\nheadline: {page: index.md, claim: C5}", ConfigError, "'page', 'claim' and 'from'"),
    ],
)
def test_slips_are_named(root, text, error, words):
    (root / "published.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=words):
        load_listing(root)


def test_the_folder_that_publishes_another(root, tmp_path):
    assert published_root(root) == root
    assert published_root(root / "study/claims") == root.resolve()
    (root / "elsewhere").mkdir()
    assert published_root(root / "elsewhere") is None
    assert published_root(tmp_path) is None


def test_a_listing_and_a_page_that_are_not_utf8(root):
    (root / "index.md").write_bytes("größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"index\.md is not UTF-8"):
        build_published(root)
    (root / "published.yaml").write_bytes("pages: [größe.md]".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"published\.yaml is not UTF-8"):
        load_listing(root)
