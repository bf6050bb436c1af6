"""``published.yaml``: which pages a published folder has, and which tables and figures stand in them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import ConfigError, DataError, shortened, unknown_name
from calibrated_sd.records.recipe_files import YAML_ERRORS

LISTING = "published.yaml"
TABLE_KINDS: dict[str, tuple[str, ...]] = {
    "claims": ("claims", "keys"),
    "arms": ("arms", "against", "suites"),
    "summary": ("arms", "metrics", "suites", "steps"),
    "matched": ("targets",),
    "points": ("against", "series"),
    "moonshot": ("winner", "against"),
    "figures": ("rows", "columns", "labels", "first"),
    "early_warning": (),
    "hypotheses": (),
}
"""Kind of table → its options besides ``kind``, ``from`` and ``note``."""
FIGURE_KINDS: dict[str, tuple[str, ...]] = {
    "pareto": (),
    "forest": ("arms", "titles"),
    "coverage": ("methods",),
    "ladder": (),
    "trajectory": ("arms",),
    "ood_vs_markers": ("arms",),
    "suites": ("arms",),
}
"""Kind of figure → its options besides ``kind``, ``from`` and ``file``."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Entry:
    """A table or a figure.

    Attributes:
        name: as the pages name it.
        kind: a key of ``TABLE_KINDS`` or ``FIGURE_KINDS``.
        sources: the folders (or files) it is made from, as written, relative to the published folder.
        options: the rest of the entry.
        file: where a figure is written, relative to the published folder; empty for tables.
    """

    name: str
    kind: str
    sources: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    file: str = ""


@dataclass(frozen=True)
class Headline:
    """A sentence of a page that must agree with claims.

    Attributes:
        page: path relative to the published folder.
        claims: ids; each must be shown.
        source: the folder of their ``claims.json``.
        settings: numbers of the sentence that are settings and not measured, e.g. a weight.
    """

    page: str
    claims: tuple[str, ...]
    source: str
    settings: tuple[float, ...] = ()


@dataclass(frozen=True)
class Listing:
    """A published folder: its path and what ``published.yaml`` says."""

    path: Path
    pages: tuple[str, ...]
    tables: dict[str, Entry]
    figures: dict[str, Entry]
    headline: Headline | None = None

    @property
    def sources(self) -> list[str]:
        """Every source once, in the order of the file."""
        entries = [*self.tables.values(), *self.figures.values()]
        named = [source for entry in entries for source in entry.sources]
        return list(dict.fromkeys([*named, *([self.headline.source] if self.headline else [])]))


def load_listing(directory: str | Path) -> Listing:
    """Read ``directory/published.yaml``.

    Raises:
        DataError: no such file, or a page or source that it names does not exist.
        ConfigError: not YAML, an unknown key, kind or option, a page that is no Markdown, or a figure outside of the folder.
    """
    path = Path(directory)
    file = path / LISTING
    if not file.is_file():
        raise DataError(f"There is no {file}. Give a folder with a {LISTING} that lists its pages, tables and figures.")
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), _OncePerKey)  # nosec B506: a SafeLoader
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: {error}. Save the file as UTF-8.") from error
    except YAML_ERRORS as error:
        raise ConfigError(f"{file} is not valid YAML ({' '.join(str(error).split())}). Correct it.") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{file} must be a mapping with the key 'pages', got {type(raw).__name__}. Correct it.")
    for key in raw:
        if key not in ("pages", "tables", "figures", "headline"):
            raise unknown_name(f"key of {file}", key, ("pages", "tables", "figures", "headline"))
    pages = raw.get("pages")
    if not isinstance(pages, list) or not pages or not all(isinstance(page, str) for page in pages):
        raise ConfigError(f"'pages' of {file} must be a list of Markdown files, got {pages!r}. Correct it.")
    listing = Listing(
        path,
        tuple(pages),
        _entries(raw, "tables", TABLE_KINDS, file),
        _entries(raw, "figures", FIGURE_KINDS, file),
        _headline(raw["headline"], file) if raw.get("headline") else None,
    )
    for page in (*pages, *([listing.headline.page] if listing.headline else [])):
        if _resolved(path / page).suffix != ".md":
            raise ConfigError(
                f"{file} lists the page {page!r}, which is no Markdown file. Give a page that ends in .md."
            )
        if not (path / page).is_file():
            raise DataError(f"{file} lists the page {page}, but there is no file {path / page}. Correct one of them.")
    for entry in listing.figures.values():
        if not is_inside(path, entry.file):
            raise ConfigError(
                f"'file' of the figure {entry.name!r} of {file} must lie inside of {path}, got {shortened(entry.file)}. "
                "Correct it, or leave it out."
            )
    for source in listing.sources:
        if not (path / source).exists():
            raise DataError(f"{file} names the source {source}, but there is no {path / source}. Correct one of them.")
    return listing


