"""Write config/README.md: every option of the configuration, as the schemas say it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from milepost.endpoints.specs import SCHEMA, providers
from milepost.errors import run_step
from milepost.schemas import SCHEMAS, load_schema

README = SCHEMAS.parent / "README.md"
INTRODUCTION = """\
# The configuration

A campaign is a folder with `config/`: what to evaluate. Where it runs (partition, account, GPU type) is said in
`profiles/`.

- `config.yaml`: which tasks, and how models are served
- `checkpoints.tsv`: which checkpoints, one a row
- `endpoints.yaml`: servers that somebody else runs, and models that many jobs share, if there are any
- `presets.yaml`: providers of your own, if there are any
- `tasks/`: one file for each task, named as the task
- `gates/`: conditions that a checkpoint must meet, for `scripts/gate.py`, if there are any

Everything is checked before anything runs. A key that is not in these tables is an error, and the message names the
nearest one that is.

This file is written by `make docs` from `config/schemas/`: change the descriptions there.
"""
# In the order in which a reader needs them; the scorers follow.
SCHEMAS_FIRST = (
    "config",
    "model_profile",
    "checkpoint",
    *(f"{SCHEMA}{provider}" for provider in providers()),
    "preset",
    "task_native",
    "task_nemo",
    "gate",
)


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    README.write_text(document(), encoding="utf-8")


def document() -> str:
    """The text of config/README.md."""
    names = [*SCHEMAS_FIRST, *sorted(f"scorers/{path.stem}" for path in (SCHEMAS / "scorers").glob("*.yaml"))]
    return "\n".join([INTRODUCTION, *(section(load_schema(name)) for name in names)])


def section(schema: dict[str, Any]) -> str:
    """A schema as a heading, its description and a table."""
    rows = ["| Key | Type | Default | Meaning |", "| :-- | :-- | :-- | :-- |"]
    for key, option, required in options(schema):
        default = "**required**" if required else code(json.dumps(option["default"])) if "default" in option else ""
        rows.append(f"| `{key}` | {cell(kind(option))} | {default} | {cell(option.get('description', ''))} |")
    return "\n".join([f"## {schema['title']}", "", schema["description"], "", *rows, ""])


def options(schema: dict[str, Any], inside: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every key of a schema with its own schema, and whether it must be there; those of nested objects with dots."""
    required = schema.get("required", [])
    for name, option in schema.get("properties", {}).items():
        yield inside + name, option, name in required
        # A schema that stands by itself (a title) has a table of its own.
        if "title" not in option:
            yield from options(option, f"{inside}{name}.")


def kind(option: dict[str, Any]) -> str:
    """The values that an option takes, in words.

    >>> kind({"type": "integer", "minimum": 1})
    'integer, from 1'
    >>> kind({"enum": ["chat", None]})
    '`chat` or `null`'
    >>> kind({"type": "array", "items": {"type": "string"}})
    'list of string'
    """
    if "const" in option:
        return code(plain(option["const"]))
    if "enum" in option:
        return " or ".join(code(plain(value)) for value in option["enum"])
    if "oneOf" in option:
        return " or ".join(kind(one) for one in option["oneOf"])
    if option.get("type") == "array":
        return f"list of {kind(option['items'])}" if "items" in option else "list"
    if option.get("type") == "object":
        values = option.get("additionalProperties")
        if not values:
            return "mapping"
        return f"mapping of names to {'mappings, see below' if 'title' in values else kind(values)}"
    types = option.get("type", "anything")
    words = types if isinstance(types, str) else " or ".join(types)
    low = f", from {option['minimum']}" if "minimum" in option else ""
    above = f", above {option['exclusiveMinimum']}" if "exclusiveMinimum" in option else ""
    high = f", up to {option['maximum']}" if "maximum" in option else ""
    return words + low + above + high


def plain(value: Any) -> str:
    """A value as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def code(text: str) -> str:
    """Text as code."""
    return f"`{text}`"


def cell(text: str) -> str:
    """Text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    run_step(main)
