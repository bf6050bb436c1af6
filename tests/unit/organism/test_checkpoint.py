"""The shipped weights and the ladder measured on them."""

import json

import pytest

from calibrated_sd.errors import ConfigError
from calibrated_sd.experiments.provenance import model_sha256
from calibrated_sd.organism.checkpoint import load_organism, organism_path
from calibrated_sd.organism.ladder import SCREEN, measure_ladder, summarise_ladder
from calibrated_sd.organism.puzzles import FAMILIES
from calibrated_sd.organism.tokenizer import build_tokenizer

WEIGHTS = organism_path()
LADDER = json.loads((WEIGHTS / "ladder.json").read_text())


def test_the_checkpoint_is_small_and_holds_no_pickle():
    assert sum(f.stat().st_size for f in WEIGHTS.iterdir()) <= 4_000_000
    assert not [f.name for f in WEIGHTS.iterdir() if f.suffix in {".bin", ".pt", ".pkl"}]


def test_the_shipped_ladder_was_measured_on_the_shipped_weights():
    assert LADDER["provenance"]["model_sha256"] == model_sha256(WEIGHTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_accuracy_without_context_leaves_room_for_reinforcement(family):
    accuracy = LADDER["families"][family]["none"]["accuracy"]
    assert accuracy["value"] >= 0.70
    assert accuracy["lo"] >= 0.65
    assert accuracy["hi"] <= 0.95
    assert LADDER["samples_per_cell"] >= 512


def test_the_ladder_has_the_shape_of_the_papers_table_1():
    levels = LADDER["families"]["all"]
    markers = {name: row["markers_per_response"]["value"] for name, row in levels.items()}
    assert 0.7 <= markers["stripped"] / markers["none"] <= 1.0
    assert markers["solution"] / markers["none"] <= 0.15
    assert levels["none"]["accuracy"]["hi"] < levels["stripped"]["accuracy"]["lo"]
    assert levels["stripped"]["accuracy"]["hi"] < levels["solution"]["accuracy"]["lo"]


def test_the_tokenizer_in_the_code_is_the_shipped_one():
    _, shipped = load_organism()
    assert shipped.get_vocab() == build_tokenizer().get_vocab()
    assert shipped.chat_template == build_tokenizer().chat_template


def test_measuring_again_gives_the_same_completions_and_a_screen_apart():
    model, tokenizer = load_organism()
    first, again = (measure_ladder(model, tokenizer, n_problems=3, n_screen=2, seed=5) for _ in range(2))
    assert [r.as_dict() for r in first] == [r.as_dict() for r in again]
    assert sum(r.suite == SCREEN for r in first) == 3 * 2 * len(FAMILIES)
    summary = summarise_ladder(first)
    assert summary["families"]["all"]["none"]["accuracy"]["n"] == 9  # screening samples are left out


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="tokenizer"):
        organism_path(str(tmp_path))
