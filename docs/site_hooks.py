"""What the site needs and the pages, which are read on their own, too, do not have."""

import dataclasses
import importlib
import inspect
import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
API = re.compile(r"^<!-- api: (\S+) -->$", re.MULTILINE)
SECTION = re.compile(r"^<!-- CONTRIBUTING.md: (.+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page, config, files) -> str:
    """The reference of a room, and a section of CONTRIBUTING.md, are filled in; fences that are not run in tests become
    ordinary ones; a link to a file that is not on the site becomes its path."""
    markdown = API.sub(lambda found: reference(found[1]), markdown)
    markdown = SECTION.sub(lambda found: section(found[1]), markdown)
    markdown = re.sub(r"^```python notest$", "```python", markdown, flags=re.MULTILINE)
    here = posixpath.dirname(page.file.src_uri)
    known = {file.src_uri for file in files}

    def shown(found: re.Match) -> str:
        image, text, target = found.groups()
        path = target.split("#", 1)[0]
        if image or not path or "://" in path or path.startswith("mailto:"):
            return found[0]
        place = posixpath.normpath(posixpath.join("docs", here, path))
        if place.removeprefix("docs/") in known and place.startswith("docs/"):
            return found[0]
        return f"{text} (`{place}`)"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(shown, part) for part in parts)


def section(title: str) -> str:
    """What stands under a heading of CONTRIBUTING.md.

    Raises:
        ValueError: no such heading.
    """
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, heading, after = text.partition(f"\n## {title}\n")
    if not heading:
        raise ValueError(f"CONTRIBUTING.md has no section {title!r}")
    return after.partition("\n## ")[0].strip()


def public_names(room: str) -> list[tuple[str, str, object]]:
    """(name, where it is defined, the thing) of everything in a room's ``__all__``; without one, of its classes."""
    module = importlib.import_module(room)
    classes = [name for name, thing in vars(module).items() if inspect.isclass(thing) and thing.__module__ == room]
    found = []
    for name in getattr(module, "__all__", classes):
        thing = getattr(module, name)
        is_ours = inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing))
        found.append((name, f"{thing.__module__}.{thing.__qualname__}" if is_ours else f"{room}.{name}", thing))
    return found


def reference(room: str) -> str:
    """mkdocstrings' directives for all public names of a room.

    Raises:
        ValueError: a public class or function without a docstring.
    """
    silent = [name for name, _, thing in public_names(room) if callable(thing) and not inspect.getdoc(thing)]
    if silent:
        raise ValueError(f"{room}: no docstring on {', '.join(silent)}")
    lines = []
    for name, path, thing in public_names(room):
        is_config = dataclasses.is_dataclass(thing) and name.endswith("Config")
        lines += fields_table(name, thing) if is_config else [f"::: {path}"]
        lines.append("")
    return "\n".join(lines)


def fields_table(name: str, config: Any) -> list[str]:
    """What a config adds to TRL's: its docstring is put together at run time, where a static reader does not look."""
    trl = next(base for base in config.__mro__ if base.__module__.startswith("trl."))
    theirs = {field.name for field in dataclasses.fields(trl)}
    lines = [f"### {name} {{ #{config.__module__}.{config.__qualname__} }}", ""]
    lines += [
        f"Every field of TRL's `{trl.__name__}`, and these:",
        "",
        "| field | default | meaning |",
        "|---|---|---|",
    ]
    for field in dataclasses.fields(config):
        if field.name not in theirs:
            told = " ".join(str(field.metadata["help"]).split()).replace("|", "\\|")
            lines.append(f"| `{field.name}` | `{field.default!r}` | {told} |")
    return lines
