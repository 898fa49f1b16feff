"""What a campaign's results are, made from nothing by calling the steps one after the other, without Snakemake.

Run in a fresh copy of a campaign's folder, with the scripts of its copy of the workflow on PYTHONPATH.
"""

import subprocess
import sys
from pathlib import Path

from answering import answer_all

import collect_answers
import compare
import prepare_prompts
import report
import score_answers
import tabulate
from milepost.campaign.frozen import write_settings
from milepost.campaign.identity import CACHE, DigestCache, identify
from milepost.campaign.templates import model_record
from milepost.preflight.campaign import load_campaign
from milepost.preflight.decides import code_of, current_digests, shown_record
from milepost.records import write_record

campaign = load_campaign()
digests = DigestCache(CACHE)
today = current_digests(campaign, digests)
prompts = {task: f"results/prompts/{task}.jsonl" for task in campaign.tasks}
for task, path in prompts.items():
    prepare_prompts.main(["--task", task, "--asked", today.asked[task], "--out", path])
for name, ckpt in campaign.checkpoints.items():
    model, note = f"results/models/{name}.json", Path(f"results/evaluated/{name}.json")
    write_record(model, model_record(identify(ckpt, digests), ckpt, campaign.config, digests))
    write_record(note, answer_all(name, model, list(prompts.values())))
    for task, asked in prompts.items():
        same = ["--ckpt", name, "--model", model, "--prompts", asked]
        answers = f"results/answers/{name}/{task}.jsonl"
        collect_answers.main(
            [*same, "--evaluated", str(note), "--code", code_of("collect_answers.py"), "--out", answers]
        )
        told = write_settings(campaign.tasks[task].scoring())
        made = ["--scores", f"results/scores/{name}/{task}.jsonl", "--summary", f"results/summaries/{name}/{task}.json"]
        score_answers.main(
            [*same, "--task", task, "--scoring", told, "--scored", today.scored[task], "--answers", answers, *made]
        )


def settings(*options: str, numbers: bool = True) -> list[str]:
    """What a step is told, as words of its command line."""
    return ["--settings", write_settings(shown_record(campaign, options, today if numbers else None))]


tables, summaries = "results/tables", ["--summaries", "results/summaries"]
compare.main([*settings("comparisons"), "--scores", "results/scores", *summaries, "--out", tables])
written = [word for kind in ("csv", "metrics", "markdown", "text") for word in (f"--{kind}", f"{tables}/{kind}")]
for name, kind in (
    ("scores.csv", "csv"),
    ("metrics.csv", "metrics"),
    ("scores.md", "markdown"),
    ("scores.txt", "text"),
):
    written[written.index(f"--{kind}") + 1] = f"{tables}/{name}"
tabulate.main([*settings("tables", "title", "marks"), *summaries, "--compared", tables, *written])
drawn = ["--scores", f"{tables}/scores.csv", "--metrics", f"{tables}/metrics.csv", "--steps", f"{tables}/steps.csv"]
drawing = [sys.executable, str(Path(__file__).with_name("drawing.py"))]
subprocess.run([*drawing, *settings("figures", numbers=False), *drawn, "--out", "results/figures"], check=True)
page = ["--tables", tables, "--figures", "results/figures", "--prompts", "results/prompts", *summaries]
report.main([*settings("title"), *page, "--store", "results/store", "--out", "results/report.html"])
