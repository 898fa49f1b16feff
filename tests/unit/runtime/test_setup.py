"""envs/setup.sh, with a stand-in for uv: what it installs with, how often, and what the calling shell may not change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
# What a user's shell may hold, and what pip, uv, Python or `cd` would make of it.
FOREIGN = {
    "CDPATH": "/:/tmp",
    "CONDA_PREFIX": "/opt/conda",
    "PIP_CONSTRAINT": "/nowhere.txt",
    "PIP_PREFIX": "/nowhere",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_TARGET": "/nowhere",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "UV_CONSTRAINT": "/nowhere.txt",
    "UV_OVERRIDE": "/nowhere.txt",
    "UV_PYTHON": "2.7",
    "UV_REQUIRE_HASHES": "1",
    "UV_SYSTEM_PYTHON": "1",
    "VIRTUAL_ENV": "/nowhere",
}
UV = f"""#!/bin/bash
if [[ $1 == --version ]]; then echo uv 0.11.0; exit; fi
{{ echo "CALLED $*"; env | grep -E '^({"|".join(FOREIGN)}|PIP_USER)='; }} >>"$UV_LOG"
if [[ $1 == venv ]]; then
    sleep 0.5
    mkdir -p "${{@: -1}}/bin"
    printf '#!/bin/bash\\nexec "{sys.executable}" "$@"\\n' >"${{@: -1}}/bin/python"
    chmod +x "${{@: -1}}/bin/python"
fi
"""


class Clone:
    """A copy of envs/ in a folder of its own, whose path has a space."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.bin = folder / "a clone", folder / "uv.log", folder / "bin"
        shutil.copytree(REPOSITORY / "envs", self.folder / "envs", ignore=shutil.ignore_patterns(".*"))
        self.bin.mkdir()
        (self.bin / "uv").write_text(UV)
        (self.bin / "uv").chmod(0o755)
        self.log.write_text("")

    def start(self, **environment: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MILEPOST_", "PIP_", "UV_"))}
        paths = {"UV_LOG": str(self.log), "PATH": f"{self.bin}:/usr/bin:/bin"}
        return subprocess.Popen(
            ["envs/setup.sh", "workflow"], cwd=self.folder, env={**kept, **paths, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def installs(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith("CALLED venv")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def finish(process: subprocess.Popen[str]) -> str:
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return said


def test_nothing_of_the_calling_shell_gets_in(clone: Clone) -> None:
    finish(clone.start(**FOREIGN, PIP_USER="1"))
    lines = clone.log.read_text().splitlines()
    assert len(clone.installs()) == 1
    # pip's own configuration files may say `user` as well: only a variable overrides them.
    assert {line for line in lines if not line.startswith("CALLED")} == {"PIP_USER=0"}


def test_two_at_once_on_a_fresh_clone_install_once(clone: Clone) -> None:
    both = [clone.start(), clone.start()]
    said = "".join(map(finish, both))
    assert (len(clone.installs()), said.count("installing")) == (1, 1)


@pytest.mark.parametrize("name", ["my-python", "bin/my-python", "{absolute}"])
def test_the_chosen_python_is_remembered_wherever_it_is_called_from(clone: Clone, name: str, tmp_path: Path) -> None:
    """By its whole path: a name of PATH or of a folder means another Python to the next shell."""
    shim = tmp_path / "my bin" / "my-python"
    shim.parent.mkdir()
    shim.symlink_to(Path(sys.executable).resolve())
    (clone.folder / "bin").symlink_to(shim.parent)
    chosen = name.format(absolute=shim)
    first = clone.start(MILEPOST_PYTHON=chosen, PATH=f"{clone.bin}:{shim.parent}:/usr/bin:/bin")
    finish(first)
    assert "my-python" in clone.installs()[0]
    assert finish(clone.start()) == ""
    assert len(clone.installs()) == 1
    assert os.path.isabs((clone.folder / "envs/.milepost-python").read_text().strip())
