"""Endpoints of others: named in config/endpoints.yaml, opened by name, asked in place of a server of one's own."""

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from milepost.campaign.identity import identify
from milepost.campaign.sheet import read_checkpoints
from milepost.client.client import Client
from milepost.endpoints import open as open_module
from milepost.endpoints.external import External
from milepost.endpoints.open import open_endpoint, probe
from milepost.endpoints.shared_server import address_of
from milepost.endpoints.specs import checkpoint_at, load_endpoints
from milepost.errors import ConfigError, EndpointError, ServerError, UnknownKeyError

KEY = "sk-a-key-of-the-tests"
HOSTED = {"provider": "external", "url": "http://127.0.0.1:9/v1", "model": "m"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A campaign's folder."""
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(**endpoints):
    """config/endpoints.yaml."""
    with open("config/endpoints.yaml", "w") as file:
        yaml.safe_dump(endpoints, file)


@asynccontextmanager
async def serve(models={"data": [{"id": "m"}]}, status=200, reply={"model": "m"}, key=KEY):  # noqa: B006 (nobody changes them)
    """A server; `seen` of what it yields are the requests that came, as method and path."""
    seen = []

    async def answer(request):
        seen.append(f"{request.method} {request.path}")
        if request.headers.get("Authorization") != f"Bearer {key}":
            return web.json_response({"error": {"message": "no"}}, status=401)
        if request.method == "POST":
            return web.json_response(reply)
        text = models if isinstance(models, str) else json.dumps(models)
        return web.Response(text=text, status=status, headers={"Location": "http://127.0.0.1:9/"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", seen
    finally:
        await runner.cleanup()


def opened(monkeypatch, model="m", kind="chat", given=KEY, **server):
    """Open the endpoint of a server: the endpoint, and the requests that this took."""
    monkeypatch.setenv("THE_KEY", given)

    async def play():
        async with serve(**server) as (url, seen):
            write(one={"provider": "external", "url": url, "key_env": "THE_KEY", "model": model, "kind": kind})
            async with open_endpoint(load_endpoints()["one"]) as endpoint:
                return endpoint, seen

    return asyncio.run(play())


def test_an_endpoint_is_opened_by_name(monkeypatch):
    endpoint, seen = opened(monkeypatch)
    assert (endpoint.key, endpoint.model, endpoint.name) == (KEY, "m", "m")
    assert KEY not in repr(endpoint)
    assert seen == ["GET /v1/models"], "nothing is asked that costs"


@pytest.mark.parametrize(
    ("server", "model"),
    [
        ({"models": {"data": [{"id": "other"}, {"id": "m"}]}}, "m"),
        ({"models": [{"id": "m"}]}, "m"),  # Together's
        ({"models": {"data": [{"id": "qwen3:latest"}]}}, "qwen3"),  # Ollama's
        ({"models": "not here", "status": 404}, "m"),
        ({"models": "not here", "status": 404, "reply": {"model": "m-2024-07-18"}}, "m"),
    ],
)
def test_servers_say_in_many_ways_what_they_serve(monkeypatch, server, model):
    assert opened(monkeypatch, model, **server)[0].model == model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given": "sk-not-it"}, r"refused the key in THE_KEY \(401\)\. Correct the key"),
        ({"model": "qwen"}, r"reports no model 'qwen'\. It reports: m\. Nothing was asked\. Correct 'model'"),
        ({"model": "mm"}, r"It reports: m\. Did you mean 'm'\?"),
        ({"models": "<html>hello</html>"}, r"no list of models as OpenAI's interface has it: <html>hello</html>\."),
        ({"models": {"data": "none"}}, r"no list of models"),
        ({"models": "no list", "status": 404, "reply": {"model": "other"}}, r"It reports: other\."),
        ({"models": "", "status": 307}, r"sends elsewhere \(307\), where the key is not sent after it"),
        ({"models": "\x1b[2Jbroken\n" * 99, "status": 400}, r"answered 400: \[2Jbroken \[2Jbroken"),
    ],
)
def test_whoever_is_another_is_not_asked(monkeypatch, options, message):
    with pytest.raises(EndpointError, match=message) as error:
        opened(monkeypatch, **options)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value)
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/v1", "could not be reached: Connection refused"),
        ("http://no-such-host.invalid/v1", "could not be reached"),
    ],
)
def test_nobody_answers_is_said_in_time(monkeypatch, url, message):
    monkeypatch.setattr(open_module.verify, "__defaults__", (1.0,))
    write(one={**HOSTED, "url": url})
    begun = time.monotonic()

    async def play():
        async with open_endpoint(load_endpoints()["one"]):
            raise AssertionError("it opened")

    with pytest.raises(EndpointError, match=message):
        asyncio.run(play())
    assert time.monotonic() - begun < 5


