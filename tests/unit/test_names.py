"""Names in the source: a class name means one thing, wherever it is read."""

import ast
from collections import defaultdict
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
# Every scorer's module defines a class of this name: it is how the module is found to be one.
SHARED = {"Scorer"}


def test_class_names_are_unique():
    places = defaultdict(list)
    for path in sorted(SCRIPTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(SCRIPTS)}:{node.lineno}")
    assert len(places) > 100, "the source was not found"
    assert {name: lines for name, lines in places.items() if len(lines) > 1 and name not in SHARED} == {}
