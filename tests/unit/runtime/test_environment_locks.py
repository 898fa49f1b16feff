"""The locks of envs/, and the check of the machine before they are installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ENVS = Path(__file__).parents[3] / "envs"
NAMES = sorted(path.parent.name for path in ENVS.glob("*/requirements.in"))


def requirements(path: Path) -> dict[str, str]:
    """Name to version condition, of a requirements file and those that it includes."""
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            found |= requirements(path.parent / line.removeprefix("-r "))
        elif match := re.match(r"([A-Za-z0-9._-]+)([^;#\\]*)", line):
            found[match[1].lower().replace("_", "-")] = match[2].strip()
    return found


def lock(name: str) -> str:
    return (ENVS / name / "requirements.lock").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_lock_holds_no_address_and_no_path(name):
    code = [line for line in lock(name).splitlines() if not line.lstrip().startswith("#")]
    assert not re.search(r"https?:|file:|index-url|find-links|\s@\s", lock(name))
    assert not [line for line in code if "/" in line]
    assert not re.search(r"#.*\s/", lock(name)), "a comment names a path of the machine that wrote it"


@pytest.mark.parametrize("name", NAMES)
def test_each_requirement_is_pinned_with_hashes(name):
    pinned = requirements(ENVS / name / "requirements.lock")
    for package, condition in requirements(ENVS / name / "requirements.in").items():
        assert pinned[package].startswith("=="), f"{package} is not pinned: make lock"
        if re.fullmatch(r"==[^*]+", condition):
            assert pinned[package] == condition, f"{package} was changed without `make lock`"
    for block in re.split(r"\n(?=[a-z0-9])", lock(name).split("\n", 2)[2]):
        assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("name", NAMES)
def test_torch_and_gpu_builds_are_in_no_lock(name):
    heavy = [
        p for p in requirements(ENVS / name / "requirements.lock") if re.match(r"(torch|triton|cuda-|nvidia-c)", p)
    ]
    assert heavy == []


def test_torch_version_stands_in_one_place():
    version = (ENVS / "torch.txt").read_text().strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    others = [
        path for path in ENVS.glob("*") if path.is_file() and path.name != "torch.txt" and version in path.read_text()
    ]
    assert others == []


def test_checks_move_no_package_of_the_workflow():
    workflow = requirements(ENVS / "workflow" / "requirements.lock")
    moved = {p: v for p, v in requirements(ENVS / "dev" / "requirements.lock").items() if workflow.get(p, v) != v}
    assert moved == {}


# check_machine.py lies with the environments, not in the package: it runs before anything is installed.
spec = importlib.util.spec_from_file_location("check_machine", ENVS / "check_machine.py")
check_machine = importlib.util.module_from_spec(spec)
sys.modules["check_machine"] = check_machine
spec.loader.exec_module(check_machine)

GOOD = check_machine.Machine("Linux", "x86_64", frozenset({"avx", "avx2"}), 16.0, 50.0, (2, 36), True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"system": "Darwin", "architecture": "arm64"}, "it is Darwin on arm64"),
        ({"cpu_flags": frozenset({"avx"})}, "no AVX2"),
        ({"memory_gib": 3.8}, "3.8 GiB of memory"),
        ({"disk_gib": 1.0}, "1.0 GiB are free"),
        ({"glibc": (2, 28)}, "glibc 2.28"),
        ({"glibc": None}, "no glibc"),
        ({"has_libnuma": False}, "apt-get install libnuma1"),
    ],
)
def test_obstacles_of_a_machine_are_named(change, said):
    obstacles = check_machine.find_obstacles(replace(GOOD, **change))
    assert len(obstacles) == (0 if said is None else 1)
    assert said is None or said in check_machine.explain(obstacles)


def test_setup_refuses_at_once_and_says_what_can_be_done(tmp_path):
    for name in ["setup.sh", "check_machine.py", "torch.txt"]:
        shutil.copy(ENVS / name, tmp_path)
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags : fpu sse4_2 avx\n")
    done = subprocess.run(
        ["bash", tmp_path / "setup.sh", "workflow", "vllm"],
        env=os.environ | {"MILEPOST_CPUINFO": str(tmp_path / "cpuinfo"), "MILEPOST_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no AVX2" in done.stderr
    assert "snakemake --profile slurm" in done.stderr
    assert not (tmp_path / "workflow").exists()


@pytest.mark.parametrize(("names", "said"), [([], "name the environments"), (["vlm"], "no environment 'vlm'")])
def test_setup_names_what_there_is(names, said):
    done = subprocess.run(["bash", ENVS / "setup.sh", *names], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert set(NAMES) <= set(re.findall(r"[\w.-]*\w", done.stderr))


@pytest.mark.parametrize(
    "shell", [{"CDPATH": "."}, {"PIP_USER": "1"}, {"PYTHONPATH": "/nowhere", "PIP_TARGET": "/nowhere"}]
)
def test_the_shell_that_calls_does_not_change_set_up(shell):
    """What is there is left alone, whatever the shell says."""
    said = subprocess.run(
        ["envs/setup.sh", "nothing"],
        cwd=ENVS.parent,
        env={**os.environ, **shell},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.startswith("envs/setup.sh: there is no environment 'nothing'.")
