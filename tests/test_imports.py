"""Imports point down: a file imports its own folder and lower levels, never a sibling of its level."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sana_streaming"
LEVELS = [
    {"config", "state", "ops", "io", "metrics"},
    {"model", "codec", "text", "diffusion", "quant"},
    {"checkpoint"},
    {"stream", "data", "download"},
    {"train", "eval", "bench", "server"},
    {"cli", "commands"},
    {"__main__"},
]
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units} | {"__init__": 4, "__version__": -1}


def imported_units(folder: str, tree: ast.Module) -> set[str]:
    """First-level names under sana_streaming that a file of `folder` ("sana_streaming.io") imports anywhere in it,
    inside functions too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), folder)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("sana_streaming.")}


def broken_rules(unit: str, folder: str, tree: ast.Module) -> list[str]:
    rules = []
    for other in sorted(imported_units(folder, tree) - {unit}):
        if other not in LEVEL:
            rules.append(f"imports {other}, which is no part of the layout")
        elif LEVEL[other] >= LEVEL[unit]:
            rules.append(f"{unit} (level {LEVEL[unit]}) imports {other} (level {LEVEL[other]})")
    return rules


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    folder = ".".join(path.parent.relative_to(PACKAGE.parent).parts)
    assert unit in LEVEL, f"{unit} is no part of the layout"
    rules = broken_rules(unit, folder, ast.parse(path.read_text(encoding="utf-8")))
    assert rules == []


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("codec", "from sana_streaming.model.dit import DiT"),  # a sibling
        ("stream", "def f():\n    import sana_streaming.cli"),  # upwards, and where it is used
        ("eval", "from sana_streaming import bench"),
        ("io", "from sana_streaming import Editor"),
        ("model", "import sana_streaming.utils"),
        ("text", "from ..codec import build_codec"),
        ("text", "from .. import model"),
    ],
)
def test_rule_is_seen_to_be_broken(unit, code):
    assert broken_rules(unit, f"sana_streaming.{unit}", ast.parse(code))


@pytest.mark.parametrize(
    "code", ["from . import dit", "from .dit import DiT", "from ..ops import gated_delta", "import io"]
)
def test_own_folder_and_lower_levels_are_allowed(code):
    assert broken_rules("model", "sana_streaming.model", ast.parse(code)) == []


def test_package_loads_nothing_that_it_may_not_need():
    optional = ["av", "onnxruntime", "tokenizers", "cv2", "tqdm", "triton", "transformers", "fastapi", "aiortc"]
    code = f"import sys, sana_streaming; print(*[m for m in {optional} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.split() == []
    assert done.stderr == ""
