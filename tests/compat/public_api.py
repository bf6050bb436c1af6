"""The public names with their signatures, as text. `python tests/compat/public_api.py` writes public_api.txt anew: a change of it is a
change for users, and goes into CHANGELOG.md."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import calibrated_sd

FROZEN = Path(__file__).with_name("public_api.txt")


def rooms() -> list[str]:
    """The rooms whose names are public: each with an `__all__`, and `errors`, whose classes are."""
    package = Path(calibrated_sd.__file__).parent
    files = {path.stem: path for path in package.glob("*.py")} | {
        p.parent.name: p for p in package.glob("*/__init__.py")
    }
    files.pop("__init__")
    listed = {name for name, path in files.items() if re.search(r"^__all__\b", path.read_text(encoding="utf-8"), re.M)}
    return sorted(listed | {"errors"})


def described() -> str:
    """One line per name, setting and method."""
    lines = list(_of("calibrated_sd", calibrated_sd.__all__))
    for room in rooms():
        module = importlib.import_module(f"calibrated_sd.{room}")
        lines += _of(module.__name__, public(module))
    return "\n".join(lines) + "\n"


def public(module: object) -> list[str]:
    """`__all__`; without one, the classes that are defined there."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [n for n, thing in vars(module).items() if inspect.isclass(thing) and thing.__module__ == module.__name__]


def _of(where: str, names: list[str]) -> Iterator[str]:
    module = importlib.import_module(where)
    for name in sorted(names):
        thing = getattr(module, name)
        if dataclasses.is_dataclass(thing) and isinstance(thing, type):
            yield f"{where}.{name}: settings"
            for field in dataclasses.fields(thing):
                if _is_ours(thing, field.name):
                    yield f"{where}.{name}.{field.name} = {_default(field)}"
        elif inspect.isclass(thing) or callable(thing):
            yield f"{where}.{name}{_signature(thing)}"
        else:
            yield f"{where}.{name}: {type(thing).__name__}"
        if inspect.isclass(thing):
            yield from _methods(where, name, thing)


def _methods(where: str, name: str, thing: type) -> Iterator[str]:
    for method, value in sorted(vars(thing).items()):
        if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod))):
            yield f"{where}.{name}.{method}{_signature(getattr(thing, method))}"


def _is_ours(cls: type, field: str) -> bool:
    """Whether the field was declared here and not in TRL or Transformers, whose defaults are theirs to change."""
    owners = [base for base in cls.__mro__ if field in inspect.get_annotations(base)]
    return bool(owners) and owners[0].__module__.startswith("calibrated_sd")


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "<required>" if field.default_factory is dataclasses.MISSING else "<made>"


def _signature(thing: object) -> str:
    """Names, order, kinds and defaults of the parameters; annotations may get more exact."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return "(…)"
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


if __name__ == "__main__":
    FROZEN.write_text(described(), encoding="utf-8")
    print(f"{FROZEN.name}: {len(FROZEN.read_text(encoding='utf-8').splitlines())} lines")
