"""One task against an endpoint that is served already."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

import evaluate_endpoint
import make_task as make_task_command
from milepost.campaign.config import load_task
from milepost.endpoints import Endpoint
from milepost.endpoints.seen import Seen
from milepost.errors import ConfigError, RecordError, ServerError
from milepost.evaluation.asking import Asking
from milepost.evaluation.standalone import Target, evaluate_task, make_task
from milepost.evaluation.work import requests_of, sample_seed
from milepost.records import read_answers, read_scores, read_summary
from milepost.store.answers import read_settled
from milepost.tasks import build_prompts

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Peru": "Lima"}


@contextmanager
def serving(answer):
    """A server whose answers to a request's body are a text, or a status; yields its address and the bodies it got."""
    bodies, ready, address, runners = [], threading.Event(), [], []
    loop = asyncio.new_event_loop()

    async def handle(request):
        body = await request.json()
        bodies.append({"path": request.path, "authorization": request.headers["Authorization"], **body})
        said = answer(body)
        if isinstance(said, dict):
            return web.json_response(said, status=400)
        if isinstance(said, int):
            return web.json_response({"error": {"message": "no"}}, status=said)
        choice = {"finish_reason": "stop", "message": {"content": said}} if "messages" in body else {"text": said}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})

    async def start():
        app = web.Application()
        app.router.add_post("/{rest:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")
        ready.set()

    def run():
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield address[0], bodies
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runners[0].cleanup())
        loop.close()


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "capitals.jsonl"
    with open(path, "w") as file:
        for land, capital in CAPITALS.items():
            messages = [{"role": "user", "content": f"The capital of {land}?"}]
            file.write(json.dumps({"id": land, "messages": messages, "target": capital}) + "\n")
    return str(path)


def spec(items, **others):
    return {"data": items, "scorer": {"name": "exact_match"}, **others}


def target(url, **others):
    return Target(**{"url": url, "kind": "chat", "model": "m", "key": "k", "retries": 0, **others})


def test_the_same_requests_as_a_campaigns(tmp_path, items):
    with serving(lambda body: "Paris") as (url, bodies):
        task = make_task("t", spec(items, samples=2, system="Be brief.", sampling={"temperature": 0.5, "top_p": None}))
        summary = evaluate_task(task, target(f"{url}/v1/chat/completions"), tmp_path / "out")
    france = [body for body in bodies if "France" in body["messages"][1]["content"]]
    assert {body["seed"] for body in france} == {sample_seed(0, "France", 0), sample_seed(0, "France", 1)}
    del france[0]["seed"]
    assert france[0] == {
        "path": "/v1/chat/completions",
        "authorization": "Bearer k",
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "The capital of France?"},
        ],
        "temperature": 0.5,
        "max_tokens": 2048,
    }
    assert len(bodies) == 8
    assert read_summary(tmp_path / "out" / "summary.json")["value"] == summary["value"]
    assert (summary["value"], summary["stderr"], summary["n_items"], summary["n_samples"]) == (0.25, 0.25, 4, 8)
    assert summary["provenance"]["items_by_metric"] == {"exact_match": 4}
    answers = read_answers(tmp_path / "out" / "answers.jsonl")
    assert [(answer["id"], answer["sample"]) for answer in answers] == [(c, s) for c in CAPITALS for s in (0, 1)]


