"""Every command of ours in the documentation exists, with its options and with the recipe it names: `csd`, `python -m`, `accelerate launch`."""

import argparse
import importlib
import itertools
import shlex

import pytest
from pages import CSD_MODULE, PAGES, blocks, commands, lines
from typer.main import get_command

from calibrated_sd.cli.main import app
from calibrated_sd.cli.recipes import find_recipe, recipes_root


def all_of(found_in, before=""):
    """What a reader of blocks finds on all pages, one parameter each."""
    return [
        pytest.param(words, id=f"{page.stem}: {before}{shlex.join(words)}"[:120])
        for page in PAGES
        for block in blocks(page)
        if block.language in {"bash", ""}
        for words in found_in(block)
    ]


COMMANDS = all_of(commands, "csd ")
LINES = all_of(lines)
LAUNCHES = [p for p in LINES if p.values[0][:2] == ["accelerate", "launch"]]


def module_of(words):
    """Our module that a line runs by `-m`, beside the command line's, or None."""
    named = [after for word, after in itertools.pairwise(words) if word == "-m"]
    return next((name for name in named if name.startswith("calibrated_sd") and name != CSD_MODULE), None)


MODULES = [p for p in LINES if module_of(p.values[0])]


def resolve(words):
    """The click command that the words name, and the words after its name."""
    command, words = get_command(app), list(words)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("words", COMMANDS)
def test_command_and_options_exist(words):
    command, rest = resolve(words)
    context = command.make_context(command.name, list(rest))  # unknown options, missing ones and wrong values raise
    extra = context.args
    for word in extra:
        if word.startswith("--"):
            assert word[2:] in known_settings(), word


def known_settings():
    from calibrated_sd.experiments.train_recipe import RunArguments
    from calibrated_sd.trainers import CalibratedSDPOConfig

    return set(CalibratedSDPOConfig.__dataclass_fields__) | set(RunArguments.__dataclass_fields__)


@pytest.mark.parametrize("words", [p for p in COMMANDS if "--config" in p.values[0]])
def test_the_recipe_exists(words):
    name = words[words.index("--config") + 1]
    if name.endswith(".yaml"):
        return  # the reader's own file, which the page tells how to make
    assert find_recipe(name).is_file()


class Parsed(Exception):
    """The module has read its options; what it does with them is not asked for."""


@pytest.fixture
def only_parsed(monkeypatch):
    """`parse_args` raises `Parsed` where it would give back what it read."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)


@pytest.mark.parametrize("words", MODULES)
def test_the_module_takes_these_options(words, only_parsed):
    name = module_of(words)
    main = importlib.import_module(name).main
    with pytest.raises(Parsed):
        main(words[words.index(name) + 1 :])
    with pytest.raises(SystemExit):
        main([*words[words.index(name) + 1 :], "--no-such-option"])


@pytest.mark.parametrize("words", LAUNCHES)
def test_accelerate_takes_these_options(words):
    from accelerate.commands.launch import launch_command_parser

    given = launch_command_parser().parse_args(words[2:])
    assert given.module
    assert given.training_script == CSD_MODULE
    assert (recipes_root() / "launch" / given.config_file).is_file()


def test_the_pages_have_commands():
    """The test looks at something: README and each how-to that tells of the command line."""
    assert len(COMMANDS) > 60
    assert len(MODULES) >= 1
    assert len(LAUNCHES) >= 2
    assert sum(CSD_MODULE in parameter.values[0] for parameter in LINES) > len(LAUNCHES)
    assert any(parameter.id.startswith("README: csd reproduce") for parameter in COMMANDS)
