"""Every YAML block of the documentation is read by the code that reads such a file; a part of one, laid over a whole one."""

import pytest
import yaml
from pages import PAGES, ROOT, blocks

from calibrated_sd.cli.recipes import find_recipe, validate_file
from calibrated_sd.errors import CalibratedSDError
from calibrated_sd.markers import MarkerSet
from calibrated_sd.reports.published import LISTING, load_listing

HEADER = "docs/reference/recipes.md"
PARTS = {
    "docs/how-to/run_at_scale.md": "DeepSeek-R1-Distill-Qwen-7B/sdpo/full",
    "docs/reference/sweeps.md": "sweeps/strength",
    "docs/tutorials/04_swap_the_trainer.md": "organism/sdpo_projection",
}
"""Page whose block is a part of a file → the shipped recipe that it is laid over."""
BLOCKS = {
    page.relative_to(ROOT).as_posix(): block.code
    for page in PAGES
    for block in blocks(page)
    if block.language == "yaml"
}
FILES = sorted(BLOCKS.keys() - {HEADER})


def read(page, text, folder):
    """Give the text, as a file, to what reads it; returns the kind of file."""
    raw = yaml.safe_load(text)
    if "pages" in raw:
        for place in named_in(raw):
            (folder / place).mkdir(parents=True, exist_ok=True)
        for place in (*raw["pages"], *([raw["headline"]["page"]] if "headline" in raw else [])):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).touch()
        (folder / LISTING).write_text(text, encoding="utf-8")
        load_listing(folder)
        return "published"
    path = folder / "file.yaml"
    if page in PARTS:
        if "evaluation" in raw:  # of suites of one's own, which go with problems of one's own
            raw = {"settings": {"problems": "problems.jsonl"}} | raw
        text = yaml.safe_dump(laid_over(yaml.safe_load(find_recipe(PARTS[page]).read_text(encoding="utf-8")), raw))
    path.write_text(text, encoding="utf-8")
    if "phrases" in raw:
        MarkerSet.load(path)
        return "markers"
    return validate_file(path)


def named_in(raw):
    """The sources of a listing."""
    for entry in (*raw["tables"].values(), *raw["figures"].values(), raw["headline"]):
        yield from entry["from"] if isinstance(entry["from"], list) else [entry["from"]]


def laid_over(whole, part):
    return whole | {
        key: {**whole.get(key, {}), **value} if isinstance(value, dict) else value for key, value in part.items()
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A reader's folder with `my_run.yaml`, the recipe that the pages tell how to copy."""
    folder = tmp_path / "docs" / "results"  # a listing may name pages above it
    folder.mkdir(parents=True)
    (folder / "problems.jsonl").write_text("", encoding="utf-8")
    (folder / "my_run.yaml").write_bytes(find_recipe("organism/sdpo_projection").read_bytes())
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("page", FILES)
def test_the_block_is_read(page, folder):
    assert read(page, BLOCKS[page], folder) in {"train", "sweep", "published", "markers"}


@pytest.mark.parametrize("page", FILES)
def test_a_key_that_does_not_exist_would_be_found(page, folder):
    with pytest.raises(CalibratedSDError, match="no_such_key"):
        read(page, f"{BLOCKS[page]}\nno_such_key: 1\n", folder)


def test_no_block_is_passed_over():
    assert len(BLOCKS) == sum(block.language == "yaml" for page in PAGES for block in blocks(page))
    assert {*PARTS, HEADER} <= set(BLOCKS)


def test_fewer_gpus_make_the_same_batch():
    """What the comment on the page says: the product is that of the recipe that is changed."""

    def rollouts(settings):
        return settings["gpus"] * settings["gradient_accumulation_steps"] * whole["per_device_train_batch_size"]

    (page,) = [page for page in PARTS if page.endswith("run_at_scale.md")]
    whole = yaml.safe_load(find_recipe(PARTS[page]).read_text(encoding="utf-8"))
    part = yaml.safe_load(BLOCKS[page])
    assert part["gpus"] != whole["gpus"]
    assert rollouts(part) == rollouts(whole)
    assert f"= {rollouts(part)} rollouts" in BLOCKS[page]


def test_the_header_is_that_of_the_recipe():
    """Line by line, as far as the page shows it."""
    shipped = find_recipe("Qwen3-8B/sdpo/full").read_text(encoding="utf-8").splitlines()
    shown = BLOCKS[HEADER].splitlines()
    assert len(shown) > 5
    for line, there in zip(shown, shipped, strict=False):
        assert there.startswith(line.removesuffix("…")), there
