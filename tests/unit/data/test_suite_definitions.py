"""How suites are sampled and graded, where they lie, and what the known sources say about themselves."""

from __future__ import annotations

import json
import re

import pytest

from calibrated_sd.data.sources import find_source, known_sources
from calibrated_sd.data.suites import (
    PAPER_SAMPLING,
    SuiteDefinition,
    built_in_suites,
    find_suite,
    suite_definition,
)
from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.evaluation.grading import GRADERS


def test_the_papers_settings():
    assert set(built_in_suites()) == {"aime24", "aime25", "amc23", "math500"}
    for definition in built_in_suites().values():
        thinking, not_thinking = definition.sampling["thinking"], definition.sampling["no_thinking"]
        assert (definition.n, thinking.temperature, thinking.top_p, thinking.max_new_tokens) == (16, 0.6, 0.95, 38912)
        assert (not_thinking.temperature, not_thinking.top_p, not_thinking.max_new_tokens) == (0.7, 0.8, 38912)
        assert definition.grader in GRADERS


def test_a_definition_survives_json():
    definition = suite_definition("math500")
    assert SuiteDefinition.from_dict(json.loads(json.dumps(definition.as_dict()))) == definition
    assert definition.sampling == dict(PAPER_SAMPLING)


@pytest.mark.parametrize("damage", [{"sampling": None}, {"sampling": {"thinking": {"heat": 1}}}, {"colour": 1}])
def test_a_damaged_definition(damage):
    with pytest.raises(DataError, match=r"cannot be read.*csd data prepare"):
        SuiteDefinition.from_dict({**suite_definition("math500").as_dict(), **damage})


def test_definition_of_a_prepared_folder(tmp_path):
    mine = SuiteDefinition("mine", "Mine", "boxed", n=4)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "suite.json").write_text(json.dumps({"definition": mine.as_dict()}))
    (folder / "problems.jsonl").write_text("")
    assert suite_definition(folder) == suite_definition(folder / "problems.jsonl") == mine
    assert suite_definition(folder / "others.jsonl") is None  # the description is not about that file
    (folder / "suite.json").write_text(json.dumps({"definition": None}))
    assert suite_definition(folder) is None
    assert suite_definition(tmp_path / "aime24.parquet") is None


def test_find_suite(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(f"csd data prepare aime24 --output {tmp_path}")):
        find_suite("aime24", tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "problems.jsonl").write_text("")
    assert find_suite("mine", tmp_path) == tmp_path / "mine" / "problems.jsonl"
    with pytest.raises(ConfigError, match=r"no suite 'yours'.*prepared there: mine"):
        find_suite("yours", tmp_path)


def test_sources_are_complete():
    sources = known_sources()
    assert set(sources) >= {
        "dapo-math-17k",
        *built_in_suites(),
        "sciknoweval-chemistry",
        "gsm8k",
        "math",
        "gsm-symbolic",
    }
    for source in sources.values():
        assert source.licence
        assert source.note
        assert (source.generator is None) == (source.hub_id is not None and len(source.files) > 0)
        assert source.revision is None or re.fullmatch("[0-9a-f]{40}", source.revision)
    with pytest.raises(ConfigError, match="Did you mean 'aime24'"):
        find_source("aime2024")
