"""Presets of providers, and what is learnt by asking."""

import asyncio
import re
from pathlib import Path

import pytest
import yaml
from aiohttp import web

import check_endpoint
from milepost.client.shape import Shape
from milepost.endpoints import Endpoint
from milepost.endpoints.adapting import adapted, line_of
from milepost.endpoints.open import open_endpoint
from milepost.endpoints.presets import known_presets, preset_at
from milepost.endpoints.specs import load_endpoints
from milepost.errors import ConfigError, EndpointError

DOCUMENT = Path(__file__).parents[3] / "docs" / "endpoints.md"
USUAL = "openai azure anthropic google mistral openrouter together ollama lm_studio llama_cpp tgi sglang".split()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A campaign's folder."""
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name="endpoints", **entries):
    Path(f"config/{name}.yaml").write_text(yaml.safe_dump(entries))


def table():
    """The table of providers in docs/endpoints.md, as the facts make it."""
    rows = ["| `preset` | address | key | what is different | source |", "| :-- | :-- | :-- | :-- | :-- |"]
    for name, facts in known_presets().items():
        shape = Shape(facts.get("parameters", {}))
        said = [f"`{line_of(shape)}`"] if shape.parameters else []
        said += [f"`{key}: {facts[key]}`" for key in ("key_header", "extra_body") if key in facts]
        said += [facts["note"]] if "note" in facts else []
        key = f"`{facts['key_env']}`" if "key_env" in facts else "none"
        cells = f"`{name}`", f"`{facts['url']}`", key, "; ".join(said), f"[{facts['title']}]({facts['source']})"
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows).replace("': ", ": ").replace("{'", "{").replace("False", "false")


def test_the_table_of_providers_says_what_the_facts_say():
    text = DOCUMENT.read_text()
    begin, end = "<!-- presets: made from scripts/milepost/endpoints/presets.yaml -->\n", "\n<!-- end of presets -->"
    assert text.partition(begin)[2].partition(end)[0] == table()


def test_the_common_providers_are_there_each_with_its_source():
    assert list(known_presets()) == USUAL
    assert all(facts["source"].startswith("https://") for facts in known_presets().values())


@pytest.mark.parametrize("name", [name for name in USUAL if name != "azure"])
def test_an_entry_of_a_preset_needs_a_model_only(name, monkeypatch):
    write(one={"provider": "external", "preset": name, "model": "m"})
    spec = load_endpoints()["one"]
    assert spec.url == known_presets()[name]["url"]
    assert spec.key_env == known_presets()[name].get("key_env")


def test_what_the_entry_says_goes_before():
    entry = {"url": "http://127.0.0.1:9/v1", "key_env": "MINE", "parameters": {}}
    write(one={"provider": "external", "preset": "openai", "model": "m", **entry})
    spec = load_endpoints()["one"]
    assert (spec.url, spec.key_env, spec.shape.parameters) == ("http://127.0.0.1:9/v1", "MINE", {})


def test_azure_wants_an_address_of_ones_own():
    write(one={"provider": "external", "preset": "azure", "model": "m"})
    with pytest.raises(ConfigError, match=re.escape("https://{RESOURCE}.openai.azure.com/openai/v1")):
        load_endpoints()
    write(one={"provider": "external", "preset": "azure", "model": "m", "url": "https://eu.openai.azure.com/openai/v1"})
    assert load_endpoints()["one"].shape.key_header == "api-key"


def test_a_preset_of_ones_own():
    write("presets", house={"title": "Ours", "url": "http://127.0.0.1:9/v1", "source": "https://wiki/llm"})
    write(one={"provider": "external", "preset": "house", "model": "m"})
    assert load_endpoints()["one"].url == "http://127.0.0.1:9/v1"
    write(one={"provider": "external", "preset": "hose", "model": "m"})
    with pytest.raises(ConfigError, match=r"preset 'hose'\. Presets: openai, .*house.*Did you mean"):
        load_endpoints()


def test_a_preset_is_found_by_its_address():
    assert preset_at("https://api.openai.com/v1")["key_env"] == "OPENAI_API_KEY"
    assert preset_at("http://127.0.0.1:8080/v1") == {}, "whoever listens there may be anybody"


SAYS = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "seed": "Unrecognized request argument supplied: seed",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
}


def asked(refused, act):
    """What `act` returns of the address of a server that refuses these parameters, and the bodies that it got."""
    bodies = []

    async def handle(request):
        if request.method == "GET":
            return web.json_response({"data": [{"id": "m"}]})
        body = await request.json()
        bodies.append(body)
        found = next((name for name in refused if name in body), None)
        if found:
            return web.json_response({"error": {"message": SAYS[found]}}, status=400)
        return web.json_response({"model": "m", "choices": [{"message": {"content": "yes"}}]})

    async def play():
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            return await act(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        finally:
            await runner.cleanup()

    return asyncio.run(play()), bodies


@pytest.mark.parametrize(
    ("refused", "parameters"),
    [
        ((), {}),
        (("max_tokens",), {"max_tokens": "max_completion_tokens"}),
        (("seed",), {"seed": None}),
        (
            ("temperature", "max_tokens", "seed"),
            {"temperature": None, "max_tokens": "max_completion_tokens", "seed": None},
        ),
    ],
)
def test_all_that_an_endpoint_refuses_is_learnt(refused, parameters):
    async def act(url):
        return await adapted(Endpoint(url, "k", "m", "m"))

    (endpoint, said), bodies = asked(refused, act)
    assert endpoint.shape.parameters == parameters
    assert len(said) == len(refused)
    assert not set(refused) & set(bodies[-1])


def opened(refused, **entry):
    async def act(url):
        write(one={"provider": "external", "url": url, "model": "m", "adapt": True, **entry})
        async with open_endpoint(load_endpoints()["one"]) as endpoint:
            return endpoint

    return asked(refused, act)[0]


def test_a_job_adapts_where_that_changes_no_answer():
    endpoint = opened(("max_tokens", "seed"))
    assert endpoint.shape.parameters == {"max_tokens": "max_completion_tokens", "seed": None}


def test_a_temperature_is_not_left_out_unasked():
    with pytest.raises(EndpointError, match=re.escape("Write `parameters: {temperature: null}` into its entry")):
        opened(("temperature",))


def test_check_endpoint_says_the_line_to_write(capsys):
    async def act(url):
        write(one={"provider": "external", "url": url, "model": "m"})
        return await asyncio.to_thread(check_endpoint.main, [])

    asked(("max_tokens", "temperature"), act)
    said = capsys.readouterr().out
    assert "endpoint one: ok" in said
    assert "write `parameters: {max_tokens: max_completion_tokens, temperature: null}` into its entry" in said
