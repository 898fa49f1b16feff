"""Endpoints on one server that many jobs of a campaign share; the first job that needs it starts it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from milepost.endpoints import Endpoint
from milepost.endpoints.shared_spec import SharedSpec, fields_of


@dataclass(frozen=True)
class Shared(SharedSpec):
    """The endpoint of a model that one server serves to many jobs."""

    @asynccontextmanager
    async def open(self, *, verified: bool = True) -> AsyncIterator[Endpoint]:
        """Open the endpoint, starting the server if none runs; it always has to show that it knows the key."""
        from milepost.endpoints.shared_client import open_shared

        async with open_shared(self) as endpoint:
            yield endpoint


def parse(name: str, entry: Mapping[str, Any], where: str) -> Shared:
    """Make the endpoint of an entry of config/endpoints.yaml that fits its schema.

    Raises:
        ConfigError: Keys that exclude each other.
    """
    return Shared(**fields_of(name, entry, where))
