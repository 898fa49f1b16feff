"""Print the first prompt of every task as the model sees it, chat template applied."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from milepost.campaign.models import find_model
from milepost.errors import ModelError, run_step
from milepost.paths import WORKFLOW
from milepost.preflight.campaign import load_campaign
from milepost.records import PromptSet, read_prompts
from milepost.runtime.environments import environment_python
from milepost.runtime.processes import end_with_snakemake


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", required=True, help="the checkpoint whose chat template is applied")
    parser.add_argument("--prompts", required=True, nargs="+", help="results/prompts/{task}.jsonl of every task")
    args = parser.parse_args(argv)
    end_with_snakemake()
    sets = [read_prompts(path) for path in args.prompts]
    rendered = iter(render(args.ckpt, [first["messages"] for first in map(first_prompt, sets) if "messages" in first]))
    for prompts in sets:
        header, first = prompts.header, first_prompt(prompts)
        print(f"\n=== {header['task']}, version {header['version']}, as {args.ckpt} sees it ===")
        if header["kind"] == "nemo":
            print(f"NeMo Evaluator asks: {json.dumps(header['harness'], ensure_ascii=False)}")
            continue
        print(
            f"item {first['id']!r} of {len(prompts.prompts)}, {header['samples']} sample(s), {json.dumps(header['sampling'])}"
        )
        print(next(rendered) if "messages" in first else first["prompt"])
        print(f"--- target: {json.dumps(first.get('target'), ensure_ascii=False)}")


def first_prompt(prompts: PromptSet) -> dict[str, Any]:
    """The first item of a task; empty for a task of NeMo Evaluator, whose harness keeps the items."""
    return dict(prompts.prompts[0]) if prompts.prompts else {}


def render(ckpt: str, chats: list[Any]) -> list[str]:
    """Apply the checkpoint's chat template, with the library that its server uses."""
    checkpoint = load_campaign().checkpoints[ckpt]
    folder = find_model(checkpoint)
    if not chats:
        return []
    if checkpoint.endpoint is not None:
        # Its server applies the template, and shows it to nobody.
        return ["\n".join(f"{turn['role']}: {turn['content']}" for turn in chat) for chat in chats]
    if folder is None:
        raise ModelError(
            f"The files of {checkpoint.model} are not on this machine, so its chat template cannot be shown."
        )
    options = checkpoint.serving.vllm_args
    request = {
        "tokenizer": str(options.get("tokenizer", folder)),
        "template": options.get("chat-template"),
        "chats": chats,
    }
    done = subprocess.run(
        [str(environment_python("vllm")), str(WORKFLOW / "scripts" / "milepost" / "endpoints" / "chat_template.py")],
        input=json.dumps(request), capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ModelError(f"The chat template of {ckpt!r} could not be applied; the tokenizer said: {last}")
    return [str(text) for text in json.loads(done.stdout)]


if __name__ == "__main__":
    run_step(main)
