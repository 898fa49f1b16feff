"""Checks data against the closed schemas of config/schemas: a misspelt key is an error that names similar keys."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from milepost.errors import ConfigError, UnknownKeyError, did_you_mean
from milepost.paths import WORKFLOW

SCHEMAS = WORKFLOW / "config" / "schemas"


def check(data: Any, schema: str, where: str) -> None:
    """Check data against config/schemas/{schema}.yaml.

    `retired` beside an `enum` says what to do about words that it once had.

    Raises:
        UnknownKeyError: A key that the schema does not have, with the nearest one that it has.
        ConfigError: Any other disagreement.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(load_schema(schema)).iter_errors(data))
    if error is None:
        return
    place = ".".join(str(part) for part in error.absolute_path)
    inside = f" under {place!r}" if place else ""
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        unknown = [str(key) for key in error.instance if key not in known]
        raise UnknownKeyError(
            f"{where} has an unknown key {unknown[0]!r}{inside}. Keys there: {', '.join(known)}."
            f"{did_you_mean(unknown[0], known)} config/README.md describes them all."
        )
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        raise ConfigError(f"{where} lacks the key {missing[0]!r}{inside}. config/README.md describes it.")
    if error.validator == "enum" and str(error.instance) in error.schema.get("retired", {}):
        raise ConfigError(
            f"{where}: {place} names {error.instance!r}, which is gone. {error.schema['retired'][str(error.instance)]}"
        )
    described = error.schema.get("description") if isinstance(error.schema, dict) else None
    meaning = f" It means: {described}" if described else ""
    raise ConfigError(f"{where}: {place or 'the file'} is wrong: {error.message}.{meaning}")


@cache
def load_schema(name: str) -> dict[str, Any]:
    """A schema of config/schemas, with references to its neighbours resolved."""
    schema = read_yaml(SCHEMAS / f"{name}.yaml")

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if set(node) == {"$ref"}:
                return load_schema(str(node["$ref"]).removesuffix(".yaml"))
            return {key: resolve(value) for key, value in node.items()}
        return [resolve(value) for value in node] if isinstance(node, list) else node

    return dict(resolve(schema))


def defaults(schema: str, *inside: str) -> dict[str, Any]:
    """The defaults of a schema's keys, by name; of those below other keys where these are named.

    >>> defaults("task_native", "sampling")
    {'temperature': 0.7, 'max_tokens': 2048, 'seed': 0}
    """
    node = load_schema(schema)
    for key in inside:
        node = node["properties"][key]
    return {key: option["default"] for key, option in node["properties"].items() if "default" in option}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: Missing, not YAML (with the line), or not a mapping.
    """
    try:
        data = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (it is safe)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist (looked for in {Path.cwd()}). Run from a campaign's folder."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} does not hold a mapping of keys to values.")
    return data
