"""The cluster that up.sh brought up, projects on it, and what the tests measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cluster import CLUSTER, Cluster
from project import Project

MEASURED: list[str] = []


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The hosts."""
    if not (CLUSTER / "bin" / "as").exists():
        pytest.exit(
            "There is no test cluster. Run `make test-cluster` as root on Debian 12, or tests/cluster/up.sh first."
        )
    return Cluster()


@pytest.fixture(scope="session")
def make_project(cluster: Cluster) -> Iterator[Callable[..., Project]]:
    """Makes copies of the project for alice; what they run is ended at the end."""
    made: list[Project] = []

    def make(name: str, **serving: Any) -> Project:
        folder = CLUSTER / "shared" / name
        shutil.rmtree(folder, ignore_errors=True)
        made.append(Project(folder, cluster, **serving))
        return made[-1]

    yield make
    for project in made:
        project.end()


@pytest.fixture(scope="session")
def measured() -> Callable[[str], None]:
    """Notes a measurement; all of them are printed at the end."""
    return MEASURED.append


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    terminalreporter.section("measured on the cluster")
    for line in MEASURED:
        terminalreporter.write_line(line)
