"""Digests of the code of steps: a step runs again when its code changes, and not when only a comment does."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]


def code_digest(script: Path, *modules: str) -> str:
    """Digest of a script and of all modules of this package that it imports, directly or not.

    It is taken over the syntax trees without docstrings, so comments, layout and documentation do not count.

    Args:
        script: The step's script, in the folder `scripts`.
        modules: Names of further modules that the step loads by name.

    Raises:
        FileNotFoundError: A module that does not exist.
    """
    digest = hashlib.sha256(_syntax(script.resolve()).encode())
    for path in closure(script, *modules):
        digest.update(f"\0{path.relative_to(SCRIPTS)}\0{_syntax(path)}".encode())
    return digest.hexdigest()


def closure(script: Path, *modules: str) -> list[Path]:
    """The files of this package that a script needs, sorted: what it and they import, and workers that they start."""
    waiting = [*_needed(script.resolve()), *(path for name in modules for path in _files(name))]
    needed: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in needed:
            needed.add(path)
            waiting.extend(_needed(path))
    return sorted(needed)


@cache
def _tree(path: Path) -> ast.Module:
    """The syntax tree of a file, without docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


@cache
def _syntax(path: Path) -> str:
    return ast.dump(_tree(path))


@cache
def _needed(path: Path) -> tuple[Path, ...]:
    """The files of this package that one file names: by an import, or as a worker that lies beside it."""
    return tuple(_named(_tree(path), path))


def _named(node: ast.AST, path: Path) -> Iterator[Path]:
    # Imports for types only decide nothing.
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _files(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield from _files(node.module)
        for alias in node.names:
            yield from _files(f"{node.module}.{alias.name}", optional=True)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "with_name":
        for argument in node.args:
            beside = isinstance(argument, ast.Constant) and str(argument.value).endswith(".py")
            if beside and isinstance(argument, ast.Constant):
                yield path.with_name(str(argument.value))
    for child in ast.iter_child_nodes(node):
        yield from _named(child, path)


def _files(module: str, *, optional: bool = False) -> Iterator[Path]:
    """The files that an import of a module of this package runs: its packages' and its own."""
    parts = module.split(".")
    if parts[0] != SCRIPTS.joinpath("milepost").name:
        return
    folder = SCRIPTS
    for number, part in enumerate(parts):
        if (folder / part / "__init__.py").is_file():
            folder /= part
            yield folder / "__init__.py"
        elif number == len(parts) - 1 and (folder / f"{part}.py").is_file():
            yield folder / f"{part}.py"
        elif not optional:
            raise FileNotFoundError(f"{module}: no such module in {SCRIPTS}")
