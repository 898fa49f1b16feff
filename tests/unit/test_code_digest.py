"""A step's digest covers the modules that the step imports, and no other: by grimp, which import-linter rests on as well."""

import ast
import re
from pathlib import Path

import grimp
import pytest

from milepost import code_digest
from milepost.scorers import scorer_module, scorer_names

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
GRAPH = grimp.build_graph("milepost", exclude_type_checking_imports=True, cache_dir=None)
FILES = {
    ".".join(path.relative_to(SCRIPTS).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SCRIPTS / "milepost").rglob("*.py"))
}
# The scripts whose digests the rules and the package ask for.
ASKED = "".join(path.read_text() for path in [*(ROOT / "rules").glob("*.smk"), FILES["milepost.preflight.decides"]])
STEPS = sorted(set(re.findall(r"code(?:_of)?\(\"(\w+\.py)\"", ASKED)))
# What a task's scorer adds, which is loaded by its name.
CASES = [*((step,) for step in STEPS), *(("score_answers.py", scorer_module(name)) for name in scorer_names())]


def imported_by(text):
    """The modules of the package that a script imports, wherever in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def reached(script, *modules):
    """All modules behind a script: imported, their packages, and workers that are started by path."""
    waiting = [name for name in (*imported_by((SCRIPTS / script).read_text()), *modules) if name in FILES]
    found = set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        workers = re.findall(r"with_name\(\"(\w+)\.py\"\)", FILES[name].read_text())
        room = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
        waiting += [f"{room}.{worker}" for worker in workers]
        waiting += GRAPH.find_modules_directly_imported_by(name)
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


def test_the_steps_are_found():
    assert {"prepare_prompts.py", "collect_answers.py", "score_answers.py", "plot.py", "report.py"} <= set(STEPS)
    assert len(FILES) == len(GRAPH.modules) > 150


@pytest.mark.parametrize("step", CASES, ids="-".join)
def test_every_module_changes_the_digests_of_the_steps_that_import_it(step, monkeypatch):
    script, *modules = step
    edited = []
    monkeypatch.setattr(code_digest, "_syntax", lambda path: "edited" if path in edited else "as it was")

    def digest():
        return code_digest.code_digest(SCRIPTS / script, *modules)

    before = digest()
    changing = set()
    for name, path in FILES.items():
        edited[:] = [path]
        if digest() != before:
            changing.add(name)
    assert changing == reached(script, *modules)


def test_a_comment_changes_no_digest_and_code_does(tmp_path):
    script = tmp_path / "step.py"
    digests = []
    for text in ("a = 1\n", '"""A step."""\n\na = 1  # the first\n', "a = 2\n"):
        script.write_text(text)
        code_digest._tree.cache_clear()
        code_digest._syntax.cache_clear()
        code_digest._needed.cache_clear()
        digests.append(code_digest.code_digest(script))
    assert digests[0] == digests[1] != digests[2]
