"""Which reasoning parser preflight names, by what a model's own files say."""

import json
import re

import pytest
from campaigns import Campaign

from milepost.preflight.campaign import load_campaign
from milepost.preflight.reasoning import KEPT, OF_FAMILY, OF_MARK, check_reasoning
from milepost.reasoning import split_reasoning
from milepost.runtime import environments

ASKS = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}{% if add_generation_prompt %}A: %s{% endif %}"
OPENS = ASKS.replace("%s", "<think>\n")
TAKES_OUT = ASKS.replace("%s", "")


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    made = Campaign(tmp_path / "campaign", tmp_path / "code", checkpoints="c1 m1", tasks=("t1",))
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environments, "_ENVS", tmp_path / "envs")
    return made


def marked(mark):
    return "{% for m in messages %}{{ m.content }}{% endfor %}{# #}{{ '" + mark + "' if false }}"


@pytest.mark.parametrize(
    ("family", "template", "parser"),
    [
        ("qwen3", TAKES_OUT, "qwen3"),
        ("qwen3_moe", OPENS, "qwen3"),
        ("qwen2", OPENS, "deepseek_r1"),
        ("llama", OPENS, "deepseek_r1"),
        ("of_tomorrow", TAKES_OUT, "qwen3"),
        ("deepseek_v3", OPENS, "deepseek_r1"),
        ("deepseek_v3", TAKES_OUT, "deepseek_v3"),
        ("glm4_moe", TAKES_OUT, "glm45"),
        ("ernie4_5_moe", TAKES_OUT, "ernie45"),
        ("minimax_m2", OPENS, "minimax_m2"),
        ("granitemoehybrid", TAKES_OUT, "granite"),
        ("step3p5", OPENS, "step3p5"),
        ("gpt_oss", marked("<|channel|>"), "openai_gptoss"),
        ("mistral3", marked("[THINK]"), "mistral"),
        ("seed_oss", marked("<seed:think>"), "seed_oss"),
        ("llama", marked("<thinking>"), None),
        ("llama", marked("no mark"), None),
    ],
)
def test_the_parser_that_fits_is_named(campaign, family, template, parser):
    campaign.write("m1/config.json", json.dumps({"model_type": family}))
    campaign.write("m1/tokenizer_config.json", json.dumps({"chat_template": template}))
    said = list(check_reasoning(load_campaign()))
    assert [check.state for check in said] == ["ok"] * (parser is not None)
    assert [re.search(r"--reasoning-parser (\w+)", check.found)[1] for check in said] == [parser] * len(said)


@pytest.mark.parametrize(("given", "state"), [("qwen_3", "warning"), ("qwen3", None)])
def test_a_parser_that_vllm_does_not_know_is_found_before_a_server_starts(campaign, given, state):
    campaign.profile(vllm_args={"reasoning-parser": given})
    said = list(check_reasoning(load_campaign()))
    assert [check.state for check in said] == [state] * (state is not None)
    assert all("Did you mean 'qwen3'?" in check.found for check in said)


def test_every_parser_that_can_be_named_is_one_of_vllm():
    assert {*OF_MARK.values(), *OF_FAMILY.values()} <= set(KEPT)


@pytest.mark.parametrize("mark", OF_MARK)
def test_scoring_knows_the_marks_of_every_parser(mark):
    begun = f"{mark}analysis<|message|>" if mark == "<|channel|>" else mark
    assert split_reasoning(f"{begun}let me").cut