def is_inside(root: Path, name: str) -> bool:
    """Whether a path relative to a folder stays below it, links followed."""
    return _resolved(root / name).is_relative_to(root.resolve())


def published_root(directory: str | Path) -> Path | None:
    """The published folder that a folder belongs to: itself, or one above whose listing names it as a source."""
    path = Path(directory).resolve()
    if (path / LISTING).is_file():
        return Path(directory)
    for parent in path.parents:
        if (parent / LISTING).is_file():
            listing = load_listing(parent)
            return parent if path in {(parent / source).resolve() for source in listing.sources} else None
    return None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a zero byte
        raise ConfigError(f"{str(path)!r} is no path that can be followed ({error}). Correct {LISTING}.") from error


class _OncePerKey(yaml.SafeLoader):
    """Refuses a key that is given twice: YAML would keep the last one in silence."""


def _mapping(loader: _OncePerKey, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for key, (place, _) in zip(keys, node.value, strict=True):
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a list or mapping as a key", place.start_mark)
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_OncePerKey.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _entries(raw: Mapping[str, Any], group: str, kinds: Mapping[str, tuple[str, ...]], file: Path) -> dict[str, Entry]:
    given = raw.get(group) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"'{group}' of {file} must map names to entries, got {given!r}. Correct it.")
    found = {}
    for name, entry in given.items():
        what = f"{group[:-1]} {name!r} of {file}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"The name of {what} may hold letters, digits, '_' and '-' alone. Rename it.")
        if not isinstance(entry, Mapping) or "kind" not in entry or "from" not in entry:
            raise ConfigError(f"The {what} needs at least 'kind' and 'from', got {entry!r}. Add them.")
        if not isinstance(entry["kind"], str) or entry["kind"] not in kinds:
            raise unknown_name(f"kind of the {what}", entry["kind"], kinds)
        own = ("kind", "from", "note") if group == "tables" else ("kind", "from", "file")
        for key in entry:
            if key not in (*own, *kinds[entry["kind"]]):
                raise unknown_name(f"option of the {what}", key, (*own, *kinds[entry["kind"]]))
        sources = entry["from"] if isinstance(entry["from"], list) else [entry["from"]]
        place = entry.get("file", f"figures/{name}.png") if group == "figures" else ""
        if not isinstance(place, str) or (place and not place.endswith(".png")):
            raise ConfigError(f"'file' of the {what} must be the path of a PNG, got {place!r}. Correct it.")
        options = {key: value for key, value in entry.items() if key not in ("kind", "from", "file")}
        found[name] = Entry(name, entry["kind"], tuple(map(str, sources)), options, place)
    return found


def _headline(given: Any, file: Path) -> Headline:
    keys = ("page", "claim", "from", "settings")
    if not isinstance(given, Mapping) or not {"page", "claim", "from"} <= set(given):
        raise ConfigError(f"'headline' of {file} needs 'page', 'claim' and 'from', got {given!r}. Add them.")
    for key in given:
        if key not in keys:
            raise unknown_name(f"key of 'headline' in {file}", key, keys)
    claims = given["claim"] if isinstance(given["claim"], list) else [given["claim"]]
    settings = given.get("settings") or []
    try:
        if not isinstance(settings, list):
            raise TypeError
        numbers = tuple(map(float, settings))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"'settings' under 'headline' in {file} must be a list of numbers, got {shortened(settings)}. Correct it."
        ) from error
    return Headline(str(given["page"]), tuple(map(str, claims)), str(given["from"]), numbers)
