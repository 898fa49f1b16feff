import json

import pytest

from milepost.campaign.config import native_task, nemo_task
from milepost.errors import RecordError
from milepost.tasks import asks_chat, build_prompts, draw, with_system
from milepost.tasks.jsonl import read_items

CHAT = {"id": "a", "messages": [{"role": "user", "content": "?"}]}


@pytest.fixture
def data(tmp_path):
    """Writes items and gives their file's name."""

    def write(*items):
        path = tmp_path / "items.jsonl"
        path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
        return str(path)

    return write


def native(path, **spec):
    return native_task("t", {"version": 3, "data": path, "scorer": {"name": "exact_match"}, **spec}, "here")


def nemo(**spec):
    return nemo_task("n", {"version": 1, "harness": "nemo", "eval_type": "h.t", "metric": "m", **spec}, "here")


def test_items_are_read_as_they_are(data):
    items = [
        {**CHAT, "target": "x", "choices": ["x", "y"], "meta": {"cluster": "1"}},
        {"id": "b", "prompt": "Once", "target": ["x"]},
        {"id": "c", "messages": [{"role": r, "content": ""} for r in ("system", "user", "assistant", "user")]},
    ]
    assert read_items(data(*items)) == items


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({**CHAT, "mesages": []}, "unknown key 'mesages'. Keys of an item: id, messages, .* Did you mean 'messages'.*under 'meta'"),
        ({"prompt": "?"}, "needs an 'id'"),
        ({"id": 7, "prompt": "?"}, "needs an 'id', a text"),
        ({"id": "", "prompt": "?"}, "needs an 'id'"),
        ({"id": "a"}, "needs either 'messages'"),
        ({**CHAT, "prompt": "?"}, "needs either 'messages'"),
        ({"id": "a", "prompt": ""}, "'prompt' is not a text, or empty"),
        ({"id": "a", "prompt": ["?"]}, "'prompt' is not a text"),
        ({"id": "a", "messages": []}, "'messages' is not a list of messages, or empty"),
        ({"id": "a", "messages": "?"}, "'messages' is not a list"),
        ({"id": "a", "messages": ["?"]}, "a message is an object"),
        ({"id": "a", "messages": [{"role": "human", "content": "?"}]}, r"'role' \(system, user, assistant\)"),
        ({"id": "a", "messages": [{"role": "user"}]}, "a message is an object"),
        ({"id": "a", "messages": [{"role": "user", "content": "?", "name": "x"}]}, "a message is an object"),
        ({"id": "a", "messages": [{"role": "user", "content": None}]}, "the 'content' of a message is a text"),
        ({**CHAT, "id": "m", "meta": ["x"]}, "'meta' of item 'm' is a list. It is an object"),
        ({**CHAT, "id": "m", "meta": None}, "'meta' of item 'm' is null"),
        ({**CHAT, "id": "m", "meta": {"cluster": [1]}}, "'meta.cluster' of item 'm' is a list"),
        ({**CHAT, "id": "m", "target": None}, "'target' of item 'm' holds null. It is a text, or a list of texts"),
        ({**CHAT, "id": "m", "target": True}, "'target' of item 'm' holds true or false"),
        ({**CHAT, "id": "m", "target": {"text": "x"}}, "'target' of item 'm' holds an object"),
        ({**CHAT, "id": "m", "target": ["x", ["y"]]}, "'target' of item 'm' holds a list"),
        ({**CHAT, "id": "m", "target": 2.0}, r"'target' of item 'm' is the number 2\.0, .* Write it as a text, as \"2\""),
        ({**CHAT, "id": "m", "choices": "x"}, "'choices' of item 'm' is a text. It is a list of texts"),
        ({**CHAT, "id": "m", "choices": {"a": "x"}}, "'choices' of item 'm' is an object"),
        ({**CHAT, "id": "m", "choices": {"text": "x", "label": "A"}}, "'choices' of item 'm' is a text"),
        ({**CHAT, "id": "m", "choices": ["x", None]}, "'choices' of item 'm' holds null"),
        ('{"id": "a", "prompt": "?"', "is not JSON"),
        ("[]", "is not a JSON object"),
        ("", "is empty"),
        (CHAT | {"id": "first"}, "the id 'first' stands in line 1 already"),
    ],
)  # fmt: skip
def test_a_malformed_item_is_an_error_with_file_and_line(data, item, words):
    path = data({"id": "first", "prompt": "?"}, item)
    with pytest.raises(RecordError, match=f"{path}, line 2.*{words}"):
        read_items(path)


