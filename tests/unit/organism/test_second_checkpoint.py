"""The second organism's shipped weights and the ladder measured on them."""

import json

import pytest

from calibrated_sd.experiments.provenance import model_sha256
from calibrated_sd.organism.checkpoint import load_organism, organism_path
from calibrated_sd.organism.dialect import SECOND
from calibrated_sd.organism.ladder import sample_records
from calibrated_sd.organism.species import species
from calibrated_sd.organism.suites import suite_problems
from calibrated_sd.organism.tokenizer import build_tokenizer

WEIGHTS = organism_path("organism2")
LADDER = json.loads((WEIGHTS / "ladder.json").read_text())


def test_the_checkpoint_is_small_and_the_ladder_was_measured_on_it():
    assert sum(f.stat().st_size for f in WEIGHTS.iterdir()) <= 3_000_000
    assert LADDER["provenance"]["model_sha256"] == model_sha256(WEIGHTS)
    assert LADDER["samples_per_cell"] >= 512


@pytest.mark.parametrize("family", species("organism2").families)
def test_accuracy_without_context_leaves_room_and_a_solution_silences_doubt(family):
    levels = LADDER["families"][family]
    assert 0.65 <= levels["none"]["accuracy"]["value"] <= 0.95
    assert levels["solution"]["accuracy"]["value"] >= 0.85
    markers = {name: row["markers_per_response"]["value"] for name, row in levels.items()}
    assert markers["solution"] / markers["none"] <= 0.45  # measured: 0.26, 0.32 and 0.41


def test_the_tokenizer_in_the_code_is_the_shipped_one():
    _, shipped = load_organism("organism2")
    assert shipped.get_vocab() == build_tokenizer(SECOND).get_vocab()


def test_the_shipped_weights_solve_some_trained_puzzles():
    model, tokenizer = load_organism("organism2")
    problems = suite_problems("train", 24, organism="organism2")
    records = sample_records(
        model, tokenizer, problems, [p.question for p in problems], suite="train", n_samples=1, sampling_seed=0
    )
    right = sum(record.correct for record in records)
    assert right >= 10  # at 0.65 each, 3 standard deviations below the mean of 15.6 are 8.6; a guess is right 1 in 7
