"""Checks data against the closed schemas of config/schemas: a misspelt key is an error that names similar keys."""

from __future__ import annotations

import codecs
import math
import os
import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from milepost.errors import ConfigError, UnknownKeyError, did_you_mean, why_unreadable
from milepost.paths import WORKFLOW

SCHEMAS = WORKFLOW / "config" / "schemas"
BOMS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


class _Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML, in which a key may stand once: of two, the first would be forgotten without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping of distinct keys; what it merges in (`<<`) may be overwritten."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice in one mapping", key_node.start_mark
                )
            seen |= {key} if key else set()
        return dict(super().construct_mapping(node, deep=deep))

    def construct_plain(self, node: Any) -> Any:
        """A number, but the text itself where only YAML 1.1 takes it for one: 010 for 8, 1:30 for 90."""
        if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
            return node.value
        kind = str(node.tag).rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Strict.add_constructor(f"tag:yaml.org,2002:{_kind}", _Strict.construct_plain)


def check(data: Any, schema: str, where: str) -> None:
    """Check data against config/schemas/{schema}.yaml.

    `retired` beside an `enum` says what to do about words that it once had.

    Raises:
        UnknownKeyError: A key that the schema does not have, with the nearest one that it has.
        ConfigError: Any other disagreement, also a number or a text that no file or server takes.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    for name, problem in _unusable(data, ()):
        raise ConfigError(f"{where}: {'.'.join(name) or 'the file'} is wrong: {problem}")
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
    if error.validator == "pattern" and "expected" in error.schema:
        raise ConfigError(f"{where}: {place or 'the file'} is wrong: {error.instance!r}. {error.schema['expected']}")
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
    options = node["properties"].items()
    return {key: option["default"] for key, option in options if option.get("default") is not None}


def with_defaults(data: Mapping[str, Any], schema: str, *inside: str) -> dict[str, Any]:
    """Fill in the defaults of a schema, those within its parts as well: what reads the result has no defaults of its own.

    >>> with_defaults({"tasks": ["a"], "figures": {"band": "sem"}}, "config")["figures"]
    {'band': 'sem', 'smoothing': 0}
    """
    node = load_schema(schema)
    for key in inside:
        node = node["properties"][key]
    parts = [key for key, option in node["properties"].items() if "properties" in option]
    filled = {key: with_defaults(data.get(key) or {}, schema, *inside, key) for key in parts}
    return {**defaults(schema, *inside), **data, **{key: part for key, part in filled.items() if part or key in data}}


def of_schema(schema: str, *keys: str, made: Callable[[Any], Any] = lambda value: value) -> Any:
    """A field of a dataclass whose default is that of a key in a schema, where alone it stands.

    Args:
        schema: The schema's name.
        keys: The key, after those that it stands under.
        made: Makes the field's value of the default.
    """
    *inside, key = keys
    return field(default_factory=lambda: made(defaults(schema, *inside)[key]))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        ConfigError: Missing, not YAML or with a key that stands twice (with the line), or not a mapping.
    """
    text = read_text(path, "Run from a campaign's folder.")
    try:
        data = yaml.load(text, Loader=_Strict)  # noqa: S506 (it is safe)
    except (yaml.YAMLError, ValueError) as error:
        # A value error: what looks like a date or a number and is none, such as 2024-02-30.
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise ConfigError(f"{path} is not a configuration: it is nested too deeply.") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} does not hold a mapping of keys to values.")
    if _holds_itself(data, frozenset()):
        raise ConfigError(
            f"{path} is not a configuration: an alias (*) stands within what it stands for. Write it out."
        )
    return data


def check_as_read(path: Path) -> None:
    """See that a file of the configuration, which Snakemake read, says what Snakemake took from it.

    Raises:
        ConfigError: As `read_yaml`; or something that only YAML 1.1, which Snakemake reads, takes for a number.
    """
    data = read_yaml(path)
    read = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    for place, written, number in _differences(data, read, ()):
        raise ConfigError(
            f"{path}: {'.'.join(place)} is {written}, which YAML 1.1 takes for the number {number}. Put it in quotes if it is"
            " a text; else write the number itself."
        )


