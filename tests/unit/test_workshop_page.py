"""The workshop's page agrees with its files. tests/cluster/test_workshop.py runs it."""

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "workshop"
PAGE = (FOLDER / "README.md").read_text()
COMMANDS = re.findall(r"^```(?:bash|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("script", COMMANDS)
def test_what_is_typed_is_bash(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_exercises_are_there_and_nothing_else():
    named = {Path(path).parts[0] for path in re.findall(r"~/workshop/([a-e]-[\w./-]+)", PAGE)} | {"e-interval.py"}
    assert named == {path.name for path in FOLDER.iterdir()} - {"README.md", "teacher"}
    assert [heading[1] for heading in re.findall(r"^## (\(.\))", PAGE, re.MULTILINE)] == list("abcde")
