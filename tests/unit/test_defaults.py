"""A default stands once: in its schema."""

import ast
from pathlib import Path

import pytest
import yaml

from milepost.schemas import SCHEMAS

ROOT = Path(__file__).parents[2]
# The client knows no configuration: whoever makes one says how it asks.
APART = ("scripts/milepost/client/",)


def defaults_of(node):
    """Every key of a schema that has a default, also below others, with the default."""
    for key, option in node.get("properties", {}).items():
        if option.get("default") is not None:
            yield key, option["default"]
        yield from defaults_of(option)


# Under the name of a schema's key, and no default of it.
OTHERS = {("scripts/make_task.py", "max_tokens")}  # stands in the file that it writes

KNOWN = {}
for schema in SCHEMAS.rglob("*.yaml"):
    for name, default in defaults_of(yaml.safe_load(schema.read_text())):
        KNOWN.setdefault(name, []).append(default)


def value_of(node, constants):
    """What an expression says outright, by a constant of its module or as a path too; None if it is computed."""
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Path" and len(node.args) == 1:
        node = node.args[0]
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return list(value) if isinstance(value, tuple) else value


def said(node):
    """The defaults that a piece of code gives: pairs of a name and an expression."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        first = len(names) - len(node.args.defaults)
        pairs = [*zip(names[first:], node.args.defaults, strict=True)]
        pairs += [
            (one.arg, value) for one, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value
        ]
        # A switch that is off, or a seed, is a function's own affair; a constructor is told what a campaign says.
        yield from pairs if node.name == "__init__" else [pair for pair in pairs if value_of(pair[1], {})]
    elif isinstance(node, ast.ClassDef):
        fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and one.value is not None]
        yield from ((ast.unparse(one.target), one.value) for one in fields)
    elif isinstance(node, ast.Dict) and None in node.keys:
        # {"samples": 1, **given}
        yield from (
            (key.value, value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        )
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        key = value_of(node.args[0], {})
        if node.func.attr in ("get", "setdefault", "pop") and len(node.args) == 2:
            yield key, node.args[1]
        elif node.func.attr == "add_argument" and isinstance(key, str):
            name = key.lstrip("-").replace("-", "_")
            yield from ((name, keyword.value) for keyword in node.keywords if keyword.arg == "default")


def second_defaults(text):
    """Defaults in a module that stand in a schema as well, under the same name."""
    tree = ast.parse(text)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    constants = {node.targets[0].id: node.value for node in assigned}
    for node in ast.walk(tree):
        for name, expression in said(node):
            value = value_of(expression, constants)
            if value is not None and value in KNOWN.get(name, []):
                yield name, f"line {expression.lineno}: {name} = {ast.unparse(expression)}"


FILES = [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "core_evals").rglob("*.py"), *(ROOT / "lm_eval").rglob("*.py")]
PYTHON = [path for path in FILES if not str(path.relative_to(ROOT)).startswith(APART)]


def test_no_default_of_a_schema_stands_in_the_code():
    found = [(str(path.relative_to(ROOT)), *second) for path in PYTHON for second in second_defaults(path.read_text())]
    assert [(path, line) for path, name, line in found if (path, name) not in OTHERS] == []


@pytest.mark.parametrize(
    "text",
    [
        "config.get('nemo_parallel', 2)",
        "MARGIN_S = 60.0\nconfig.get('walltime_margin_s', MARGIN_S)",
        "config = {'title': 'Checkpoint evaluation', **config}",
        "class Serving:\n    retries: int = 5",
        "class Containers:\n    caches: Path = Path('results/caches')",
        "class Scorer:\n    def __init__(self, *, ignore_case: bool = False): ...",
        "class Scorer:\n    def __init__(self, *, extra_wrong=()): ...",
        "def correct(p, correction='bh'): ...",
        "parser.add_argument('--concurrency', type=int, default=64)",
    ],
)
def test_a_second_default_is_found(text):
    assert list(second_defaults(text))