def _differences(one: Any, other: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(one, dict):
        for (key, inner), outer in zip(one.items(), other.values(), strict=False):
            yield from _differences(inner, outer, (*place, str(key)))
    elif isinstance(one, list):
        for number, (inner, outer) in enumerate(zip(one, other, strict=False)):
            yield from _differences(inner, outer, (*place, str(number)))
    elif type(one) is not type(other):
        yield place, one, other


def _holds_itself(data: Any, above: frozenset[int]) -> bool:
    """Whether a mapping or list stands somewhere within itself."""
    if not isinstance(data, dict | list):
        return False
    inner = data.values() if isinstance(data, dict) else data
    return id(data) in above or any(_holds_itself(one, above | {id(data)}) for one in inner)


def read_text(path: Path, missing: str) -> str:
    """The text of a file of the configuration.

    Args:
        path: The file.
        missing: What to do where there is none, as a sentence.

    Raises:
        ConfigError: It is missing, a folder, cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{why_unreadable(path, error)} {missing}") from None
    encoding = next((name for mark, name in BOMS.items() if data.startswith(mark)), None)
    try:
        text = data.decode("utf-8-sig")  # spreadsheets and editors put a byte order mark first
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"It is {encoding}" if encoding else f"Line {line} holds the byte 0x{data[error.start]:02x}"
        raise ConfigError(f"{path} is not UTF-8. {what}: save the file as UTF-8 text.") from None
    if "\0" in text:
        raise ConfigError(
            f"{path} is not UTF-8 text: it holds zero bytes, as UTF-16 does. Save the file as UTF-8 text."
        )
    return text


def expand(data: Any, schema: str, where: str) -> Any:
    """Data with `~` and `$VARIABLE` filled in, wherever the schema says `format: path`.

    Raises:
        ConfigError: A variable that is not set.
    """
    return _expand(data, load_schema(schema), where)


def expand_path(path: str, where: str) -> str:
    """A path with `~` and `$VARIABLE` filled in, as the shell would.

    Raises:
        ConfigError: A variable that is not set, or braces, which rules take for wildcards.
    """
    if not path.isprintable():
        raise ConfigError(f"{where} names {path!r}, which holds a character that cannot be seen. Take it out.")
    full = os.path.expandvars(os.path.expanduser(path))
    left = re.search(r"\$(\w+|\{\w+\})", full)
    if left:
        raise ConfigError(f"{where} names {path!r}, but {left[0]} is not set. Set it, or write the path itself.")
    if full.startswith("~"):
        raise ConfigError(f"{where} names {path!r}, but there is no such home folder. Write the path itself.")
    if "{" in full or "}" in full:
        raise ConfigError(
            f"{where} names {full!r}. Braces mean something else to Snakemake: rename the folder or file."
        )
    return full


def check_names(names: Iterable[str], where: str) -> None:
    """See that names, which file results, stay apart on file systems that do not tell upper from lower case.

    Raises:
        ConfigError: Two that differ in case only.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ConfigError(
                f"{where}: {other!r} and {name!r} differ in case only. Names file results, and some file systems fold"
                " these together: rename one."
            )


def _expand(data: Any, schema: Any, where: str) -> Any:
    if isinstance(data, str):
        return expand_path(data, where) if schema.get("format") == "path" else data
    if isinstance(data, list):
        return [_expand(one, schema.get("items", {}), where) for one in data]
    if not isinstance(data, dict):
        return data
    named, others = schema.get("properties", {}), schema.get("additionalProperties")
    others = others if isinstance(others, dict) else {}
    return {key: _expand(value, named.get(key, others), f"{where}, {key}") for key, value in data.items()}


def _unusable(data: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where data holds what a schema does not see and no file or server takes: NaN, huge numbers, broken text."""
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str) and not (isinstance(key, int) and not isinstance(key, bool)):
                yield place, f"the key {key!r} is no text. Put it in quotes."
            yield from _unusable(value, (*place, str(key)))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from _unusable(value, (*place, str(number)))
    elif isinstance(data, float) and not math.isfinite(data):
        yield place, f"{data} is no number to compute with."
    elif isinstance(data, int) and not -(2**63) <= data < 2**63:
        yield place, f"{data if abs(data) < 10**40 else 'this number'} does not fit into 64 bits."
    elif isinstance(data, str) and any(unicodedata.category(sign) == "Cs" for sign in data):
        yield place, "it holds half of a character (a lone surrogate), which no file can."
    elif isinstance(data, str) and any(unicodedata.category(sign) == "Cc" and sign not in "\n\r\t" for sign in data):
        yield place, f"{data[:80]!r} holds a control character. Take it out."
    elif data is not None and not isinstance(data, (str, int, float, bool)):
        yield place, f"{data} is a {type(data).__name__}, where a text or a number is expected. Put a text in quotes."