def test_a_number_is_its_text_and_choices_may_come_as_arc_has_them(data):
    choices = {"text": ["x", "y"], "label": ["A", "B"]}
    first, second = read_items(
        data({**CHAT, "target": 42, "choices": choices}, {**CHAT, "id": "n", "target": [1, 0.5, "x"]})
    )
    assert (first["target"], first["choices"]) == ("42", ["x", "y"])
    assert second["target"] == ["1", "0.5", "x"]


def test_data_that_is_a_folder(tmp_path):
    with pytest.raises(RecordError, match="is a folder"):
        read_items(str(tmp_path))


def test_no_items(data, tmp_path):
    with pytest.raises(RecordError, match=r"is empty\. A task needs"):
        read_items(data())
    with pytest.raises(RecordError, match="does not exist"):
        read_items(str(tmp_path / "nowhere.jsonl"))


def test_prompts_hold_all_that_is_asked(data):
    prompts = build_prompts(native(data(CHAT), samples=4, sampling={"temperature": 0, "stop": ["\n"]}, generation=2))
    assert prompts.header == {
        "task": "t", "kind": "native", "version": 3, "generation": 2, "samples": 4,
        "sampling": {"temperature": 0, "max_tokens": 2048, "seed": 0, "stop": ["\n"]},
    }  # fmt: skip
    assert prompts.prompts == [CHAT]


ITEMS = [{"id": str(n), "prompt": str(n)} for n in range(20)]


@pytest.mark.parametrize(
    ("own", "campaigns", "n"),
    [(None, None, 20), (5, None, 5), (None, 7, 7), (5, 7, 5), (7, 5, 5), (20, None, 20), (99, 50, 20)],
)
def test_a_limit_asks_for_fewer_and_says_so(data, own, campaigns, n):
    prompts = build_prompts(native(data(*ITEMS), **({"limit": own} if own else {})), campaigns)
    assert len(prompts.prompts) == n
    assert prompts.header.get("partial") == (None if n == 20 else {"limit": n, "of": 20})


def test_a_larger_limit_keeps_the_items_of_a_smaller_one_in_their_order():
    assert draw(ITEMS, 20) == ITEMS
    for n in range(1, 20):
        small, large = ([item["id"] for item in draw(ITEMS, size)] for size in (n, n + 1))
        assert len(small) == n
        assert set(small) < set(large)
        assert small == sorted(small, key=int)
    shuffled = draw(ITEMS[::-1], 8)
    assert {item["id"] for item in shuffled} == {item["id"] for item in draw(ITEMS, 8)}


def test_a_system_message_stands_before_the_items_own():
    assert with_system(CHAT, "Be brief.")["messages"] == [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]
    assert with_system({"id": "a", "prompt": "Once"}, "Be brief.")["prompt"] == "Be brief.\n\nOnce"
    assert len(CHAT["messages"]) == 1, "the item itself is not changed"


def test_system_messages_are_in_the_prompts(data):
    assert build_prompts(native(data(CHAT), system="S")).prompts[0]["messages"][0]["role"] == "system"
    assert build_prompts(native(data(CHAT), system="")).prompts[0]["messages"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("spec", "limit", "harness", "partial"),
    [
        ({}, None, {"eval_type": "h.t", "endpoint_type": "chat", "params": {}}, None),
        ({"limit": 5}, None, {"eval_type": "h.t", "endpoint_type": "chat", "params": {"limit_samples": 5}}, 5),
        (
            {"params": {"limit_samples": 9, "temperature": 0.5}, "endpoint_type": "completions"},
            4,
            {"eval_type": "h.t", "endpoint_type": "completions", "params": {"limit_samples": 4, "temperature": 0.5}},
            4,
        ),
        ({"params": {"limit_samples": 3}, "limit": 8}, 6, {"eval_type": "h.t", "endpoint_type": "chat", "params": {"limit_samples": 3}}, 3),
    ],
)  # fmt: skip
def test_a_harness_gets_its_configuration_and_a_limit_is_marked(spec, limit, harness, partial):
    prompts = build_prompts(nemo(samples=2, **spec), limit)
    assert prompts.prompts == []
    assert (prompts.header["kind"], prompts.header["samples"], prompts.header["harness"]) == ("nemo", 2, harness)
    # How many items the harness has, it does not say beforehand.
    assert prompts.header.get("partial") == (partial and {"limit": partial, "of": "?"})


def test_tasks_that_need_a_chat_template():
    assert asks_chat(native(""), [CHAT])
    assert asks_chat(native(""), [ITEMS[0], CHAT])
    assert not asks_chat(native(""), ITEMS)
    assert asks_chat(nemo(), [])
    assert not asks_chat(nemo(endpoint_type="completions"), [])
