"""Providers of endpoints: one module and one schema each, and nothing else that knows them."""

import ast
import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from milepost import endpoints, schemas
from milepost.campaign.identity import identify
from milepost.campaign.sheet import read_checkpoints
from milepost.endpoints import specs
from milepost.endpoints.hosted import Hosted
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.specs import checkpoint_at, load_endpoints, providers
from milepost.errors import ConfigError, UnknownKeyError

WORKFLOW = Path(__file__).resolve().parents[3]
MODULE = """
from contextlib import asynccontextmanager
from dataclasses import dataclass

from milepost.campaign.types import EndpointSpec
from milepost.endpoints import Endpoint


@dataclass(frozen=True)
class Ferry(EndpointSpec):
    provider = "ferry"
    ours = False
    harbour: str = ""

    @property
    def identity(self):
        return {"harbour": self.harbour, "model": self.model}

    @asynccontextmanager
    async def open(self, *, verified=True):
        yield Endpoint(url=f"http://{self.harbour}/v1", key="k", model=self.model, name=self.name)


def parse(name, entry, where):
    return Ferry(name, entry["model"], "chat", harbour=entry["harbour"])
"""
SCHEMA = """
title: ferry
description: By ship.
type: object
additionalProperties: false
required: [provider, model, harbour]
properties:
  provider: {const: ferry}
  model: {type: string}
  harbour: {type: string}
"""


@pytest.fixture
def fourth(tmp_path, monkeypatch):
    """A provider more, by one module and one schema."""
    shutil.copytree(schemas.SCHEMAS, tmp_path / "schemas")
    (tmp_path / "schemas" / "endpoint_ferry.yaml").write_text(SCHEMA)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "ferry.py").write_text(MODULE)
    for module in (schemas, specs):
        monkeypatch.setattr(module, "SCHEMAS", tmp_path / "schemas")
    schemas.load_schema.cache_clear()
    monkeypatch.setattr(endpoints, "__path__", [*endpoints.__path__, str(tmp_path / "more")])
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    yield
    schemas.load_schema.cache_clear()


def test_a_fourth_provider_is_one_module_and_one_schema(fourth):
    entry = {"provider": "ferry", "model": "m", "harbour": "h"}
    Path("config/endpoints.yaml").write_text(json.dumps({"one": entry}))
    Path("config/sheet.tsv").write_text("name\tendpoint\nc1\tone\n")
    ckpt = read_checkpoints(Path("config/sheet.tsv"), {}, checkpoint_at)["c1"]
    assert identify(ckpt)["identity"] == {"endpoint": {"harbour": "h", "model": "m"}}
    assert ckpt.endpoint.versions() == {"engine": "ferry"}

    async def play():
        async with open_endpoint(ckpt.endpoint) as endpoint:
            return endpoint.url

    assert asyncio.run(play()) == "http://h/v1"
    Path("config/endpoints.yaml").write_text(json.dumps({"one": {**entry, "harbor": "h"}}))
    with pytest.raises(UnknownKeyError, match="unknown key 'harbor'.*Did you mean 'harbour'"):
        load_endpoints()
    Path("config/endpoints.yaml").write_text(json.dumps({"one": {**entry, "provider": "fery"}}))
    with pytest.raises(ConfigError, match=r"Providers: external, ferry, shared\. Did you mean 'ferry'"):
        load_endpoints()


def test_every_schema_has_a_module_that_reads_it():
    assert providers() == ["external", "shared"]
    folder = WORKFLOW / "scripts" / "milepost" / "endpoints"
    assert all("def parse(" in (folder / f"{name}.py").read_text() for name in providers())


def test_no_other_file_names_a_provider():
    names = {*providers(), Hosted.provider}
    naming = set()
    for path in (WORKFLOW / "scripts").rglob("*.py"):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.Constant) and node.value in names for node in ast.walk(tree)):
            naming.add(path.stem)
    for path in [WORKFLOW / "Snakefile", *(WORKFLOW / "rules").glob("*.smk")]:
        if re.search(rf"""["']({"|".join(names)})["']""", path.read_text()):
            naming.add(path.name)
    assert naming == {"external", "hosted", "shared_spec"}
