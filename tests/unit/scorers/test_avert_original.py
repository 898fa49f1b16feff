"""Against the original program, a-vert 0.3.5, where it is installed (`make test-a-vert`): inputs drawn by hypothesis."""

import math
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

a_vert = pytest.importorskip(
    "a_vert", reason="a-vert 0.3.5 is not installed: `make test-a-vert` compares with it, in an environment of its own"
)
sys.path.append(str(Path(__file__).parents[2]))
from scoring_stub import Stub  # noqa: E402

from milepost.scorers.avert.candidates import REFUSALS, candidate_groups  # noqa: E402
from milepost.scorers.avert.scorer import Scorer  # noqa: E402
from milepost.scorers.avert.settings import TEMPLATES, Settings, Template  # noqa: E402
from milepost.scorers.avert.similarity import TextsToCompare, find_similarities  # noqa: E402
from milepost.scorers.avert.verdict import grouping_of, original_verdict_of  # noqa: E402

EXAMPLES = int(os.environ.get("MILEPOST_EXAMPLES", "60"))
SLOW = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
text = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=40).filter(str.strip)
texts = st.lists(text, min_size=2, max_size=10, unique=True)


@pytest.fixture(scope="module")
def url():
    with Stub(quiet=True).running() as address:
        yield address


@SLOW
@given(texts, st.data(), st.sampled_from(["letters", "romans", "numbers"]), st.booleans())
def test_candidates(options, data, symbols, with_options):
    correct = data.draw(st.integers(0, len(options) - 1))
    wrong = [at for at in range(len(options)) if at != correct]
    arguments = {"correct_group_idxs": [correct], "wrong_group_idxs": wrong, "option_symbol": symbols}
    theirs = a_vert.processing.construct_candidate_groups(
        [options[correct]],
        [options[at] for at in wrong],
        ["correct", "wrong"],
        enhance=True,
        with_options=with_options,
        **(arguments if with_options else {}),
    )
    ours = candidate_groups(
        {"correct": [options[correct]], "wrong": [options[at] for at in wrong]},
        positions={"correct": [correct], "wrong": wrong} if with_options else None,
        symbols=symbols,
        compat=True,
    )
    assert ours == theirs


@SLOW
@given(
    text,
    st.lists(text, min_size=1, max_size=4),
    st.lists(text, min_size=1, max_size=40),
    st.booleans(),
    st.sampled_from(["vllm", "openai", "tei"]),
    st.sampled_from(["rerank", "embedding"]),
    st.sampled_from(sorted(TEMPLATES)),
    st.sampled_from(["max", "mean", "mean_top_k_1", "mean_top_k_3", "mean_top_k_50"]),
)
def test_scores(url, response, correct, wrong, refusal, api, method, template, grouping):
    groups = {"correct": correct, "wrong": wrong, **(REFUSALS if refusal else {})}
    query, document = TEMPLATES[template]
    config = a_vert.AvertConfig(
        method, document, query, grouping, True, url, api, "m", {"default": "look"}, bool(query and "instr" in query)
    )
    theirs, _ = a_vert.processing.get_candidate_groups_embedings_ranking(response, groups, config)
    found = find_similarities(
        Settings(url, "m", api, method, Template(query, document, "look"), grouping, True),
        TextsToCompare({response: list(dict.fromkeys(one for members in groups.values() for one in members))}),
        double=True,
    )
    similarities = {name: list(found(response, members)) for name, members in groups.items()}
    verdict = original_verdict_of(similarities, grouping_of(grouping, compat=True))
    assert verdict.shares == pytest.approx(theirs, abs=1e-9)
    # Nearer to each other than this, rounding decides.
    if abs(theirs["correct"] - theirs["wrong"]) > 1e-12:
        assert verdict.match == (theirs["correct"] >= theirs["wrong"])


@SLOW
@given(texts, text, st.data(), st.sampled_from(["rerank", "embedding"]), st.booleans())
def test_the_scorer_from_the_environment_on(url, options, response, data, method, letters):
    folded = [" ".join("".join(c if c.isalnum() else " " for c in option.casefold()).split()) for option in options]
    assume(len(set(folded)) == len(options) and all(folded) and "<think>" not in response)
    correct = data.draw(st.integers(0, len(options) - 1))
    wrong = [at for at in range(len(options)) if at != correct]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "MODEL_ENDPOINT": url, "ENDPOINT_TYPE": "vllm", "MODEL_NAME": "m", "METHOD": method, "PROMPT_TEMPLATE": "empty"
        }.items():  # fmt: skip
            patch.setenv(f"AVERT_{name}", value)
        positions = {"correct_group_idxs": [correct], "wrong_group_idxs": wrong, "option_symbol": "letters"}
        groups = a_vert.processing.construct_candidate_groups(
            [options[correct]], [options[at] for at in wrong], ["correct", "wrong"], with_options=letters,
            **(positions if letters else {}),
        )  # fmt: skip
        theirs, _ = a_vert.processing.get_candidate_groups_embedings_ranking(response.strip(), groups, a_vert.setup())
        prompt = {"id": "a", "prompt": "?", "target": options[correct], "choices": options}
        (score,) = Scorer(compat=True, letters=letters, chance=False, semscore=False).score(
            [prompt], [{"id": "a", "sample": 0, "content": response}]
        )
    assert score["metrics"]["avert_correct"] == pytest.approx(theirs["correct"], abs=1e-9)
    assert score["metrics"]["avert_wrong"] == pytest.approx(theirs["wrong"], abs=1e-9)
    if not math.isclose(theirs["correct"], theirs["wrong"], abs_tol=1e-12):
        assert score["score"] == float(theirs["correct"] >= theirs["wrong"])
