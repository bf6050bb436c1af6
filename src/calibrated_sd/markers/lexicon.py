"""Marker sets: immutable, versioned, hashed lists of the phrases that express doubt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from calibrated_sd.errors import ConfigError, DataError, unknown_name
from calibrated_sd.records import MARKER_COUNTS

_SHIPPED = files("calibrated_sd.markers") / "sets"
_FILES = {file.name.removesuffix(".yaml") for file in _SHIPPED.iterdir() if file.name.endswith(".yaml")}

MARKER_SETS = (*MARKER_COUNTS, *sorted(_FILES - set(MARKER_COUNTS)))
"""Names of the sets that ship with the package: those that every record counts, then any other in the folder."""

MODES = ("substring", "word")
POSITIONS = ("anywhere", "clause_start", "imperative")


@dataclass(frozen=True, slots=True)
class Phrase:
    """One entry of a marker set.

    `position`, `after`, `not_after`, `not_before` and the `not_after_near` pair are conditions on `text` itself; the
    forms in `also` are free of them. In substring mode only `text` may be set.

    Attributes:
        text: the phrase, lower-case; its name in every report.
        kind: what it does: ``"interrupt"``, ``"hedge"``, ``"redirect"``, or any other word in sets of your own.
        also: further forms that count under the same name.
        position: where `text` must stand: ``"anywhere"``; ``"clause_start"``: after punctuation, a line break, a tag
            or an opener of the set; ``"imperative"``: at a sentence start, or at a clause start before a word or formula.
        after: words right before `text` that admit it at any position.
        not_after: words right before `text` that void it.
        not_before: words right after `text` that void it.
        near_after: voids `text` if one of these is right before it and one of `near` is in the same sentence.
        near: see `near_after`.
        distinct_from: a token spelling at least this many letters of the phrase starts no unrelated word. None: only a
            token that spells the whole word is a marker id.
        token: False: counted in texts, but never a marker id.
    """

    text: str
    kind: str = ""
    also: tuple[str, ...] = ()
    position: str = "anywhere"
    after: tuple[str, ...] = ()
    not_after: tuple[str, ...] = ()
    not_before: tuple[str, ...] = ()
    near_after: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    distinct_from: int | None = None
    token: bool = True

    @property
    def forms(self) -> tuple[str, ...]:
        """`text` and every form of `also`."""
        return (self.text, *self.also)


@dataclass(frozen=True)
class MarkerSet:
    """Phrases that express doubt, with the rules that say when they do.

    Attributes:
        name: what reports call the set.
        version: raised whenever a count could change.
        mode: ``"substring"`` (lower-case, plain substring counts) or ``"word"`` (whole words, conditions apply).
        entries: the phrases.
        openers: words that a clause can start with before a marker: "but" in "but wait".
        source: where the list comes from.
    """

    name: str
    version: int
    mode: str
    entries: tuple[Phrase, ...]
    openers: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        where = f"Marker set {self.name!r}"
        if self.mode not in MODES:
            raise unknown_name(f"mode of marker set {self.name!r}", self.mode, MODES)
        if not self.entries:
            raise ConfigError(f"{where} has no phrases. List at least one under `phrases:`.")
        seen: dict[str, str] = {}
        for entry in self.entries:
            if entry.position not in POSITIONS:
                raise unknown_name(f"position of {entry.text!r} in marker set {self.name!r}", entry.position, POSITIONS)
            if self.mode == "substring" and entry != Phrase(entry.text, entry.kind):
                raise ConfigError(
                    f"{where} counts substrings, but {entry.text!r} has conditions or further forms, which would be "
                    "ignored. Remove them or write `mode: word`."
                )
            for form in entry.forms:
                if not form or form != form.lower() or form != " ".join(form.split()):
                    raise ConfigError(
                        f"{where} holds the phrase {form!r}. Phrases must be lower-case words with single spaces "
                        "between them and none around them."
                    )
                if form in seen:
                    raise ConfigError(
                        f"{where} lists {form!r} twice, under {seen[form]!r} and {entry.text!r}. Keep one of them."
                    )
                seen[form] = entry.text

    @property
    def phrases(self) -> tuple[str, ...]:
        """Names of all phrases, in the order of the file."""
        return tuple(entry.text for entry in self.entries)

    @cached_property
    def kinds(self) -> Mapping[str, str]:
        """Phrase -> kind."""
        return {entry.text: entry.kind for entry in self.entries}

    @cached_property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the sha256 of everything that can change a count or a token id.

        The order of the phrases and the comments of the file do not enter.
        """
        content = {
            "name": self.name,
            "version": self.version,
            "mode": self.mode,
            "openers": sorted(self.openers),
            "phrases": sorted((asdict(entry) for entry in self.entries), key=lambda entry: entry["text"]),
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.hash)

    @classmethod
    def load(cls, name_or_path: str | Path) -> MarkerSet:
        """A set that ships with the package, by name, or one of your own, by the path of a YAML file.

        Args:
            name_or_path: ``"legacy"``, ``"lexical"``, ``"held_out"``, or a path that ends in .yaml or .yml.

        Raises:
            ConfigError: unknown name, or a file whose content is not a marker set.
            DataError: the file is missing or is not YAML.
        """
        if not isinstance(name_or_path, (str, Path)):
            raise ConfigError(
                f"A marker set is named by a text, got {name_or_path!r}. Choose one of {', '.join(MARKER_SETS)}, or give the "
                "path of a .yaml file."
            )
        if name_or_path in MARKER_SETS:
            return _shipped(str(name_or_path))
        path = Path(name_or_path)
        if path.suffix not in (".yaml", ".yml"):
            raise unknown_name("marker set", str(name_or_path), (*MARKER_SETS, "a path ending in .yaml"))
        try:
            return parse(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"Cannot read the marker set {path}: {error}. Give the path of a readable file.") from error


