"""How fast answers are scored by meaning, against the original program on the same server.

python benchmarks/semantic.py [--original PYTHON] [--answers 2000] [--url http://127.0.0.1:8000 --model NAME --method embedding]

PYTHON is an interpreter with a-vert 0.3.5; without it, an environment with it is made. Without --url, a stand-in serves
embeddings and relevance after 20 ms, in a process of its own. Writes a table into docs/scoring-by-meaning.md (with --url,
between the marks of `meaning-NAME`), and says on how many answers both agree. `--pairs` measures the memory of 1 million
(answer, candidate) pairs instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from measuring import BenchmarkError, Peer, Table, install

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from milepost.scorers.avert.scorer import Scorer  # noqa: E402 (the package is found from here)

DOCUMENT = ROOT / "docs" / "scoring-by-meaning.md"
ORIGINAL_PACKAGES = Peer("a-vert", ("a-vert==0.3.5",))
LATENCY_S = 0.02
REPEATS = 3
PLACES = ["kitchen", "garden", "office", "hallway"]
SAYINGS = (
    "{n}: {who} is in the {place}.",
    "I think that {who} went to the {place}, number {n}.",
    "The {place}, {n} times.",
)
Rows = list[list[str]]
# What an item of lm-eval's tasks of the original does, without lm-eval: one answer after the other.
ORIGINAL = """
import json, sys, time
import a_vert
config = a_vert.setup()
rows = json.load(sys.stdin)
begun = time.perf_counter()
out = []
for row in rows:
    groups = a_vert.processing.construct_candidate_groups(
        [row["target"]], row["wrong"], ["correct", "wrong"], with_options=True, option_symbol="letters",
        correct_group_idxs=[row["at"]], wrong_group_idxs=row["wrong_at"])
    found, _ = a_vert.processing.get_candidate_groups_embedings_ranking(row["text"], groups, config)
    out.append(bool(found["correct"] >= found["wrong"]))
json.dump({"s": time.perf_counter() - begun, "match": out}, sys.stdout)
"""


def make_answers(count: int) -> tuple[list[Any], list[Any]]:
    """Items with four options, and answers that all differ."""
    draw = random.Random(0)  # noqa: S311 (a draw of answers, no secret)
    prompts = [{"id": place, "prompt": "?", "target": place, "choices": PLACES} for place in PLACES]
    answers = []
    for n in range(count):
        text = draw.choice(SAYINGS).format(who=draw.choice(["Mary", "John"]), place=draw.choice(PLACES), n=n)
        answers.append({"id": PLACES[n % len(PLACES)], "sample": n // len(PLACES), "content": text})
    return prompts, answers


@contextmanager
def served() -> Iterator[str]:
    """The stand-in, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, ROOT / "tests/scoring_stub.py", "--port", str(port), "--latency", str(LATENCY_S)]
    with subprocess.Popen(command) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(100):
                try:
                    urlopen(f"{url}/v1/models", timeout=1).close()  # noqa: S310 (an address of ours)
                    break
                except OSError:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def variables(url: str, model: str, method: str) -> dict[str, str]:
    """The environment in which both find the server."""
    return {
        "AVERT_MODEL_ENDPOINT": url,
        "AVERT_ENDPOINT_TYPE": "vllm",
        "AVERT_MODEL_NAME": model,
        "AVERT_METHOD": method,
        "AVERT_PROMPT_TEMPLATE": "empty",
    }


def ours(prompts: Sequence[Any], answers: Sequence[Any], **options: Any) -> tuple[float, list[bool]]:
    """Answers per second, and verdicts."""
    scorer = Scorer(letters=True, chance=False, semscore=False, **options)
    begun, busy = time.perf_counter(), time.process_time()
    scores = list(scorer.score(prompts, answers))
    took = time.perf_counter() - begun
    print(
        f"{len(answers) / took:,.0f} answers/s, {time.process_time() - busy:.1f} of {took:.1f} s busy", file=sys.stderr
    )
    return len(answers) / took, [score["score"] == 1 for score in scores]