def test_a_server_that_starts_late_is_waited_for(monkeypatch):
    monkeypatch.setattr(open_module, "PAUSE_S", 0.1)
    states = iter([503, 503])

    async def play():
        async with serve() as (url, seen):
            send = open_module.send

            async def flaky(*args):
                status = next(states, None)
                return (status, "starting") if status else await send(*args)

            monkeypatch.setattr(open_module, "send", flaky)
            monkeypatch.setenv("THE_KEY", KEY)
            spec = External("one", "m", url=url, key_env="THE_KEY")
            async with open_endpoint(spec):
                return seen

    assert asyncio.run(play()) == ["GET /v1/models"]


@pytest.mark.parametrize(
    ("kind", "path"), [("chat", "/chat/completions"), ("embedding", "/embeddings"), ("reranker", "/rerank")]
)
def test_one_question_of_its_kind(monkeypatch, kind, path):
    monkeypatch.setenv("THE_KEY", KEY)

    async def play():
        async with serve() as (url, seen):
            spec = External("one", "m", kind=kind, url=url, key_env="THE_KEY")
            async with open_endpoint(spec) as endpoint:
                return await probe(endpoint, spec), seen

    latency, seen = asyncio.run(play())
    assert 0 < latency < 5
    assert seen[1:] == [f"POST /v1{path}"]


@pytest.mark.parametrize(
    ("entry", "kind", "message"),
    [
        ({**HOSTED, "provider": "openai"}, ConfigError, "the provider is 'openai'. Providers: external"),
        ({"provider": "external", "model": "m"}, ConfigError, "needs either a url, or a host and a port_file"),
        ({**HOSTED, "host": "h", "port_file": "p"}, ConfigError, "needs either a url, or a host"),
        ({**HOSTED, "ssh_config": "c"}, ConfigError, "has an ssh_config, but no host"),
        (
            {"provider": "external", "model": "m", "host": "-oProxyCommand=x", "port_file": "p"},
            ConfigError,
            "host is wrong",
        ),
        ({**HOSTED, "keyenv": "x"}, UnknownKeyError, "unknown key 'keyenv'.*Did you mean 'key_env'"),
        ({**HOSTED, "key_env": "A", "key_file": "b"}, ConfigError, "both key_env and key_file"),
        ({**HOSTED, "url": "http://host/v1/chat/completions"}, ConfigError, "up to `/v1` and no further"),
        ({**HOSTED, "url": "http://user:secret@host/v1"}, ConfigError, "No key stands in it"),
        ({**HOSTED, "kind": "judge"}, ConfigError, "'judge' is not one of"),
        ("http://host/v1", ConfigError, "the provider is None"),
    ],
)
def test_wrong_entries(entry, kind, message):
    write(one=entry)
    with pytest.raises(kind, match=message):
        load_endpoints()


@pytest.mark.parametrize(("leads_to", "said"), [("127.0.1.1", "leads to 127.0.1.1"), (None, "leads to no address")])
def test_a_server_that_is_reached_directly_needs_an_address(monkeypatch, leads_to, said):
    def look_up(host):
        if leads_to is None:
            raise OSError
        return leads_to

    monkeypatch.setattr("socket.gethostbyname", look_up)
    write(one={"provider": "shared", "model": "m", "reach": "direct"}, two={"provider": "shared", "model": "m"})
    known = load_endpoints()
    with pytest.raises(ServerError, match=rf"`reach: direct`, but the name of its node, .* {said}.*Take `reach` out"):
        address_of(known["one"])
    assert address_of(known["two"]) is None, "a socket, to which ssh leads"


def test_a_server_that_is_reached_directly_listens_there(monkeypatch):
    monkeypatch.setattr("socket.gethostbyname", lambda host: "10.77.0.11")
    write(one={"provider": "shared", "model": "m", "reach": "direct"})
    assert address_of(load_endpoints()["one"]) == "10.77.0.11"


def test_a_campaign_without_the_file_has_none():
    assert load_endpoints() == {}


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "not set or empty"),
        ("two words", 0o600, "holds no key: 9 characters"),
        (KEY, 0o640, "others than you may read its key file key .*chmod 600 key"),
        (None, 0, "cannot be read: No such file or directory"),
    ],
)
def test_keys_that_are_none(folder, content, mode, message):
    if content is not None:
        (folder / "key").write_text(content)
        (folder / "key").chmod(mode)
    write(one={**HOSTED, "key_file": "key"})
    with pytest.raises(EndpointError, match=message) as error:
        load_endpoints()["one"].read_key()
    assert not content or content not in str(error.value)


