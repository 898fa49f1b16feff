"""docs/architecture.md agrees with the code: its layers, the files that it names, and the files of its five changes."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "scripts" / "milepost"
CHANGES = dict(re.findall(r"^### (.+)\n((?:(?!^#).*\n)*)", PAGE, re.MULTILINE))
# What a campaign makes is not here.
MADE = "results/"


def layers_of_the_linter():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [re.split(r" [:|] ", layer) for layer in layers]


def paths_in(text):
    """The files and folders that a text names in backticks."""
    named = re.findall(r"`([\w.-]+(?:/[\w.-]*)+|[\w-]+\.(?:md|toml)|Snakefile)`", text)
    return sorted({path for path in named if not path.startswith(MADE) or path == "results/README.md"})


def test_the_layers_are_those_that_the_linter_holds():
    table = PAGE.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", table, re.MULTILINE)
    assert [row.split(", ") for row in rows if row != "layer"] == layers_of_the_linter(), (
        "docs/architecture.md lists other layers than pyproject.toml: bring its table of rooms up to date"
    )


def test_every_module_of_the_package_is_in_a_layer():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == {name for layer in layers_of_the_linter() for name in layer}


def test_there_are_five_changes_with_their_files():
    assert len(CHANGES) == 5
    for title, text in CHANGES.items():
        assert len(paths_in(text)) >= 3, f"the change {title!r} names too few files"


@pytest.mark.parametrize("path", paths_in(PAGE))
def test_each_file_that_the_page_names_exists(path):
    pattern = re.sub("NAME|TASK|CKPT", "*", path.rstrip("/"))
    assert list(ROOT.glob(pattern)), f"docs/architecture.md names {path}, and there is no such file"


def test_the_other_page_names_files_that_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    made = {"config/tasks/ifevl.yaml", "tests/unit/ROOM/"}
    assert [path for path in paths_in(page) if path not in made and not (ROOT / path).exists()] == []
