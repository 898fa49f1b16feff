"""Whose fault a refusal is, against a server that refuses as providers do."""

import asyncio

import pytest
from test_client import GOOD, Server

from milepost.client.client import Client, Reply, RequestError
from milepost.client.refusals import Fault, read_refusal

EVIL = {"model": "m", "messages": [{"role": "user", "content": "evil"}], "max_tokens": 7, "seed": 3}


class Picky(Server):
    """Answers by what is asked: `refuses` of a body is a script's entry, or None."""

    def __init__(self, refuses):
        super().__init__(200)
        self.refuses = refuses

    async def handle(self, request):
        body = await request.json()
        self.script = [self.refuses(body) or 200]
        return await super().handle(request)


def text_of(body):
    return body["messages"][0]["content"]


def said(status, message, **more):
    return {"status": status, "body": {"error": {"message": message, **more}}, "headers": more.pop("headers", {})}


def play(server, *bodies, path="/chat/completions", **options):
    options = {"pause_s": 0.001, "retries": 1, **options}

    async def asked():
        async with server.running() as url, Client(url, "k", **options) as client:
            calls = [client.post(path, body) for body in bodies]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    "entry",
    [
        said(402, "Insufficient credits. Add more"),
        said(401, "Incorrect API key provided"),
        said(404, "The model `m` does not exist"),
        said(429, "You exceeded your current quota, please check your plan", code="insufficient_quota"),
        said(429, "You exceeded your current quota, please check your plan and billing details."),
        said(400, "Your credit balance is too low to access the Anthropic API."),
        said(403, "Your account is not active, please check your billing details", code="billing_not_active"),
        said(503, "upstream: insufficient_quota"),
        {"status": 200, "body": {"error": {"code": 402, "message": "This request requires more credits"}}},
    ],
)
def test_the_accounts_fault_is_no_requests(entry):
    server = Picky(lambda body: entry)
    (error,) = play(server, EVIL)
    assert (error.fault, error.error["type"]) == (Fault.ENDPOINT, "endpoint")
    assert len(server.bodies) == 1, "it costs no further try"


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (said(403, "Your prompt was flagged by moderation"), "filtered"),
        (
            said(
                400,
                "The response was filtered due to the prompt triggering Azure's content management policy",
                code="content_filter",
            ),
            "filtered",
        ),
        (said(400, "Output blocked by content filtering policy"), "filtered"),
        (said(413, "Request too large"), "refused"),
        (said(422, "prompt is empty"), "refused"),
        (said(400, "Invalid 'messages[0].content': string too long"), "refused"),
        (said(403, "no"), "refused"),
        (said(418, "?"), "refused"),
        (said(400, "This model's maximum context length is 9 tokens"), "context"),
    ],
)
def test_one_requests_fault_is_an_answer_of_its_own(entry, kind):
    server = Picky(lambda body: entry if text_of(body) == "evil" else None)
    error, reply = play(server, EVIL, {**EVIL, "messages": [{"role": "user", "content": "good"}]})
    assert (error.fault, error.lasting, error.error["type"]) == (Fault.REQUEST, True, kind)
    assert isinstance(reply, Reply)


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (
            said(
                400, "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
            ),
            "form",
        ),
        (said(422, "Extra inputs are not permitted: seed"), "form"),
        (said(403, "Country not supported"), "endpoint"),
    ],
)
def test_what_a_harmless_question_meets_as_well_is_no_requests_fault(entry, kind):
    server = Picky(lambda body: entry)
    (error,) = play(server, EVIL)
    assert (error.fault, error.error["type"]) == (Fault.ENDPOINT, kind)
    assert [text_of(body) for body in server.bodies] == ["evil", "Say yes."]
    assert server.bodies[1] == {**EVIL, "messages": server.bodies[1]["messages"]}, "all else is as it was asked"


def test_what_a_task_says_before_every_question_is_part_of_the_form():
    system = {"role": "system", "content": "evil"}
    server = Picky(lambda body: said(400, "strange") if body["messages"][0]["content"] == "evil" else None)
    (error,) = play(server, {**EVIL, "messages": [system, {"role": "user", "content": "good"}]})
    assert (error.fault, error.error["type"]) == (Fault.ENDPOINT, "form")
    assert server.bodies[1]["messages"] == [system, {"role": "user", "content": "Say yes."}]