def test_a_key_file_of_ones_own(folder):
    (folder / "key").write_text(f"{KEY}\n")
    (folder / "key").chmod(0o600)
    write(one={**HOSTED, "key_file": "key"}, two=HOSTED)
    assert load_endpoints()["one"].read_key() == KEY
    assert load_endpoints()["two"].read_key() == "EMPTY"


SHEET = Path("config/checkpoints.tsv")


def sheet(columns, *rows):
    with SHEET.open("w") as file:
        file.write("\n".join(["\t".join(columns.split()), *("\t".join(row) for row in rows)]) + "\n")


def test_a_checkpoint_behind_an_endpoint_is_its_url_name_and_revision():
    sheet("name endpoint run step", ("c1", "one", "r", "5"))
    digests = []
    for change in ({}, {"concurrency": 2, "key_env": "X"}, {"revision": "2"}, {"model": "n"}, {"url": "http://h/v1"}):
        write(one={**HOSTED, **change})
        ckpt = read_checkpoints(SHEET, {}, checkpoint_at)["c1"]
        assert (ckpt.serving.gpus, ckpt.run, ckpt.step) == (0, "r", 5)
        digests.append(identify(ckpt)["digest"])
    assert digests[0] == digests[1], "how many at once, and the key, are no part of it"
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("columns", "row", "message"),
    [
        ("name endpoint", ("c1", "two"), "asks for endpoint 'two'. Endpoints in config/endpoints.yaml: one, vectors"),
        ("name endpoint", ("c1", "vectors"), "is external, of kind embedding. A checkpoint's is served by others"),
        ("name endpoint model", ("c1", "one", "folder"), "has an endpoint and a model"),
        ("name run", ("c1", "r"), "neither a model nor an endpoint"),
    ],
)
def test_rows_that_cannot_be(columns, row, message):
    write(one=HOSTED, vectors={**HOSTED, "kind": "embedding"})
    sheet(columns, row)
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_checkpoints(SHEET, {}, checkpoint_at)


AZURE = "https://x.openai.azure.com/openai/deployments/d?api-version=2024-10-21"


@pytest.mark.parametrize(
    "url",
    [
        "https://generativelanguage.googleapis.com/v1beta/openai/",
        AZURE,
        "http://127.0.0.1:8000/team/vllm",
        "http://h/v1/",
    ],
)
def test_base_addresses_need_not_end_in_v1(url):
    write(one={**HOSTED, "url": url})
    assert load_endpoints()["one"].url == url.rstrip("/")


def test_a_shape_reaches_the_server_and_is_part_of_who_answers_where_it_changes_answers(monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    shape = {
        "parameters": {"max_tokens": "max_completion_tokens", "seed": None},
        "extra_body": {"reasoning_effort": "low"},
        "headers": {"X-Team": "us"},
        "key_header": "api-key",
    }
    seen = []

    async def answer(request):
        seen.append(
            (request.headers.get("api-key"), request.headers.get("Authorization"), request.headers.get("X-Team"))
        )
        if request.method == "GET":
            return web.json_response({"data": [{"id": "m"}]})
        seen.append(await request.json())
        return web.json_response({"choices": []})

    async def play():
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        write(one={**HOSTED, "url": url, "key_env": "THE_KEY", **shape})
        try:
            async with (
                open_endpoint(load_endpoints()["one"]) as endpoint,
                Client(endpoint.url, endpoint.key, shape=endpoint.shape) as client,
            ):
                await client.post("/chat/completions", {"model": "m", "max_tokens": 5, "seed": 1, "temperature": 1})
        finally:
            await runner.cleanup()

    asyncio.run(play())
    assert seen[:2] == [(KEY, None, "us")] * 2
    assert seen[2] == {"model": "m", "max_completion_tokens": 5, "temperature": 1, "reasoning_effort": "low"}
    write(plain=HOSTED, renamed={**HOSTED, "parameters": shape["parameters"]}, other={**HOSTED, **shape})
    known = load_endpoints()
    assert (
        known["renamed"].identity == known["plain"].identity == {"url": HOSTED["url"], "model": "m", "revision": None}
    )
    assert (
        known["other"].identity.items()
        >= {"extra_body": {"reasoning_effort": "low"}, "headers": {"X-Team": "us"}}.items()
    )
