"""The first organism, byte for byte: what it read, what it is asked and what it learned, whoever else is added."""

import hashlib
import json

import pytest

from calibrated_sd.organism.checkpoint import organism_path
from calibrated_sd.organism.corpus import PretrainingBatches
from calibrated_sd.organism.suites import SUITES, as_row, suite_problems
from calibrated_sd.organism.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_tokenizer(tokenizer):
    text = tokenizer.backend_tokenizer.to_str() + tokenizer.chat_template
    assert sha256(text.encode()) == "b7f7f81f9c6ffbfb171913279a2a3331c54668efb7c196cb241ef13f8648243b"


def test_corpus_batches(tokenizer):
    batches = PretrainingBatches(tokenizer, 64, 4096, 0)
    keys = ("input_ids", "attention_mask", "loss_weights")
    parts = [batches[i][key].numpy().tobytes() for i in (0, 1, 17, 40) for key in keys]
    assert sha256(*parts) == "84203ae7a0b84744c8c7128b4b4328edf4a17a3e34aa56140469fc7a06747c91"


def test_suites():
    parts = [
        json.dumps([as_row(p, suite), p.split, p.family, p.parameters, p.candidates]).encode()
        for suite in SUITES
        for seed in (0, 3)
        for p in suite_problems(suite, 200, seed)
    ]
    assert sha256(*parts) == "5d0b2b4500e0f05aa98b958863c9a0800cbdc7c0220e022690707fbc5996e932"


def test_shipped_weights():
    assert (
        sha256((organism_path() / "model.safetensors").read_bytes())
        == "2f6d86db2bfa12cb549838d3bd073aeeb1d9071984b906eaaf9900e82790f15f"
    )