def test_a_refused_request_is_counted_and_never_a_zero(tmp_path, items):
    with serving(lambda body: 400 if "Peru" in body["messages"][0]["content"] else "Paris") as (url, _):
        summary = evaluate_task(make_task("t", spec(items)), target(url), tmp_path)
    assert (summary["value"], summary["n_items"], summary["n_errors"]) == (1 / 3, 3, 1)
    assert read_scores(tmp_path / "scores.jsonl")[3]["score"] is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            lambda body: 500 if "Peru" in body["messages"][0]["content"] else "Paris",
            "1 of 4 requests were not answered",
        ),
        (lambda body: 404, "Correct its address"),
        (lambda body: 401, "or the key"),
    ],
)
def test_without_all_answers_there_is_no_number(tmp_path, items, answer, said):
    (tmp_path / "summary.json").write_text('{"value": 1.0}\n')
    with serving(answer) as (url, _), pytest.raises(ServerError, match=said):
        evaluate_task(make_task("t", spec(items)), target(url), tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_answers_that_came_are_not_asked_for_again(tmp_path, items):
    states = iter([500])
    with serving(lambda body: next(states, "Paris") if "Peru" in body["messages"][0]["content"] else "Paris") as (
        url,
        bodies,
    ):
        with pytest.raises(
            ServerError, match="1 of 4 requests .*what was answered is kept, and the same command goes on"
        ):
            evaluate_task(make_task("t", spec(items)), target(url), tmp_path)
        summary = evaluate_task(make_task("t", spec(items)), target(url), tmp_path)
        assert len(bodies) == 5
        evaluate_task(make_task("t", spec(items)), target(url, model="another"), tmp_path)
        assert len(bodies) == 9, "another model's answers are its own"
    assert (summary["value"], summary["n_items"]) == (0.25, 4)


def test_a_server_that_is_not_there_ends_it_at_once(tmp_path, items):
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{place.getsockname()[1]}"
    with pytest.raises(ServerError, match="cannot be reached"):
        evaluate_task(make_task("t", spec(items)), target(url), tmp_path)


def test_items_must_fit_the_endpoint(tmp_path, items):
    with pytest.raises(RecordError, match="4 of 4 items .*'France'.* have 'messages', which .*'completions' does not"):
        evaluate_task(make_task("t", spec(items)), target("http://x", kind="completions"), tmp_path)


@pytest.mark.parametrize(("limit", "asked"), [(None, 4), (3, 3), (0.5, 2), (0.3, 2), (1, 1), (99, 4)])
def test_limit_is_a_number_or_a_share(items, limit, asked):
    task = make_task("t", spec(items), limit)
    assert min(task.limit or 4, 4) == asked


@pytest.mark.parametrize(
    ("others", "limit", "said"),
    [
        ({}, 0, "the limit is 0"),
        ({}, 2.5, "the limit is 2.5"),
        ({"samples": 0}, None, "samples is wrong"),
        ({"scorer": {"name": "exact_mach"}}, None, "Did you mean 'exact_match'"),
        ({"scorer": {"name": "exact_match", "strp": True}}, None, "Did you mean 'strip'"),
        ({"sampling": {"temperature": -1}}, None, "sampling.temperature is wrong"),
    ],
)
def test_wrong_options_are_said_before_anything_is_asked(items, others, limit, said):
    with pytest.raises(ConfigError, match=said):
        make_task("t", spec(items, **others), limit)


def test_by_hand(tmp_path, items, capsys, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    with serving(lambda body: "paris") as (url, bodies):
        options = f"--url {url} --type chat --model m --key-variable SOME_KEY --data {items} --limit 4 --out {tmp_path}"
        evaluate_endpoint.main([*options.split(), "--scorer", "{name: exact_match, ignore_case: true}"])
    assert bodies[0]["authorization"] == "Bearer secret"
    assert "m      exact_match  0.250  0.000 to 0.957      4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "scorer"),
    [("avert", {"name": "avert"}), ('{"name": "avert", "wrong": ["no"]}', {"name": "avert", "wrong": ["no"]})],
)
def test_a_scorer_by_name_or_with_options(text, scorer):
    assert evaluate_endpoint.read_scorer(text) == scorer


@pytest.mark.parametrize("text", ["{}", "[avert]", "{name: x", "3"])
def test_a_scorer_without_a_name_is_refused(text):
    with pytest.raises(ConfigError, match="has no name"):
        evaluate_endpoint.read_scorer(text)


def test_a_key_that_is_not_set_is_said():
    with pytest.raises(ConfigError, match="NO_SUCH_KEY, which should hold the endpoint's key, is not set"):
        evaluate_endpoint.read_key("NO_SUCH_KEY")


def test_an_endpoint_shows_no_key():
    assert "k" not in repr(target("http://x", key="k")).replace("kind", "")


def named(names):
    """Answers under names of models, one after the other."""
    given = iter(names)

    async def handle(request):
        await request.read()
        reply = {"choices": [{"message": {"content": "Paris"}}], "model": next(given), "system_fingerprint": "f"}
        return web.json_response(reply)

    return handle


def answered_by(names, accepts=(), known=None):
    """Ask four questions one after the other: the answers that were kept, and the name that was met."""
    kept, met = [], []

    async def play():
        app = web.Application()
        app.router.add_post("/{rest:.*}", named(names))
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        how = Asking(concurrency=1, timeout_s=5, retries=0, kept="Kept.", seen=Seen(known, met.append))
        prompts = build_prompts(make_task("t", spec("items.jsonl")))
        try:
            endpoint = Endpoint(url, "k", "m", "m", accepts=tuple(accepts))
            await how.ask(endpoint, requests_of(prompts, ""), lambda request, answer, final: kept.append(answer))
        finally:
            await runner.cleanup()

    try:
        asyncio.run(play())
    except ServerError as error:
        return kept, met, str(error)
    return kept, met, None


@pytest.fixture
def four(tmp_path, monkeypatch, items):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text(Path(items).read_text())


def test_a_gateway_that_passes_on_to_another_model_is_noticed(four):
    kept, met, error = answered_by(["m-2024", "m-2024", "cheap", "m-2024"])
    assert "answers as 'cheap' now, and answered as 'm-2024' before" in error
    assert [answer["model"] for answer in kept] == ["m-2024"] * 2, "the other's answer is not kept"
    assert met == ["m-2024"]


def test_a_name_that_was_met_before_holds_in_later_jobs(four):
    kept, met, error = answered_by(["m-2025"] * 4, known="m-2024")
    assert (kept, met) == ([], [])
    assert "accepts: [m-2025]" in error


def test_names_that_are_accepted_and_who_answered_are_kept(four):
    kept, _, error = answered_by(["m-2024", "m-2025", "m-2024", "m-2024"], accepts=["m-2025"])
    assert error is None
    assert [answer["model"] for answer in kept] == ["m-2024", "m-2025", "m-2024", "m-2024"]
    assert {answer["fingerprint"] for answer in kept} == {"f"}


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "parameters: {max_tokens: max_completion_tokens}",
        ),
        ("Unrecognized request argument supplied: seed", "parameters: {seed: null}"),
    ],
)
def test_a_parameter_that_the_endpoint_does_not_take_is_named_with_the_line_to_write(tmp_path, items, message, line):
    asked = []

    def refuse(body):
        asked.append(body)
        return {"error": {"message": message}}

    with serving(refuse) as (url, _), pytest.raises(ServerError) as error:
        evaluate_task(make_task("t", spec(items)), target(url, concurrency=1), tmp_path)
    assert f"write `{line}` into its entry in config/endpoints.yaml" in str(error.value)
    assert len(asked) == 2, "one question, and a harmless one"
    assert read_settled(tmp_path / ".answered.jsonl") == {}, "nothing is stored as refused"


