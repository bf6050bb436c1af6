"""What the source must not do, read off its syntax tree: unpickle, evaluate text, go through a shell, trust remote code."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
FORBIDDEN = {
    "eval": "evaluates text",
    "exec": "runs text",
    "os.system": "goes through a shell",
    "os.popen": "goes through a shell",
    "pickle.load": "unpickles",
    "pickle.loads": "unpickles",
    "torch.load": "unpickles; weights are safetensors",
    "joblib.load": "unpickles",
    "numpy.load": "may unpickle",
    "np.load": "may unpickle",
    "yaml.unsafe_load": "makes objects",
    "yaml.full_load": "makes objects",
    "subprocess.getoutput": "goes through a shell",
}


def offences(tree):
    """(line, what) of every call that is not allowed."""
    safe = {"SafeLoader", "CSafeLoader"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("SafeLoader" in ast.unparse(base) for base in node.bases):
            safe.add(node.name)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in FORBIDDEN:
            yield node.lineno, f"{name} {FORBIDDEN[name]}"
        if name == "yaml.load":
            loaders = [*node.args[1:], *(keyword.value for keyword in node.keywords if keyword.arg == "Loader")]
            if not loaders or ast.unparse(loaders[0]).rpartition(".")[2] not in safe:
                yield node.lineno, "yaml.load without a safe loader"
        for keyword in node.keywords:
            if keyword.arg in ("shell", "trust_remote_code") and getattr(keyword.value, "value", None) is True:
                yield node.lineno, f"{keyword.arg}=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "src").as_posix())
def test_source_keeps_the_rules(path):
    assert list(offences(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "eval(x)",
        "torch.load(f)",
        "yaml.load(f)",
        "yaml.load(f, yaml.Loader)",
        "subprocess.run(c, shell=True)",
        "AutoModel.from_pretrained(m, trust_remote_code=True)",
    ],
)
def test_the_rules_catch_it(code):
    assert len(list(offences(ast.parse(code)))) == 1


@pytest.mark.parametrize("code", ["model.eval()", "yaml.load(f, Loader=yaml.SafeLoader)", "yaml.safe_load(f)"])
def test_the_rules_let_it_pass(code):
    assert list(offences(ast.parse(code))) == []


def test_no_recipe_trusts_remote_code():
    def keys(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield key, inner
                yield from keys(inner)
        if isinstance(value, list):
            for inner in value:
                yield from keys(inner)

    recipes = sorted((ROOT / "recipes").rglob("*.yaml"))
    assert len(recipes) > 100
    for path in recipes:
        for key, value in keys(yaml.safe_load(path.read_text(encoding="utf-8"))):
            assert not (key == "trust_remote_code" and value), path


def test_the_default_is_not_to_trust():
    from calibrated_sd.trainers import CalibratedSDPOConfig, CalibratedSFTConfig

    for config in (CalibratedSDPOConfig, CalibratedSFTConfig):
        field = config.__dataclass_fields__.get("trust_remote_code")
        assert field is None or field.default is False
