"""Scoring jobs of many checkpoints at once on one shared embedding server and one shared reranker: what the servers cost.

    python benchmarks/shared_scoring.py [--checkpoints 8] [--items 100]    # minutes; `make setup-serving` installs what it needs

vLLM's CPU build serves two models of Qwen3-Embedding's and Qwen3-Reranker's architectures with random weights, by the
presets of config/endpoints.yaml. A stand-in answers for the checkpoints beforehand. Then Snakemake scores all of them at
once by the scorer avert, with both servers; and, in a second campaign, one of them alone, whose scores have to be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from measuring import ROOT, BenchmarkError, Table, run, scratch

sys.path.insert(0, str(ROOT / "scripts"))

import yaml

from milepost.runtime.environments import environment_python

PLACES = ("kitchen", "garden", "office", "hallway", "cellar", "attic", "bakery", "harbour")
SAYINGS = (
    "{who} is in the {place}.",
    "I think that {who} went to the {place}.",
    "The {place}.",
    "It must be the {place}, or near it.",
)
SERVERS = {"vectors": "Qwen3-Embedding", "ranks": "Qwen3-Reranker"}
TASKS: dict[str, dict[str, Any]] = {
    "near": {"endpoint": "vectors", "method": "embedding", "api": "vllm"},
    "ranked": {"endpoint": "ranks", "method": "rerank", "api": "vllm", "template": "qwen3-reranker"},
}
# Arithmetic of floats depends on what is computed in the same batch.
CLOSE = 1e-4
# Both of Qwen3's architecture, with a vocabulary in which `no` and `yes` are tokens.
MAKE_MODELS = """
import json, sys
from pathlib import Path
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

bpe = Tokenizer(models.BPE())
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bpe.decoder = decoders.ByteLevel()
marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
bpe.train_from_iterator(["yes", "no"] * 100 + sys.argv[2:], trainer)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=marks[0], eos_token=marks[2])
for seed, name in enumerate(["Qwen3-Embedding", "Qwen3-Reranker"]):
    torch.manual_seed(seed)
    folder = Path(sys.argv[1]) / name
    model = Qwen3ForCausalLM(Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, intermediate_size=384, max_position_embeddings=2048, tie_word_embeddings=True, initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, dtype="float32"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if "Embedding" in name:
        # As the published models have it.
        kinds = ["models.Transformer", "models.Pooling", "models.Normalize"]
        paths = ["", "1_Pooling", "2_Normalize"]
        modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
                   for i, (path, kind) in enumerate(zip(paths, kinds))]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(
            json.dumps({"word_embedding_dimension": 128, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}))
"""


def main() -> None:
    """Measure, print, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=8, help="scored at once (default: %(default)s)")
    parser.add_argument("--items", type=int, default=100, help="of each of the two tasks (default: %(default)s)")
    args = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with scratch() as folder:
        try:
            measure(folder, args.checkpoints, args.items)
        except BenchmarkError as error:
            sys.exit(str(error))


def measure(folder: Path, checkpoints: int, items: int) -> None:
    """All of them at once, then one alone."""
    names = [f"c{number}" for number in range(1, checkpoints + 1)]
    words = [form.format(who="Mary", place=place) for form in SAYINGS for place in PLACES]
    run([environment_python("vllm"), "-c", MAKE_MODELS, folder / "models", *words])
    many, alone = folder / "many", folder / "alone"
    table = Table("shared", orphans=True)
    with answering(names) as url:
        for campaign, asked in ((many, names), (alone, names[:1])):
            write_campaign(campaign, asked, items, url)
            snakemake(campaign, paths("answers", asked), cores=4)
    seconds = {}
    for campaign, asked in ((many, names), (alone, names[:1])):
        # A core for each job: what they do is wait.
        seconds[campaign] = snakemake(campaign, paths("scores", asked), cores=len(asked) * len(TASKS))
    rows = []
    for campaign, asked in ((many, names), (alone, names[:1])):
        for server, model in SERVERS.items():
            ledger = read_lines(campaign / f"results/endpoints/{server}/.ledger.jsonl")
            took = {key: sum(line[key] for line in ledger) for key in ("start_s", "busy_s", "idle_s", "requests")}
            rows.append(
                [
                    f"{model}, {len(asked)} at once",
                    str(len(ledger)),
                    *(f"{took[key]:.0f}" for key in took),
                    f"{seconds[campaign]:.0f}",
                ]
            )
    table.rows(
        ["server, scoring jobs", "starts", "starting, s", "answering, s", "idle, s", "requests", "campaign, s"], rows
    )
    table.say(same_scores(many, alone, names[0]))
    table.say(
        f'{checkpoints} checkpoints, two tasks of {items} items: each server has {checkpoints} jobs at once. "Answering" is every'
        ' second with a request under way; "idle" is the rest until it was told to end, with its campaign. "Campaign" is'
        " Snakemake from its start to its end. Models of Qwen3's architecture with random weights, on vLLM's CPU build; jobs"
        " and servers share the cores of this machine."
    )
    table.write()


