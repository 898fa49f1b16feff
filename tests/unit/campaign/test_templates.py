"""Whether a chat template opens a reasoning trace, read off the template itself."""

import json

import pytest

from milepost.campaign.identity import DigestCache
from milepost.campaign.templates import model_record, opens_reasoning
from milepost.campaign.types import Checkpoint, Serving

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
START = "{% if add_generation_prompt %}<|im_start|>assistant\n"
OPENS = TURNS + START + "<think>\n{% endif %}"
# As Qwen3's: the trace is opened and closed where thinking is switched off.
SWITCHED = (
    TURNS
    + START
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SWITCHED_OPENS = (
    TURNS + START + "<think>\n{% if not enable_thinking | default(true) %}\n</think>\n\n{% endif %}{% endif %}"
)
SPEAKS = "{{ bos_token }}You think within <think> tags.\n" + TURNS + START + "{% endif %}"


def checkpoint(folder, **options):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    return Checkpoint("a", str(folder), None, None, None, 1, Serving(vllm_args=options))


def opens(tmp_path, template, **options):
    ckpt = checkpoint(tmp_path / "model", **options)
    config = {"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(config))
    return opens_reasoning(ckpt, DigestCache(tmp_path / "digests.json"))


@pytest.mark.parametrize(
    ("template", "options", "found"),
    [
        (OPENS, {}, True),
        (OPENS.replace("<think>", "[THINK]"), {}, True),
        (SPEAKS, {}, False),
        (SWITCHED, {}, False),
        (SWITCHED, {"default-chat-template-kwargs": '{"enable_thinking": false}'}, False),
        (SWITCHED_OPENS, {}, True),
        (SWITCHED_OPENS, {"default-chat-template-kwargs": {"enable_thinking": False}}, False),
        (OPENS, {"reasoning-parser": "deepseek_r1"}, False),
        (OPENS, {"chat-template": TURNS + START + "{% endif %}"}, False),
        ([{"name": "default", "template": OPENS}, {"name": "rag", "template": TURNS}], {}, True),
        ("{{ raise_exception('no') }}", {}, None),
        ("{% if %}", {}, None),
        ("{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}<think>", {}, False),
        ("{{ strftime_now('%Y') }}{{ messages | tojson }}" + START + "<think>{% endif %}", {}, True),
        (None, {}, None),
    ],
)
def test_whether_a_template_opens_a_trace(tmp_path, template, options, found):
    assert opens(tmp_path, template, **options) is found


def test_a_template_in_files_of_its_own(tmp_path):
    ckpt = checkpoint(tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(OPENS)
    assert opens_reasoning(ckpt, DigestCache(tmp_path / "digests.json")) is True
    (tmp_path / "plain.jinja").write_text(TURNS)
    given = checkpoint(tmp_path / "model", **{"chat-template": str(tmp_path / "plain.jinja")})
    assert opens_reasoning(given, DigestCache(tmp_path / "digests.json")) is False


def test_it_is_looked_at_once_and_again_when_the_template_changes(tmp_path):
    ckpt = checkpoint(tmp_path / "model")
    file = tmp_path / "model/chat_template.jinja"
    file.write_text(OPENS)
    cache = DigestCache(tmp_path / "digests.json")
    assert opens_reasoning(ckpt, cache) is True
    known = dict(cache.digests)
    assert opens_reasoning(ckpt, cache) is True
    assert cache.digests == known
    file.write_text(TURNS + START + "{% endif %}")
    assert opens_reasoning(ckpt, cache) is False


def test_what_stands_in_a_models_record(tmp_path):
    ckpt = checkpoint(tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(OPENS)
    cache = DigestCache(tmp_path / "digests.json")
    assert model_record({"digest": "d"}, ckpt, {}, cache) == {"digest": "d", "reasoning": {"opened": True}}
    found = model_record({"digest": "d"}, ckpt, {"reasoning_marks": [["<a>", "</a>"]]}, cache)
    assert found["reasoning"] == {"opened": True, "marks": [("<a>", "</a>")]}
    hub = Checkpoint("a", "org/model", "0" * 40, None, None, 1, Serving())
    assert model_record({"digest": "d"}, hub, {}, cache) == {"digest": "d"}