def test_who_will_ask_in_another_form_needs_no_harmless_question():
    server = Picky(lambda body: said(400, "no json_schema here"))

    async def asked():
        async with server.running() as url, Client(url, "k") as client:
            await client.post("/chat/completions", EVIL, judged=False)

    with pytest.raises(RequestError) as error:
        asyncio.run(asked())
    assert (error.value.fault, len(server.bodies)) == (Fault.REQUEST, 1)


def test_credit_that_ends_between_a_refusal_and_the_harmless_question_is_no_requests_fault():
    server = Picky(lambda body: said(400, "unknown trouble") if text_of(body) == "evil" else said(402, "pay"))
    (error,) = play(server, EVIL)
    assert (error.fault, error.error["type"]) == (Fault.ENDPOINT, "endpoint")
    assert "402: pay" in str(error)


def test_a_server_in_trouble_says_nothing_about_a_request():
    server = Picky(lambda body: said(400, "strange") if text_of(body) == "evil" else 503)
    (error,) = play(server, EVIL)
    assert (error.fault, error.error["type"]) == (Fault.PASSING, "server")


def test_refusals_at_the_same_time_share_a_harmless_question():
    server = Picky(lambda body: said(400, "strange") if "evil" in text_of(body) else {"wait_s": 0.2})
    bodies = [{**EVIL, "seed": at, "messages": [{"role": "user", "content": f"evil {at}"}]} for at in range(20)]
    errors = play(server, *bodies)
    assert {error.fault for error in errors} == {Fault.REQUEST}
    assert sum(text_of(body) == "Say yes." for body in server.bodies) <= 2


@pytest.mark.parametrize("harmless", [None, {"wait_s": 9}])
def test_a_request_that_takes_too_long_is_told_from_a_server_that_is_gone(harmless):
    server = Picky(lambda body: {"wait_s": 9} if text_of(body) == "evil" else harmless)
    (error,) = play(server, EVIL, retries=0, timeout_s=0.3)
    assert (error.fault, error.error["type"]) == (Fault.PASSING, "timeout" if harmless is None else "connection")


def test_googles_limit_for_each_minute_is_not_the_end_of_credit():
    waits = b'[{"error": {"code": 429, "message": "You exceeded your current quota. Please retry in 3s."}}]'
    assert read_refusal(429, waits).fault is Fault.PASSING
    ended = b'{"error": {"code": 429, "message": "You exceeded your current quota."}}'
    assert read_refusal(429, ended).fault is Fault.ENDPOINT
    assert read_refusal(429, ended, comes_again=True).fault is Fault.PASSING


@pytest.mark.parametrize("code", [429, 503, "429", None, "rate_limit", 7])
def test_an_error_inside_a_200_is_tried_again(code):
    entries = iter([{"body": {"error": {"message": "Provider returned error", "code": code}}}])
    server = Picky(lambda body: next(entries, None))
    (reply,) = play(server, EVIL)
    assert reply.body == GOOD
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completions", {"prompt": "evil"}),
        ("/embeddings", {"input": ["evil", "good"], "encoding_format": "float"}),
        ("/rerank", {"query": "evil", "documents": ["a", "b"]}),
        ("/score", {"text_1": ["evil"], "text_2": ["a"]}),
        ("/embed", {"inputs": ["evil"]}),
    ],
)
@pytest.mark.parametrize("all_of_them", [False, True])
def test_embedders_and_rerankers_alike(path, body, all_of_them):
    server = Picky(lambda asked: said(400, "no") if all_of_them or "evil" in str(asked) else {"body": {"data": []}})
    (error,) = play(server, {"model": "m", **body}, path=path)
    assert error.fault is (Fault.ENDPOINT if all_of_them else Fault.REQUEST)
    assert server.paths == [f"/v1{path}"] * 2


def test_a_pause_of_nothing_does_not_use_up_the_tries():
    server = Server({"status": 429, "headers": {"Retry-After": "0"}})
    (error,) = play(server, EVIL, retries=3, pause_s=0.1)
    assert isinstance(error, RequestError)
    assert server.times[-1] - server.times[0] > 0.3, "0.1, 0.2 and 0.4 s, each by half at least"
