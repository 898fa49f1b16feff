"""Stands in for evaluate_checkpoint.py in a copy of the workflow: answers are made of the question and the model, at once.

What is stored already is not answered again. A model's folder may hold `faults`: names of tasks of which nothing is
answered, or `die`.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from milepost.evaluation.work import remember_complete, requests_of, store_file
from milepost.preflight.campaign import load_campaign
from milepost.records import read_prompts, read_record, write_record
from milepost.store.answers import TaskStore, read_settled


def answer_all(ckpt: str, model: str, prompts: list[str]) -> dict:
    """Answer what the store lacks; the note that the real step writes."""
    digest = read_record(model)["digest"]
    folder = Path(load_campaign().checkpoints[ckpt].model)
    faults = (folder / "faults").read_text().split() if (folder / "faults").exists() else []
    if "die" in faults:
        sys.exit("the server died")
    tasks = {}
    for prompt_set in map(read_prompts, prompts):
        task, path = prompt_set.header["task"], store_file(ckpt, prompt_set.header["task"])
        settled = read_settled(path) if path.exists() else {}
        missing = [request for request in requests_of(prompt_set, digest) if request.key not in settled]
        if missing and task in faults:
            tasks[task] = {"done": 0, "missing": len(missing), "error": "on purpose"}
            continue
        store = TaskStore(path, "stand-in")
        for request in missing:
            seen = json.dumps([digest, request.body, request.sample])
            word = request.prompt["target"] if hashlib.sha256(seen.encode()).digest()[0] % 2 else "Wrong"
            answer = {"id": request.id, "sample": request.sample, "content": word, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1}
            store.append(request.key, {**answer, "usage": usage, "seed": request.seed, "latency_s": 0.1})
        store.close()
        tasks[task] = {"done": len(settled) + len(missing), "missing": 0}
        remember_complete(ckpt, [prompt_set], digest)
    return {"ckpt": ckpt, "tasks": tasks, "ledger": {}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--ckpt", "--model", "--gpus", "--log", "--out"):
        parser.add_argument(name)
    parser.add_argument("--prompts", nargs="+")
    args = parser.parse_args()
    write_record(args.out, answer_all(args.ckpt, args.model, args.prompts))
