"""What endpoints of others will cost is said before they are asked."""

from pathlib import Path

import pytest
import yaml

from milepost.client.bills import BILLS
from milepost.endpoints.specs import load_endpoints
from milepost.errors import ConfigError
from milepost.evaluation.work import requests_of
from milepost.preflight.campaign import load_campaign
from milepost.preflight.costs import CostEstimate, check_budget, estimate_costs, render_costs
from milepost.records import write_record
from milepost.tasks import build_prompts

PRICE = {"input": 2.0, "output": 10.0}


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """Makes a campaign with a checkpoint at an API, of four items of 40 bytes and replies of 100 tokens at most."""
    monkeypatch.chdir(tmp_path)
    Path("config/tasks").mkdir(parents=True)
    line = '{"id": "i%d", "messages": [{"role": "user", "content": "%s"}], "target": "x"}\n'
    Path("items.jsonl").write_text("".join(line % (at, "x" * 36) for at in range(4)))
    spec = {"version": 1, "data": "items.jsonl", "sampling": {"max_tokens": 100}, "scorer": {"name": "exact_match"}}
    Path("config/tasks/t.yaml").write_text(yaml.safe_dump(spec))
    Path("config/checkpoints.tsv").write_text("name\tendpoint\nc\tapi\n")

    def make(config=None, **entry):
        whole = {"provider": "external", "model": "m", "url": "https://x.org/v1", **entry}
        Path("config/endpoints.yaml").write_text(yaml.safe_dump({"api": whole, "unused": whole}))
        Path("config/config.yaml").write_text(yaml.safe_dump({"tasks": ["t"], **(config or {})}))
        return load_campaign()

    return make


def missing(campaign):
    return {"c": requests_of(build_prompts(campaign.tasks["t"]), "digest")}


def test_what_is_missing_costs_its_prompts_and_replies(campaign):
    made = campaign(price=PRICE, budget=0.001)
    (one,) = estimate_costs(made, missing(made))
    assert (one.left, one.cost) == (4, 0)
    # Role and text: 40 bytes, so ten tokens, and never more than 40 and a template's 16.
    assert one.likely == pytest.approx(4 * (10 * 2 + 100 * 10) / 1e6)
    assert one.most == pytest.approx(4 * (56 * 2 + 100 * 10) / 1e6)
    said = render_costs([one], None)
    assert "WARNING: the budget of api (0.001) will probably end the asking early." in said


def test_replies_are_as_long_as_they_were(campaign):
    made = campaign(price=PRICE)
    write_record(BILLS, {"endpoints": {"api": {"calls": 10, "tokens_in": 100, "tokens_out": 50, "cost": 3.5}}})
    (one,) = estimate_costs(made, missing(made))
    assert (one.calls, one.cost) == (10, 3.5)
    assert one.likely == pytest.approx(4 * (10 * 2 + 5 * 10) / 1e6)
    assert "Cost so far 3.50" in render_costs([one], 9.0)
    assert "The campaign's budget is 9.00." in render_costs([one], 9.0)


def test_verdicts_cost_what_a_judge_takes(campaign):
    campaign(price=PRICE)
    one = CostEstimate.of(load_endpoints()["api"], {})
    one.add_verdicts(10, 1000, 500)
    assert (one.left, one.likely) == (10, pytest.approx((1000 * 2 + 500 * 10) / 1e6))
    assert one.most == pytest.approx((4000 * 2 + 500 * 10) / 1e6)


def test_without_prices_nothing_is_said_and_a_budget_needs_them(campaign):
    made = campaign()
    assert estimate_costs(made, missing(made)) == []
    assert render_costs([], 3.0) == ""
    check_budget(made)
    with pytest.raises(ConfigError, match=r"has a budget, and api in config/endpoints.yaml"):
        check_budget(campaign({"budget": 3}))
    check_budget(campaign({"budget": 3}, price={"input": 0, "output": 0}))
