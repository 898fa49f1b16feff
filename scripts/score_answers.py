"""Score the answers of one checkpoint to one task, and reduce the scores to its numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from milepost.campaign.config import load_task
from milepost.campaign.sampling import effective
from milepost.errors import ConfigError, did_you_mean, run_step
from milepost.records import Score, read_answers, read_prompts, write_record, write_records
from milepost.runtime.processes import end_with_snakemake
from milepost.scorers import SamplingScorer, TracedScorer, load_scorer
from milepost.statistics.summary import summarize
from milepost.store.provenance import provenance_of, server_sampling


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--task", required=True, help="name of a file in config/tasks")
    parser.add_argument("--model", required=True, help="results/models/{ckpt}.json")
    parser.add_argument("--prompts", required=True, help="results/prompts/{task}.jsonl")
    parser.add_argument("--answers", required=True, help="results/answers/{ckpt}/{task}.jsonl")
    parser.add_argument(
        "--scored", help="digest of all that decides how the answers are scored; stands with the numbers"
    )
    parser.add_argument("--scores", required=True, help="to write: results/scores/{ckpt}/{task}.jsonl")
    parser.add_argument("--summary", required=True, help="to write: results/summaries/{ckpt}/{task}.json")
    args = parser.parse_args(argv)
    end_with_snakemake()
    task = load_task(args.task)
    scorer = load_scorer(task.spec["scorer"], args.ckpt, args.task)
    prompts, answers = read_prompts(args.prompts), read_answers(args.answers)
    if isinstance(scorer, SamplingScorer):
        prompts = scorer.sample(prompts)
        drawn = {prompt["id"] for prompt in prompts.prompts}
        answers = [answer for answer in answers if answer["id"] in drawn]
    scores = list(scorer.score(prompts.prompts, answers))
    metric = task.spec.get("metric", scorer.metric)
    if metric != scorer.metric:
        scores = with_headline(scores, metric, args.task)
    provenance = provenance_of(args.ckpt, args.model, args.prompts, args.scored)
    provenance["sampling"] = effective(prompts.header["sampling"], server_sampling(args.ckpt))
    if isinstance(scorer, TracedScorer):
        provenance |= scorer.provenance()
    summary = summarize(args.ckpt, prompts, answers, scores, scorer=scorer.name, metric=metric, provenance=provenance)
    write_records(args.scores, scores)
    write_record(args.summary, summary)


def with_headline(scores: list[Score], metric: str, task: str) -> list[Score]:
    """The same scores with another of the scorer's numbers as the one that is shown first."""
    known = sorted({name for score in scores for name in score["metrics"]})
    if metric not in known:
        raise ConfigError(
            f"config/tasks/{task}.yaml asks for metric {metric!r}, which its scorer does not make. It makes: "
            f"{', '.join(known)}.{did_you_mean(metric, known)}"
        )
    return [{**score, "score": score["metrics"].get(metric)} for score in scores]


if __name__ == "__main__":
    run_step(main)