REFUSALS = {
    "vllm": lambda limit: (
        f"This model's maximum context length is 100 tokens. However, you requested {limit + 60} tokens"
    ),
    "vllm, more than its context": lambda limit: f"max_tokens={limit} cannot be greater than max_model_len=100.",
    "openai": lambda limit: f"max_tokens is too large: {limit}. This model supports at most 90 completion tokens",
}


@pytest.mark.parametrize("interface", ["messages", "prompt"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_answer_is_cut_to_what_the_context_leaves(tmp_path, refusal, interface):
    """The limit first; where it is too large, none, which is the rest; a question that is too long by itself is an error."""

    def answer(body):
        text = str(body[interface])
        limit = body.get("max_tokens")
        if "Peru" in text:
            return {"error": {"message": "This model's maximum context length is 100 tokens. Your prompt contains 300"}}
        if "Japan" in text and limit is not None:
            return {"error": {"message": REFUSALS[refusal](limit)}}
        return "Tokyo" if "Japan" in text else "Paris"

    data = tmp_path / "items.jsonl"
    with open(data, "w") as file:
        for land, capital in CAPITALS.items():
            asked = {"prompt": land} if interface == "prompt" else {"messages": [{"role": "user", "content": land}]}
            file.write(json.dumps({"id": land, **asked, "target": capital}) + "\n")
    task = make_task("t", spec(str(data), sampling={"max_tokens": "rest", "at_most": 50}))
    with serving(answer) as (url, bodies):
        kind = "completions" if interface == "prompt" else "chat"
        summary = evaluate_task(task, target(url, kind=kind), tmp_path / "out")
    limits = [body.get("max_tokens", "none") for body in bodies if "Japan" in str(body[interface])]
    assert limits[0] == 50
    assert limits[-1] == (None if interface == "prompt" else "none")
    assert {body["max_tokens"] for body in bodies if "France" in str(body[interface])} == {50}
    assert not any("at_most" in body for body in bodies)
    assert (summary["value"], summary["n_items"], summary["n_errors"]) == (pytest.approx(2 / 3), 3, 1)
    answers = {line["id"]: line for line in read_answers(tmp_path / "out" / "answers.jsonl")}
    assert answers["Peru"]["error"]["type"] == "context"
    assert summary["provenance"]["sampling"]["max_tokens"] == "rest"
    assert summary["provenance"]["sampling"]["at_most"] == 50


def test_all_that_the_context_leaves(tmp_path, items):
    with serving(lambda body: "Paris") as (url, bodies):
        evaluate_task(make_task("t", spec(items, sampling={"max_tokens": "rest"})), target(url), tmp_path / "out")
    assert not any({"max_tokens", "at_most"} & body.keys() for body in bodies)


def test_at_most_is_for_the_rest(items):
    with pytest.raises(ConfigError, match="`at_most` in `sampling` is for `max_tokens: rest`, and `max_tokens` is 9"):
        make_task("t", spec(items, sampling={"max_tokens": 9, "at_most": 5}))


QUESTIONS = "question,answer\nCapital of France?,Paris\nCapital of Italy?,Rome\nCapital of Peru?,Lima\n"


def capital(body):
    """Answers of a reasoning model's API: it takes no max_tokens and no temperature, and knows France and Italy only."""
    for name in ("max_tokens", "temperature"):
        if name in body:
            return {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model."}}
    asked = body["messages"][-1]["content"]
    return next((town for land, town in CAPITALS.items() if land in asked and land != "Peru"), "I do not know.")


def test_the_first_number_from_a_table_a_base_address_and_a_model(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("questions.csv").write_text(QUESTIONS)
    with serving(capital) as (url, bodies):
        evaluate_endpoint.main(["--url", f"{url}/v1", "--model", "m", "--data", "questions.csv"])
        asked = len(bodies)
        evaluate_endpoint.main(["--url", f"{url}/v1", "--model", "m", "--data", "questions.csv"])
    out, err = capsys.readouterr()
    assert "column 'question' is asked, 'answer' is the right answer" in err
    assert "'temperature' is not supported" in err
    assert "m      exact_match  0.667" in out
    assert "row-4" in out.partition("The worst of them:")[2]
    assert "Capital of Peru?" in out
    assert asked == 3 + 3, "a question that is answered at the third time, and three"
    assert len(bodies) == asked + 3, "what was answered is not asked again"
    assert read_summary("first-number/summary.json")["n_items"] == 3


def test_the_same_table_becomes_a_task(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("questions.csv").write_text(QUESTIONS)
    make_task_command.main(["--data", "questions.csv", "--name", "towns"])
    assert "Name towns under `tasks`" in capsys.readouterr().out
    task = load_task("towns")
    assert [item["target"] for item in build_prompts(task).prompts] == ["Paris", "Rome", "Lima"]
    with pytest.raises(ConfigError, match="exists already, and is not overwritten"):
        make_task_command.main(["--data", "questions.csv", "--name", "towns"])


def test_a_providers_usual_variable_is_taken_and_named_if_it_is_not_set(monkeypatch):
    monkeypatch.setenv("MISTRAL_API_KEY", "secret")
    assert evaluate_endpoint.read_key(None, {"key_env": "MISTRAL_API_KEY"}) == "secret"
    monkeypatch.delenv("MISTRAL_API_KEY")
    with pytest.raises(ConfigError, match=r"export MISTRAL_API_KEY=\.\.\."):
        evaluate_endpoint.read_key(None, {"key_env": "MISTRAL_API_KEY"})


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "answered 401: no"), (402, "its account has credit")],
)
def test_a_key_that_is_revoked_or_credit_that_ends_in_the_middle_loses_nothing(tmp_path, items, status, said):
    """What was answered is kept, nothing is stored of the refusals, and the same command goes on there."""
    asked = []

    def ends(body):
        asked.append(body)
        return status if len(asked) > 2 else "Paris"

    with serving(ends) as (url, _), pytest.raises(ServerError, match=said):
        evaluate_task(make_task("t", spec(items)), target(url, concurrency=1), tmp_path)
    assert len(read_settled(tmp_path / ".answered.jsonl")) == 2
