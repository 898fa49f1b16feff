"""Serve a checkpoint once and ask it everything that its store does not answer yet."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from milepost.errors import MilepostError, run_step
from milepost.evaluation.supervisor import EvaluationJob, evaluate
from milepost.nemo.run import Setting
from milepost.preflight.campaign import load_campaign
from milepost.records import read_prompts, read_record, write_record
from milepost.runtime.containers import read_containers
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="name of the checkpoint")
    parser.add_argument("--model", required=True, help="results/models/{ckpt}.json")
    parser.add_argument("--prompts", required=True, nargs="+", help="results/prompts/{task}.jsonl of every task")
    parser.add_argument("--gpus", required=True, type=int, help="GPUs that this job was given")
    parser.add_argument("--log", required=True, type=Path, help="log file; the server's own log goes beside it")
    parser.add_argument("--out", required=True, help="results/evaluated/{ckpt}.json")
    args = parser.parse_args(argv)
    end_with_snakemake()
    log_to(args.log, args.ckpt)
    campaign = load_campaign()
    sets = [read_prompts(path) for path in args.prompts]
    containers = read_containers(campaign.config)
    job = EvaluationJob(
        ckpt=campaign.checkpoints[args.ckpt],
        digest=read_record(args.model)["digest"],
        prompts={prompts.header["task"]: prompts for prompts in sets},
        gpus=args.gpus,
        nemo_parallel=campaign.config["nemo_parallel"],
        logs=args.log.parent,
        nemo={
            name: Setting(
                tuning=task.tuning(),
                containers=containers,
                offline=campaign.config["offline"],
            )
            for name, task in campaign.nemo.items()
        },
        containers=containers,
        walltime_margin_s=campaign.config["walltime_margin_s"],
    )
    try:
        note = evaluate(job)
    except MilepostError as error:
        # It ends on standard error as well; on a cluster, that is another file.
        with args.log.open("a") as log:
            log.write(f"{type(error).__name__}: {error}\n")
        raise
    write_record(args.out, note)


def log_to(path: Path, ckpt: str) -> None:
    """Say what happens on standard error, and keep it in the log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s [{ckpt}] %(message)s",
        datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(), logging.FileHandler(path)],
    )


if __name__ == "__main__":
    run_step(main)
