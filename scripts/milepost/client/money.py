"""What calls to an API cost: its prices, the tokens that a reply was billed for, and what a call can cost at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from milepost.client.refusals import HARMLESS

MILLION = 1_000_000
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
# Of a reply that nothing limits.
UNLIMITED = 16_384
# What a chat template adds to each message.
TEMPLATE = 16
BYTES_PER_TOKEN = 4.0  # a guess; a token is a byte at least


@dataclass(frozen=True)
class Tokens:
    """The tokens of one call; `cached` ones are among those of the prompt. `guessed`: no server has counted them."""

    prompt: float = 0.0
    completion: float = 0.0
    cached: float = 0.0
    guessed: bool = False


@dataclass(frozen=True)
class Price:
    """What an endpoint takes for a million tokens, in any currency; without `cached`, such tokens cost what others do."""

    input: float
    output: float
    cached: float | None = None

    def of(self, tokens: Tokens) -> float:
        """The cost of one call.

        >>> Price(input=1, output=4, cached=0.5).of(Tokens(prompt=3_000_000, completion=1_000_000, cached=2_000_000))
        6.0
        """
        cached = self.input if self.cached is None else self.cached
        plain = tokens.prompt - tokens.cached
        return (plain * self.input + tokens.cached * cached + tokens.completion * self.output) / MILLION


def billed_tokens(body: Mapping[str, Any], reply: Any) -> Tokens:
    """The tokens of a call by its reply; a guess by its texts where the server counts none.

    >>> billed_tokens({}, {"usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}})
    Tokens(prompt=9.0, completion=2.0, cached=4.0, guessed=False)
    >>> billed_tokens({"input": ["x" * 400]}, {"data": []})
    Tokens(prompt=100.0, completion=0.0, cached=0.0, guessed=True)
    """
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    if isinstance(usage, Mapping):
        prompt = _count(usage, "prompt_tokens", "input_tokens")
        completion, total = _count(usage, "completion_tokens", "output_tokens"), _count(usage, "total_tokens")
        if prompt or completion or total:
            # Embedders and rerankers may say the sum only; and xAI counts reasoning in the sum, but not in the completion.
            prompt = prompt or total - completion
            details = usage.get("prompt_tokens_details")
            cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else 0.0
            cached = cached or _count(usage, "cached_tokens", "prompt_cache_hit_tokens")
            return Tokens(prompt, max(completion, total - prompt), min(cached, prompt))
    said = reply.get("choices") if isinstance(reply, Mapping) else None
    return Tokens(_bytes(asked(body)) / BYTES_PER_TOKEN, _bytes(said) / BYTES_PER_TOKEN, guessed=True)


def most_tokens(body: Mapping[str, Any]) -> Tokens:
    """More tokens than a call can take: a token is a byte at least, and a reply ends at its limit.

    >>> most_tokens({"messages": [{"role": "user", "content": "Say yes."}], "max_completion_tokens": 5, "n": 2})
    Tokens(prompt=28.0, completion=10.0, cached=0.0, guessed=True)
    """
    texts = asked(body)
    messages = body.get("messages")
    template = TEMPLATE * len(messages) if isinstance(messages, list) else 0
    completion = 0.0
    if "messages" in body or "prompt" in body:
        limits = [float(body[name]) for name in LIMITS if _is_count(body.get(name))]
        n = body.get("n")
        completion = (max(limits) if limits else UNLIMITED) * (n if isinstance(n, int) and n > 1 else 1)
    return Tokens(_bytes(texts) + template, completion, guessed=True)


def likely_tokens(body: Mapping[str, Any], completion: float | None = None) -> Tokens:
    """A guess at what a call takes before its reply is there, given how long replies were on average."""
    most = most_tokens(body)
    said = most.completion if completion is None else min(completion, most.completion)
    return Tokens(_bytes(asked(body)) / BYTES_PER_TOKEN, said, guessed=True)


def asked(body: Mapping[str, Any]) -> list[Any]:
    """The parts of a request that hold its texts."""
    return [body[name] for name in HARMLESS if name in body]


def _bytes(value: Any) -> float:
    if isinstance(value, str):
        return float(len(value.encode("utf-8", "surrogatepass")))
    if isinstance(value, Mapping):
        return sum(_bytes(part) for part in value.values())
    return sum(map(_bytes, value)) if isinstance(value, list) else 0.0


def _count(usage: Mapping[str, Any], *names: str) -> float:
    """The first of these fields of a reply's usage that holds a number."""
    return next((float(usage[name]) for name in names if _is_count(usage.get(name))), 0.0)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
