"""The cluster that up.sh brought up, projects on it, and what the tests measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from cluster import BEGUN, CLUSTER, Cluster
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """End what a test began, if it fails."""
    return (yield from ended_on_failure())


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, Any, Any]:
    """End what a fixture began, if it fails; what fixtures before it began goes on."""
    return (yield from ended_on_failure())


def ended_on_failure() -> Generator[None, Any, Any]:
    """Let a hook go on, and end what was begun meanwhile, if it fails."""
    before = len(BEGUN)
    try:
        return (yield)
    except BaseException:
        for end in reversed(BEGUN[before:]):
            end()
        del BEGUN[before:]
        raise


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    terminalreporter.section("measured on the cluster")
    for line in MEASURED:
        terminalreporter.write_line(line)
