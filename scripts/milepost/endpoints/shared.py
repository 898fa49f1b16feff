"""Endpoints that one server of this campaign answers for many of its jobs: whoever comes first starts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from milepost.endpoints import Endpoint
from milepost.endpoints.shared_spec import SharedSpec, fields_of


@dataclass(frozen=True)
class Shared(SharedSpec):
    """A model that one server serves to many jobs."""

    @asynccontextmanager
    async def open(self, *, verified: bool = True) -> AsyncIterator[Endpoint]:
        """The server, started if it does not run; it always has to show that it knows the key."""
        from milepost.endpoints.shared_client import open_shared

        async with open_shared(self) as endpoint:
            yield endpoint


def parse(name: str, entry: Mapping[str, Any], where: str) -> Shared:
    """The endpoint of an entry that its schema allows.

    Raises:
        ConfigError: Keys that exclude each other.
    """
    return Shared(**fields_of(name, entry, where))
