"""Imports point down: a file imports its own folder and lower levels, never a sibling of its level."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sana_streaming"
LEVELS = [
    {"config", "state", "ops", "io"},
    {"model", "codec", "text", "diffusion", "quant"},
    {"checkpoint", "stream", "data"},
    {"train", "eval", "bench", "server"},
    {"cli"},
    {"__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units} | {"__init__": 3}


def imported_units(tree: ast.Module) -> set[str]:
    """First-level names under sana_streaming that a file imports anywhere in it, inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= (
                {node.module} if node.module != "sana_streaming" else {f"{node.module}.{a.name}" for a in node.names}
            )
    return {name.split(".")[1] for name in names if name.startswith("sana_streaming.")}


def broken_rules(unit: str, tree: ast.Module) -> list[str]:
    rules = []
    for other in sorted(imported_units(tree) - {unit}):
        if other not in LEVEL:
            rules.append(f"imports {other}, which is no part of the layout")
        elif LEVEL[other] >= LEVEL[unit]:
            rules.append(f"{unit} (level {LEVEL[unit]}) imports {other} (level {LEVEL[other]})")
    return rules


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert unit in LEVEL, f"{unit} is no part of the layout"
    assert not broken_rules(unit, ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("codec", "from sana_streaming.model.dit import DiT"),  # a sibling
        ("stream", "def f():\n    import sana_streaming.cli"),  # upwards, and where it is used
        ("eval", "from sana_streaming import bench"),
        ("io", "from sana_streaming import Editor"),
        ("model", "import sana_streaming.utils"),
    ],
)
def test_rule_is_seen_to_be_broken(unit, code):
    assert broken_rules(unit, ast.parse(code))


def test_package_loads_nothing_that_it_may_not_need():
    optional = ["av", "onnxruntime", "tokenizers", "cv2", "tqdm", "triton", "transformers", "fastapi", "aiortc"]
    code = f"import sys, sana_streaming; print(*[m for m in {optional} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == []
    assert done.stderr == ""
