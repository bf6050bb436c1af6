"""Every `csd` command of the documentation exists, with its options and with the recipe it names."""

import shlex

import pytest
from pages import PAGES, blocks, commands
from typer.main import get_command

from calibrated_sd.cli.main import app
from calibrated_sd.cli.recipes import find_recipe

COMMANDS = [
    pytest.param(words, id=f"{page.stem}: csd {shlex.join(words)}"[:120])
    for page in PAGES
    for block in blocks(page)
    if block.language in {"bash", ""}
    for words in commands(block)
]


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


def test_the_pages_have_commands():
    """The test looks at something: README and each how-to that tells of the command line."""
    assert len(COMMANDS) > 60
    assert any(parameter.id.startswith("README: csd reproduce") for parameter in COMMANDS)
