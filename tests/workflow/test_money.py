"""A campaign over an API that costs money: what it will cost, did cost, and that it costs no more than it may."""

import csv
import json
import re
import sys
from collections.abc import Callable
from typing import Any

from campaigns import REPOSITORY, Campaign

sys.path.insert(0, str(REPOSITORY / "tests"))
import yaml
from providers import Server, serve


def ask(campaign: Campaign, server: Server, **options: Any) -> None:
    """Ask one model as two checkpoints: ten tokens in and five out make 15 for each answer."""
    price = {"input": 1_000_000, "output": 1_000_000}
    entry = {"provider": "external", "url": server.url, "model": "sound", "price": price, **options}
    campaign.write("config/endpoints.yaml", yaml.safe_dump({"api": entry}))
    campaign.sheet("c1 api 1, c2 api 2", "name endpoint generation")


def test_concurrent_jobs_share_a_budget_and_all_that_was_answered_is_kept(
    make_campaign: Callable[..., Campaign],
) -> None:
    with serve() as server:
        campaign = make_campaign(tasks=("t1", "t2"))
        ask(campaign, server, budget=110)
        said = campaign.run("plan").said
        # Two tasks of two items and samples for two checkpoints: prompts of 14 bytes (role and text), replies of 8 at most.
        assert re.search(r"^api +0 +0 +16 +\d+\.\d+ +\d+\.\d+ +110\.00$", said, re.M), said
        assert "WARNING: the budget of api (110.00) will probably end the asking early." in said
        run = campaign.run("--keep-going")
        assert run.rc == 1, run.said
        assert "The endpoint 'api' may not be asked any more in this campaign: budget is 110, and" in run.said
        assert "Traceback" not in run.said
        bills = json.loads((campaign.folder / "results/bills.json").read_bytes())["endpoints"]["api"]
        # A call may take some 38 and takes 15: it ends before 110, and not long before.
        answered = len(server.asked)
        assert bills["cost"] == 15 * bills["calls"] <= 110
        assert bills["calls"] >= 4
        assert bills["open"] == {}
        kept = sum(len(campaign.stored(ckpt, task)) for ckpt in ("c1", "c2") for task in ("t1", "t2"))
        assert kept == bills["calls"] == answered
        # With more of it, the rest is asked, and nothing twice.
        ask(campaign, server, budget=1000)
        run = campaign.run()
        assert run.rc == 0, run.said
        assert len(server.asked) == 16
        page = (campaign.folder / "results/report.html").read_text()
        assert "<b>240.00</b> paid to others" in page
        assert '<td class="n">240.00</td><td class="n">1,000.00</td>' in " ".join(page.split())
        assert re.search(r"^api +16 +240\.00 +0 +0 +0 +1,000\.00$", campaign.run("plan").said, re.M)
        rows = list(csv.DictReader((campaign.folder / "results/tables/scores.csv").open()))
        assert [row["value"] for row in rows] == ["1.0"] * 4


def test_a_campaign_with_a_budget_says_what_all_of_it_costs(make_campaign: Callable[..., Campaign]) -> None:
    with serve() as server:
        campaign = make_campaign(tasks=("t1",))
        ask(campaign, server)
        campaign.select("t1", budget=50)
        run = campaign.run("--keep-going")
        assert run.rc == 1
        assert "the campaign's budget is 50, and" in run.said
        assert json.loads((campaign.folder / "results/bills.json").read_bytes())["endpoints"]["api"]["cost"] <= 50
        entry = {"provider": "external", "url": server.url, "model": "sound"}
        campaign.write("config/endpoints.yaml", yaml.safe_dump({"api": entry}))
        run = campaign.run()
        assert run.rc == 1
        assert "has a budget, and api in config/endpoints.yaml say no price" in run.said
