"""Can this machine run vLLM's CPU build? Says what is missing before anything is downloaded.

Usage: check_machine.py FOLDER, where FOLDER is where the environments go. Needs nothing but Python.
MILEPOST_CPUINFO and MILEPOST_MEMINFO name files to read instead of /proc/cpuinfo and /proc/meminfo.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
# A server with the demo's model took 2.7 GB; the workflow, the harness and the system want their part.
MEMORY_GIB = 5.5
# All environments take 5.5 GB (3.3 where uv can link them to its cache), and the cache 3.1.
DISK_GIB = 8
# The highest that a wheel of the lock asks for (llguidance, manylinux_2_31).
GLIBC = (2, 31)


@dataclass(frozen=True)
class Machine:
    """What decides whether vLLM's CPU build runs."""

    system: str
    architecture: str
    cpu_flags: frozenset[str]
    memory_gib: float
    disk_gib: float
    glibc: tuple[int, int] | None
    has_libnuma: bool


def read_machine(folder: Path) -> Machine:
    """Read what this machine is."""
    cpuinfo = _read(os.environ.get("MILEPOST_CPUINFO", "/proc/cpuinfo"))
    meminfo = _read(os.environ.get("MILEPOST_MEMINFO", "/proc/meminfo"))
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    memories = [int(memory[1]) * 1024 if memory else 0, *([int(limit)] if limit.isdigit() else [])]
    libc, version = platform.libc_ver()
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cpu_flags=frozenset(flags[1].split() if flags else []),
        memory_gib=min(memories) / GIB,
        disk_gib=shutil.disk_usage(folder).free / GIB,
        glibc=_version(version) if libc == "glibc" else None,
        has_libnuma=_has_library("libnuma.so.1"),
    )


def find_obstacles(machine: Machine) -> list[str]:
    """Everything that is in the way, each as a clause that says what there is and what is needed."""
    if machine.system != "Linux" or machine.architecture != "x86_64":
        return [f"it is {machine.system} on {machine.architecture}, and the build is for Linux on x86_64"]
    obstacles = []
    # The build brings kernels for AVX2 and for AVX-512, and picks them at run time; below AVX2 there are none.
    if "avx2" not in machine.cpu_flags:
        obstacles.append("its processor has no AVX2")
    if machine.glibc is None or machine.glibc < GLIBC:
        has = "no glibc" if machine.glibc is None else "glibc {}.{}".format(*machine.glibc)
        obstacles.append(f"it has {has}, and the packages need {GLIBC[0]}.{GLIBC[1]} or newer")
    if not machine.has_libnuma:
        obstacles.append("libnuma.so.1 is missing (Debian and Ubuntu: apt-get install libnuma1; Red Hat: numactl-libs)")
    if machine.memory_gib < MEMORY_GIB:
        obstacles.append(f"it has {machine.memory_gib:.1f} GiB of memory, and a server and its clients need 6")
    if machine.disk_gib < DISK_GIB:
        obstacles.append(f"{machine.disk_gib:.1f} GiB are free on the disk of envs/, and {DISK_GIB} are needed")
    return obstacles


def explain(obstacles: list[str]) -> str:
    """One paragraph: what is missing, and what can be done."""
    return (
        f"vLLM's CPU build cannot run on this machine: {'; '.join(obstacles)}. "
        "What can be done: run the demo on a machine that has this; or, where there is a GPU, make envs/vllm/.venv with "
        "vLLM's own build for it (docs/checkpoints.md) and evaluate your own checkpoints; or do so on a cluster "
        "(snakemake --profile slurm). Everything but serving models works here: envs/setup.sh workflow."
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    found = find_obstacles(read_machine(Path(sys.argv[1])))
    if found:
        sys.exit(explain(found))