def theirs(
    python: str, prompts: Sequence[Any], answers: Sequence[Any], environment: dict[str, str]
) -> tuple[float, list[bool]]:
    """The same of the original."""
    rows = []
    for answer in answers:
        at = PLACES.index(answer["id"])
        wrong_at = [place for place in range(len(PLACES)) if place != at]
        wrong = [PLACES[place] for place in wrong_at]
        rows.append({"text": answer["content"], "target": PLACES[at], "wrong": wrong, "at": at, "wrong_at": wrong_at})
    done = subprocess.run(
        [python, "-c", ORIGINAL],
        check=False,
        input=json.dumps(rows),
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"The original failed in {python}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    return len(answers) / found["s"], found["match"]


def compare(url: str, model: str, methods: Sequence[str], count: int, few: int, original: str | None) -> Rows:
    """One line of the table for each method."""
    prompts, answers = make_answers(count)
    rows = []
    for method in methods:
        environment = variables(url, model, method)
        os.environ.update(environment)
        # The best of some: other processes of the machine only ever slow one down.
        rate, verdicts = max(ours(prompts, answers, compat=True) for _ in range(REPEATS))
        cells = ["-", "-", "-"]
        if original:
            # One after the other: its rate does not depend on how many there are.
            slow, expected = max(theirs(original, prompts, answers[:few], environment) for _ in range(REPEATS))
            same = sum(one == other for one, other in zip(verdicts, expected, strict=False))
            cells = [f"{slow:,.1f}", f"{rate / slow:,.0f}", f"{same} of {len(expected)}"]
        rows.append([method, f"{rate:,.0f}", *cells])
    return rows


def measure_memory(url: str, method: str) -> list[str]:
    """What 1 million pairs take."""
    os.environ.update(variables(url, "m", method))
    per_answer = 7 * len(PLACES)
    prompts, answers = make_answers(-(-1_000_000 // per_answer))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rate, _ = ours(prompts, answers, reading="whole")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [method, f"{len(answers) * per_answer:,}", f"{rate:,.0f}", f"{after:.2f}", f"{before:.2f}"]


def original_python(given: str | None) -> str | None:
    """An interpreter with the original program; None, aloud, where there is none."""
    try:
        return given or str(install(ORIGINAL_PACKAGES) / "python")
    except BenchmarkError as error:
        print(f"a-vert is left out: {error}", file=sys.stderr)
        return None


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write into the document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--original", help="an interpreter with a-vert 0.3.5; one is made if none is named")
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--few", type=int, default=200, help="how many of them the original gets")
    parser.add_argument("--url", help="a server to ask instead of the stand-in, without /v1")
    parser.add_argument("--model", default="m", help="its model's name")
    parser.add_argument("--method", choices=["rerank", "embedding"], help="only this method")
    parser.add_argument("--pairs", action="store_true", help="measure the memory of 1 million pairs")
    args = parser.parse_args(argv)
    methods = [args.method] if args.method else ["rerank", "embedding"]
    if args.pairs:
        table = Table("meaning-memory", document=DOCUMENT)
        with served() as url:
            rows = [measure_memory(url, method) for method in methods]
        table.rows(["method", "pairs", "answers/s", "GiB at most", "GiB before"], rows)
        table.write()
        return
    original = original_python(args.original)
    if args.url:
        table = Table(f"meaning-{args.model}", document=DOCUMENT, orphans=True)
        rows = compare(args.url, args.model, methods, args.answers, args.few, original)
    else:
        table = Table("meaning", document=DOCUMENT)
        with served() as url:
            rows = compare(url, args.model, methods, args.answers, args.few, original)
    table.rows(
        ["method", "Milepost, answers/s", "a-vert 0.3.5, answers/s", "times", "same verdicts in compat mode"], rows
    )
    table.write()


if __name__ == "__main__":
    main()
