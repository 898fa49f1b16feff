"""Estimates what endpoints of others will cost a campaign, and says what they did cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from milepost.campaign.types import Campaign, EndpointSpec
from milepost.client.bills import read_bills
from milepost.client.money import BYTES_PER_TOKEN, Tokens, likely_tokens, most_tokens
from milepost.endpoints.external import External
from milepost.endpoints.specs import load_endpoints
from milepost.errors import ConfigError, listed
from milepost.evaluation.work import Request
from milepost.preflight.campaign import scorer_of
from milepost.style import money
from milepost.terminal import columns


@dataclass
class CostEstimate:
    """What one endpoint did cost, and what the rest of the campaign is expected to add.

    Attributes:
        spec: The endpoint.
        calls: Calls that were answered.
        cost: What they did cost.
        left: Calls that are still to be made, retries aside.
        likely: What these will probably cost.
        most: More than they can cost.
        mean_out: Tokens of a reply, on average so far; None where none has come.
    """

    spec: External
    calls: float = 0.0
    cost: float = 0.0
    left: float = 0.0
    likely: float = 0.0
    most: float = 0.0
    mean_out: float | None = None

    @classmethod
    def of(cls, spec: External, bill: Mapping[str, Any]) -> CostEstimate:
        """The estimate of an endpoint with its bill, before anything that is missing is added."""
        calls = bill.get("calls", 0.0)
        mean = bill.get("tokens_out", 0.0) / calls if calls else None
        return cls(spec, calls, bill.get("cost", 0.0), mean_out=mean)

    def add(self, request: Request) -> None:
        """Add a question of ours that is not answered."""
        assert self.spec.price is not None
        body = self.spec.shape.body(request.body)
        self.left += 1
        self.likely += self.spec.price.of(likely_tokens(body, self.mean_out))
        self.most += self.spec.price.of(most_tokens(body))

    def add_verdicts(self, calls: int, tokens_in: float, tokens_out: float) -> None:
        """Add verdicts that a judge is still to give: a guess at the tokens of all prompts, and the most of all replies."""
        assert self.spec.price is not None
        said = tokens_out if self.mean_out is None else min(tokens_out, calls * self.mean_out)
        self.left += calls
        self.likely += self.spec.price.of(Tokens(tokens_in, said))
        # A token is a byte at least.
        self.most += self.spec.price.of(Tokens(tokens_in * BYTES_PER_TOKEN, tokens_out))


def priced(campaign: Campaign) -> dict[str, External]:
    """The endpoints of others that a campaign asks and that say what they cost, by name."""
    return {name: spec for name, spec in asked_endpoints(campaign).items() if spec.price is not None}


def asked_endpoints(campaign: Campaign) -> dict[str, External]:
    """The endpoints of others that a campaign asks, by name: its checkpoints', and its scorers'."""
    known = load_endpoints()
    named: list[EndpointSpec] = [ckpt.endpoint for ckpt in campaign.checkpoints.values() if ckpt.endpoint is not None]
    for task in campaign.native.values():
        needed = scorer_of(task).needs().endpoints
        named += [known[endpoint] for endpoint in needed if endpoint in known]
    return {spec.name: spec for spec in named if isinstance(spec, External)}


def check_budget(campaign: Campaign) -> None:
    """See that a campaign with a budget can tell what each endpoint costs.

    Raises:
        ConfigError: One says no price.
    """
    if campaign.config.get("budget") is None:
        return
    asked = asked_endpoints(campaign)
    without = sorted(name for name, spec in asked.items() if spec.price is None)
    if without or not asked:
        what = (
            f"{listed(without)} in config/endpoints.yaml say no price" if without else "no endpoint of others is asked"
        )
        raise ConfigError(
            f"config/config.yaml has a budget, and {what}: nobody could tell when it is spent. Add `price: {{input: …,"
            " output: …}` to each (0 for what is free), or take the budget out."
        )


def estimate_costs(
    campaign: Campaign,
    missing: Mapping[str, Iterable[Request]],
    verdicts: Iterable[tuple[str, int, float, float]] = (),
) -> list[CostEstimate]:
    """What each priced endpoint did cost, and what is expected.

    Args:
        campaign: The campaign.
        missing: By checkpoint, the questions of our own tasks that are not answered.
        verdicts: By judge, those that are still to be given: how many, and their tokens in and, at most, out.
    """
    specs = priced(campaign)
    if not specs:
        return []
    bills = read_bills().get("endpoints", {})
    found = {name: CostEstimate.of(spec, bills.get(name, {})) for name, spec in specs.items()}
    for ckpt in campaign.checkpoints.values():
        if ckpt.endpoint is not None and ckpt.endpoint.name in found:
            for request in missing.get(ckpt.name, ()):
                found[ckpt.endpoint.name].add(request)
    for judge, calls, tokens_in, tokens_out in verdicts:
        if judge in found and calls > 0:
            found[judge].add_verdicts(calls, tokens_in, tokens_out)
    return list(found.values())


def render_costs(costs: list[CostEstimate], budget: float | None) -> str:
    """The table of costs, and what it rests on."""
    if not costs:
        return ""
    rows = [("endpoint", "calls so far", "cost so far", "calls missing", "expected", "at most", "budget")]
    for one in costs:
        bound = "-" if one.spec.budget is None else money(one.spec.budget)
        rows.append(
            (
                one.spec.name,
                f"{one.calls:.0f}",
                money(one.cost),
                f"{one.left:.0f}",
                money(one.likely),
                money(one.most),
                bound,
            )
        )
    spent, expected = sum(one.cost for one in costs), sum(one.likely for one in costs)
    lines = [
        f"Cost so far {money(spent)}, and {money(expected)} expected, in the currency of the prices. Expected: prompts at"
        " 4 bytes a token, replies as long as they were on average so far, or as their limit; retries and runs of NeMo"
        " Evaluator aside."
    ]
    if budget is not None:
        lines.append(f"The campaign's budget is {money(budget)}.")
    bounds = [(f"of {one.spec.name}", one.cost + one.likely, one.spec.budget) for one in costs]
    for name, sum_, allowed in [*bounds, ("of the campaign", spent + expected, budget)]:
        if allowed is not None and sum_ > allowed:
            lines.append(f"WARNING: the budget {name} ({money(allowed)}) will probably end the asking early.")
    return "\n".join([*columns(rows, right=range(1, 7)), *lines])