@cache
def _shipped(name: str) -> MarkerSet:
    return parse((_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def parse(text: str, where: str) -> MarkerSet:
    """A marker set from the text of a YAML file (fields: docs/reference/marker_sets.md).

    Args:
        text: the content.
        where: the file's name, for error messages.

    Raises:
        ConfigError: missing, unknown or ill-typed fields.
        DataError: not YAML.
    """
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(
            f"The marker set {where} is not YAML: {' '.join(str(error).split())}. Correct the file."
        ) from error
    top = {"name", "version", "mode", "source", "openers", "phrases"}
    if not isinstance(content, dict) or not {"name", "version", "mode", "phrases"} <= content.keys():
        raise ConfigError(f"The marker set {where} must be a mapping with name, version, mode and phrases.")
    _refuse_unknown(content, top, where)
    if not isinstance(content["phrases"], list):
        raise ConfigError(f"The marker set {where}: `phrases` must be a list of phrases.")
    if not isinstance(content["version"], int):
        raise ConfigError(f"The marker set {where}: `version` must be an integer, not {content['version']!r}.")
    return MarkerSet(
        name=str(content["name"]),
        version=content["version"],
        mode=str(content["mode"]),
        entries=tuple(_entry(item, where) for item in content["phrases"]),
        openers=_words(content.get("openers", []), "openers", where),
        source=str(content.get("source", "")),
    )


def _entry(item: Any, where: str) -> Phrase:
    if isinstance(item, str):
        return Phrase(item)
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        raise ConfigError(
            f'The marker set {where} has the phrase {item!r}. A phrase is a string (quote words such as "no" that YAML '
            "reads otherwise) or a mapping with a string under `text`."
        )
    item = dict(item)
    pair = item.pop("not_after_near", None)
    if pair is not None:
        if not isinstance(pair, dict) or pair.keys() != {"after", "near"}:
            raise ConfigError(
                f"The marker set {where}: not_after_near of {item['text']!r} needs exactly after and near."
            )
        item |= {"near_after": pair["after"], "near": pair["near"]}
    _refuse_unknown(item, {field.name for field in fields(Phrase)}, where)
    for key in ("also", "after", "not_after", "not_before", "near_after", "near"):
        if key in item:
            item[key] = _words(item[key], key, where)
    distinct = item.get("distinct_from")
    if distinct is not None and not (isinstance(distinct, int) and 1 <= distinct <= len(item["text"])):
        raise ConfigError(
            f"The marker set {where}: distinct_from of {item['text']!r} is {distinct!r}. "
            f"It must be an integer from 1 to {len(item['text'])}, the length of the phrase."
        )
    if not isinstance(item.get("token", True), bool):
        raise ConfigError(f"The marker set {where}: token of {item['text']!r} must be true or false.")
    return Phrase(**item)


def _words(value: Any, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ConfigError(
            f"The marker set {where}: `{key}` must be a list of strings, not {value!r} "
            '(quote words such as "no" that YAML reads otherwise).'
        )
    return tuple(value)


def _refuse_unknown(mapping: dict[str, Any], known: set[str], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise unknown_name(f"field in marker set {where}", key, known - {"near_after"})
