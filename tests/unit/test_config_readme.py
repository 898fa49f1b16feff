import re

import pytest

import document_config
from milepost.schemas import SCHEMAS, load_schema


def test_the_readme_says_what_the_schemas_say():
    assert document_config.README.read_text() == document_config.document(), "config/README.md is old: run `make docs`"


NAMES = sorted(str(path.relative_to(SCHEMAS))[:-5] for path in SCHEMAS.rglob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_every_schema_is_in_a_table_with_its_meaning(name):
    schema = load_schema(name)
    text = document_config.document().partition(f"## {schema['title']}\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` \|(.*)\|$", text, re.M))

    def look(schema, inside=""):
        for key, option in schema["properties"].items():
            row = rows[inside + key]
            assert " ".join(option["description"].split()).replace("|", "\\|") in row
            assert ("**required**" in row) == (key in schema.get("required", []))
            if "properties" in option:
                look(option, f"{inside}{key}.")

    look(schema)
    assert all(row.count(" | ") == 2 for row in rows.values()), "a mark in a text would break its table"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"type": "string"}, "string"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, above 0, up to 1"),
        ({"type": ["integer", "number"]}, "integer or number"),
        ({"const": "nemo"}, "`nemo`"),
        (
            {"oneOf": [{"const": "choices"}, {"type": "array", "items": {"type": "string"}}]},
            "`choices` or list of string",
        ),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "mapping of names to string"),
        ({"type": "object", "additionalProperties": False}, "mapping"),
        ({}, "anything"),
    ],
)
def test_types_in_words(option, words):
    assert document_config.kind(option) == words
