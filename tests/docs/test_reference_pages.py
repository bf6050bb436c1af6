"""Pages of the reference name all that they tell of: recipes, commands, callbacks, campaigns."""

import inspect
import re

import pytest
from pages import ROOT
from transformers import TrainerCallback
from typer.main import get_command

from calibrated_sd import trainers
from calibrated_sd.cli.main import app
from calibrated_sd.cli.recipes import recipes_root, shipped_recipes

REFERENCE = ROOT / "docs" / "reference"


def page_of(name):
    return (REFERENCE / name).read_text(encoding="utf-8")


def expanded(name):
    """``a/{b,c}`` → a/b, a/c."""
    head, brace, rest = name.partition("{")
    if not brace:
        return [name]
    choices, _, tail = rest.partition("}")
    return [full for choice in choices.split(",") for full in expanded(f"{head}{choice}{tail}")]


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def recipes_on_the_page(page):
    """The recipes that the matrix and the table beside it name; of a folder that ends in `…`, what it holds."""
    matrix, beside = page.split("## The matrix")[1].split("## How to read")[0].split("| beside the matrix |")
    rows = [cells(line) for line in matrix.splitlines() if line.startswith("|")]
    models = rows[0][2:]
    named = {
        f"{model}/{row[0].strip('`')}/{weights}"
        for row in rows[2:]
        for model, cell in zip(models, row[2:], strict=True)
        for weights in ("full", "lora")
        if cell != "–"
    }
    for line in beside.splitlines():
        for found in re.findall(r"`([^`]+)`", cells(line)[0] if line.startswith("| `") else ""):
            if found.endswith("/…"):
                folder = recipes_root() / found.removesuffix("/…")
                named |= {
                    path.relative_to(recipes_root()).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
                }
            else:
                named |= set(expanded(found))
    return named


def test_every_recipe_is_on_its_page_and_no_other():
    shipped = {path.relative_to(recipes_root()).with_suffix("").as_posix() for path in shipped_recipes()}
    assert recipes_on_the_page(page_of("recipes.md")) == shipped


def leaves(command, name=()):
    """Every command with the words of its name."""
    if not hasattr(command, "commands"):
        yield " ".join(name), {option for parameter in command.params for option in parameter.opts}
        return
    for word, below in command.commands.items():
        yield from leaves(below, (*name, word))


def test_commands_that_write_to_output_take_if_exists_but_those_the_page_names():
    without = {
        name for name, options in leaves(get_command(app)) if "--output" in options and "--if-exists" not in options
    }
    assert without == set(re.findall(r"`csd ([\w -]+)` has no `--if-exists`", page_of("cli.md")))
    assert "compare" not in without


def test_every_command_is_in_the_table():
    first = " ".join(cells(line)[0] for line in page_of("cli.md").splitlines() if line.startswith("| `csd"))
    words = set(re.findall(r"[\w-]+", first))
    missing = [name for name, _ in leaves(get_command(app)) if not set(name.split()) <= words]
    assert missing == []


CALLBACKS = [
    name
    for name in trainers.__all__
    if inspect.isclass(getattr(trainers, name)) and issubclass(getattr(trainers, name), TrainerCallback)
]


@pytest.mark.parametrize("name", CALLBACKS)
def test_every_callback_has_a_section_with_its_parameters(name):
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page_of("callbacks.md"), re.M | re.S))
    parameters = inspect.signature(getattr(trainers, name)).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    call = str(inspect.Signature(bare)).replace("'", '"')
    assert f"`{name}{call}`" in sections[name]


def test_the_callbacks_are_found():
    assert {"CollapseMonitor", "MarkerMassCallback", "JsonlLogCallback", "RolloutLogCallback"} <= set(CALLBACKS)


def test_every_campaign_is_described():
    """A file with tests that are run by hand alone, and those that pytest does not collect, are named in a command there."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Tests of faults and bad input")[1]
    commands = re.findall(r"^- \*\*[^*]+\*\*, (`[^`]+`):", section.split("\n## ")[0], re.MULTILINE)
    named = " ".join(commands)
    by_hand = {
        path.relative_to(ROOT).as_posix()
        for folder in ("faults", "release")
        for path in (ROOT / "tests" / folder).glob("test_*.py")
        if "@pytest.mark.study" in path.read_text(encoding="utf-8")
    }
    assert len(by_hand) >= 4
    assert [path for path in by_hand if path not in named and path.rpartition("/")[0] + "`" not in named] == []
    for file in re.findall(r"tests/[\w/]+\.py|tests/\w+(?=`)", named):
        assert (ROOT / file).exists()
