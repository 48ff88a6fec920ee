"""Imports go down only."""

from __future__ import annotations

import ast
from pathlib import Path

import gradwatch

ROOT = Path(gradwatch.__file__).parent

LAYERS = (
    ("catalogue", "terminal"),
    ("signals", "facts", "policy", "reports", "drawing"),
    ("records",),
    ("errors", "interfaces", "strict_json", "series", "tally", "families"),
    ("components", "provenance", "sheets", "wording"),
    (
        "arguments",
        "epochs",
        "harmless",
        "identity",
        "resume",
        "runstate",
        "summary",
        "exposition",
    ),
    ("health", "shape"),
    ("rules", "capture", "sinks", "exports", "outlet"),
    ("metrics",),
    ("pump", "replay", "blackbox", "serving"),
    ("autopsy", "report"),
    ("audit",),
    ("incidents",),
    ("watch",),
    ("callback",),
    ("preflight",),
    ("service", "testing", "monitoring"),
    ("compare", "demo", "listing", "onlooker", "tail"),
    ("drill", "views"),
    ("cli",),
)
"""From the bottom up; a module may import those of its own part and below."""

FORBIDDEN = {
    "rules": {"keras", "tensorflow", "tensorboard", "prometheus_client"},
    "service": {"keras", "tensorflow", "tensorboard"},
    "report": {"keras", "tensorflow", "tensorboard", "matplotlib"},
    "compare": {"keras", "tensorflow", "tensorboard", "matplotlib"},
    "drawing": {"keras", "tensorflow", "tensorboard", "jinja2"},
    "monitoring": {"keras", "tensorflow", "tensorboard"},
    "provenance": {"tensorboard", "prometheus_client", "typer", "rich"},
    "capture": {"tensorboard", "prometheus_client", "typer", "rich"},
    "autopsy": {"tensorboard", "prometheus_client", "typer", "rich"},
    "audit": {"tensorboard", "prometheus_client"},
}
HEIGHT = {name: i for i, names in enumerate(LAYERS) for name in names}


def _imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "gradwatch":
                found |= {f"gradwatch.{a.name}" for a in node.names}
    return found


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_imports_go_down_only() -> None:
    """No module imports one that stands above it."""
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        part = _part(path)
        if part == "__init__":
            continue
        for module in _imports(path):
            names = module.split(".")
            if names[0] != "gradwatch" or len(names) == 1:
                continue
            if names[1] != part and HEIGHT[names[1]] >= HEIGHT[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_every_module_has_its_place() -> None:
    """Each file belongs to a layer, and each layer has files."""
    parts = {_part(path) for path in ROOT.rglob("*.py")} - {"__init__"}
    assert parts == set(HEIGHT)


def test_third_parties_stay_where_they_belong() -> None:
    """Rules know numpy only, the service neither Keras nor TensorFlow."""
    for part, packages in FORBIDDEN.items():
        for path in (ROOT / part).rglob("*.py"):
            roots = {m.split(".")[0] for m in _imports(path)}
            assert not roots & packages, path


def test_modules_and_functions_are_short() -> None:
    """A file is one idea below 300 lines, a function below 40."""
    long = []
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        if text.count("\n") > 300:
            long.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node, clean=False) or ""
                end = node.end_lineno or node.lineno
                lines = end - node.lineno - documented.count("\n")
                if lines > 40:
                    long.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert long == []


def test_one_sink_knows_apprise() -> None:
    """Nothing else depends on it, so that the rest works without."""
    using = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if "apprise" in {m.split(".")[0] for m in _imports(path)}
    ]
    assert using == ["sinks/notify.py"]
