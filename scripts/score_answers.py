"""Score the answers of one checkpoint to one task, and reduce the scores to its numbers."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from milepost.campaign.sampling import effective
from milepost.errors import listed, run_step
from milepost.reasoning import split_answers
from milepost.records import Score, read_answers, read_prompts, read_record, write_record, write_records
from milepost.runtime.processes import end_with_snakemake
from milepost.scorers import CheckpointTask, check_metric, judges_itself, load_scorer
from milepost.statistics.outcomes import server_facts
from milepost.statistics.summary import summarize
from milepost.store.provenance import provenance_of, server_sampling

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument(
        "--scoring", required=True, help="a file of JSON: the task's `scorer`, `metric`, `better` and `k`"
    )
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
    scoring = json.loads(Path(args.scoring).read_bytes())
    scorer = load_scorer(scoring["scorer"], CheckpointTask(args.ckpt, args.task))
    headline = scorer.metrics[0].name
    metric = scoring.get("metric") or headline
    prompts = scorer.sample(read_prompts(args.prompts))
    check_metric(scorer, prompts.prompts, metric, f"Task {args.task!r}")
    drawn = {prompt["id"] for prompt in prompts.prompts}
    answers = [answer for answer in read_answers(args.answers) if answer["id"] in drawn]
    model = read_record(args.model)
    answers = split_answers(answers, prompts.prompts, model.get("reasoning", {}))
    scores = list(scorer.score(prompts.prompts, answers))
    if metric != headline:
        scores = [Score(**{**score, "score": score["metrics"].get(metric)}) for score in scores]
    provenance = provenance_of(args.ckpt, args.model, args.prompts, args.scored) | scorer.provenance()
    if itself := judges_itself(scorer, model.get("identity", {})):
        provenance["judged_by_itself"] = itself
        log.warning("%s, task %s: the judge %s is the model judged.", args.ckpt, args.task, listed(itself))
    provenance["sampling"] = effective(prompts.header["sampling"], server_sampling(args.ckpt))
    summary = summarize(
        args.ckpt,
        prompts,
        answers,
        scores,
        scorer=scorer.name,
        metric=metric,
        provenance=provenance,
        metrics=[
            replace(one, better=scoring.get("better", one.better)) if one.name == metric else one
            for one in scorer.metrics_of(prompts.prompts)
        ],
        reduce=partial(scorer.reduce, prompts.prompts),
        ks=scoring.get("k", ()),
        server=server_facts(model),
    )
    write_records(args.scores, scores)
    write_record(args.summary, summary)


if __name__ == "__main__":
    run_step(main)