def snakemake(campaign: Path, targets: Sequence[str], cores: int) -> float:
    """Seconds that Snakemake takes for these files."""
    command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--directory", campaign, "--cores", str(cores), *targets]
    return run(command, timeout_s=1800).seconds


def paths(kind: str, names: Sequence[str]) -> list[str]:
    """The files of one stage."""
    return [f"results/{kind}/{name}/{task}.jsonl" for name in names for task in TASKS]


def write_campaign(folder: Path, names: Sequence[str], items: int, url: str) -> None:
    """Checkpoints that a stand-in answers for, and two tasks that served models score."""
    (folder / "config/tasks").mkdir(parents=True)
    serving = {"dtype": "float32", "enforce-eager": True, "max-model-len": 1024}
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1"}
    endpoints: dict[str, dict[str, Any]] = {
        server: {
            "provider": "shared", "model": str(folder.parent / "models" / model), "gpus": 0, "vllm_args": serving, "env": env,
            "preset": model.lower().replace("-", "_"),
        }
        for server, model in SERVERS.items()
    }  # fmt: skip
    endpoints |= {name: {"provider": "external", "url": url, "model": name} for name in names}
    (folder / "config/endpoints.yaml").write_text(yaml.safe_dump(endpoints))
    (folder / "config/checkpoints.tsv").write_text("name\tendpoint\n" + "".join(f"{name}\t{name}\n" for name in names))
    (folder / "config/config.yaml").write_text(yaml.safe_dump({"tasks": list(TASKS)}))
    draw = random.Random(0)  # noqa: S311 (a draw of questions, no secret)
    with (folder / "items.jsonl").open("w") as file:
        for number in range(items):
            choices = draw.sample(PLACES, 4)
            asked = {"role": "user", "content": f"Question {number}: where is Mary? One of: {', '.join(choices)}."}
            item = {"id": f"q{number}", "messages": [asked], "target": choices[0], "choices": sorted(choices)}
            file.write(json.dumps(item) + "\n")
    for task, scorer in TASKS.items():
        spec = {"version": 1, "data": "items.jsonl", "scorer": {"name": "avert", **scorer}, "metric": "avert_match"}
        (folder / f"config/tasks/{task}.yaml").write_text(yaml.safe_dump(spec))


class Answering(BaseHTTPRequestHandler):
    """Chat for all checkpoints: a draw that depends on the question and the checkpoint."""

    protocol_version = "HTTP/1.1"
    names: Sequence[str] = ()

    def log_message(self, *args: object) -> None:
        """No access log."""

    def do_GET(self) -> None:
        """The checkpoints."""
        self._reply({"data": [{"id": name} for name in self.names]})

    def do_POST(self) -> None:
        """An answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        draw = random.Random(f"{body['model']} {asked}")  # noqa: S311 (a draw of answers, no secret)
        place = draw.choice(re.findall(r"\w+", asked.partition("One of: ")[2]))
        content = draw.choice(SAYINGS).format(who="Mary", place=place) + f" That is what {body['model']} says."
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        usage = {"prompt_tokens": 10, "completion_tokens": 10}
        self._reply({"model": body["model"], "choices": [choice], "usage": usage})

    def _reply(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def answering(names: Sequence[str]) -> Iterator[str]:
    """The stand-in for the checkpoints."""
    Answering.names = names
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def same_scores(many: Path, alone: Path, name: str) -> str:
    """A sentence that says whether a checkpoint has the same scores in both campaigns.

    Raises:
        BenchmarkError: It has others.
    """
    compared, furthest = 0, 0.0
    for task in TASKS:
        one, other = (read_lines(campaign / f"results/scores/{name}/{task}.jsonl") for campaign in (many, alone))
        if [line["score"] for line in one] != [line["score"] for line in other]:
            raise BenchmarkError(f"{name}/{task} is scored otherwise when it is scored alone")
        for line, again in zip(one, other, strict=True):
            compared += 1
            for metric, value in line["metrics"].items():
                if value is not None:
                    furthest = max(furthest, abs(value - again["metrics"][metric]))
    if furthest > CLOSE:
        raise BenchmarkError(f"{name}'s metrics differ by {furthest:.1e} when it is scored alone")
    return (
        f"The first checkpoint's {compared} scores are the same at once and alone; none of their metrics (cosines, shares) differs"
        f" by more than {furthest:.0e}."
    )


if __name__ == "__main__":
    main()
