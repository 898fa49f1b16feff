"""How many requests a second one core sends, and stores the answers of: Milepost and its peers, in one run.

    python benchmarks/client.py                # two minutes and a half; peers are installed on the first run
    python benchmarks/client.py --ours         # without the peers: seconds; writes no table
    python benchmarks/client.py --million      # a million requests, and the memory that they take: minutes
    python benchmarks/client.py --peer "lm-eval=lm-eval[api]==0.4.12"    # another version of a peer; writes no table

The server is nginx with one fixed answer, on a core of its own; each client has the other one for itself. 541 and 4,328
requests, all different, 64 at once: what the additional ones take is the marginal rate, free of start-up. nginx counts
what it was really asked. A client that would take minutes for so many is asked for 1,082, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from instant_server import count, holding, nginx, nginx_version
from measuring import ROOT, BenchmarkError, Peer, Table, Took, cores, install, run, scratch

FEW, MANY = 541, 4328
# In place of MANY, where these would take longer than LONGEST_S by what FEW took.
FEWER = 2 * FEW
LONGEST_S = 300.0
# Before anything is timed: files of the first run come from the disk.
WARM = 8
AT_ONCE = 64
# An answer of a small model takes about so long at the least.
HELD_S = 0.05
WORDS = (
    "a river of many small stones runs under the old bridge where two roads meet and a bell is heard at noon".split()
)

LM_EVAL_TASK = """task: bench
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{target}}"
generation_kwargs: {until: [], max_gen_toks: 256, temperature: 0.7, do_sample: true}
metric_list: [{metric: exact_match}]
"""

NEMO_RUN = """config:
  type: lm-evaluation-harness.bench
  output_dir: %(folder)s/out
  params:
    parallelism: %(at_once)d
    request_timeout: 600
    max_retries: 2
    temperature: 0.7
    max_new_tokens: 256
    extra: {args: "--include_path %(tasks)s"}
target:
  api_endpoint: {url: "%(url)s/v1/chat/completions", model_id: m, type: chat, api_key_name: BENCH_KEY}
"""


@dataclass
class Client:
    """Someone who asks, and what it took: `times` by the number of requests."""

    name: str
    peer: Peer | None
    command: Callable[[Path, str, Path, int], tuple[list[str | Path], dict[str, str]]]
    repeats: int = 1
    many: int = MANY
    times: dict[int, list[Took]] = field(default_factory=lambda: {WARM: [], FEW: [], FEWER: [], MANY: []})
    asked: dict[int, int] = field(default_factory=dict)
    trouble: str = ""

    def marginal(self) -> tuple[float, float]:
        """Requests a second, and a second of core, of those from FEW to `many`."""
        few, many = (self.median(n) for n in (FEW, self.many))
        more = self.asked[self.many] - self.asked[FEW]
        return more / (many.seconds - few.seconds), more / (many.cpu - few.cpu)

    def median(self, n: int) -> Took:
        """Of its runs with so many requests."""
        runs = self.times[n]
        return Took(*(sorted(values)[len(values) // 2] for values in zip(*(r.values() for r in runs), strict=True)))


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--million", action="store_true", help="a million requests instead")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PACKAGES", help="install these packages for a peer instead"
    )
    args = parser.parse_args()
    replace_packages(args.peer)
    if nginx_version() is None:
        sys.exit("nginx is missing, which is the server here. On Debian and Ubuntu: apt-get install nginx-light")
    with scratch() as folder:
        if args.million:
            measure_million(folder)
            return
        for n in (WARM, FEW, FEWER, MANY):
            write_prompts(folder, n)
        clients = [OURS] if args.ours else [OURS, *PEERS]
        rates, latency = Table("client"), Table("latency")
        compare(clients, folder)
        report(rates, clients)
        added(latency, folder)
        # A table of other versions than those that are pinned would stand there as if they were.
        if not args.ours and not args.peer:
            rates.write()
            latency.write()
        else:
            print("\n".join([*rates.lines, "", *latency.lines]))


def write_prompts(folder: Path, n: int, samples: int = 1) -> None:
    """So many different questions of 60 words, as each client reads them."""
    with (folder / f"{n}.ours").open("w") as ours, (folder / f"{n}.jsonl").open("w") as theirs:
        sampling = {"temperature": 0.7, "max_tokens": 256, "seed": 0}
        head = {
            "task": "bench",
            "kind": "native",
            "version": 1,
            "generation": 1,
            "samples": samples,
            "sampling": sampling,
        }
        ours.write(json.dumps(head) + "\n")
        for k in range(n):
            text = f"Question {k}: " + " ".join(WORDS[(k * 7 + j * j) % len(WORDS)] for j in range(60))
            prompt = {"id": f"q{k}", "messages": [{"role": "user", "content": text}], "target": "42"}
            ours.write(json.dumps(prompt) + "\n")
            # The fields of IFEval's data, and those of the lm-eval task above. No comma: what is quickest to verify.
            lines = {"key": k, "prompt": text, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
            theirs.write(json.dumps({**lines, "question": text, "target": "42"}) + "\n")


def ours(_: Path, url: str, prompts: Path, n: int) -> tuple[list[str | Path], dict[str, str]]:
    """This workflow's environment."""
    return [sys.executable, ROOT / "benchmarks/client_arm.py", f"{url}/v1", prompts / f"{n}.ours"], {}


def lm_eval(bin_: Path, url: str, prompts: Path, n: int) -> tuple[list[str | Path], dict[str, str]]:
    """lm-eval's client for chats; each answer is logged."""
    tasks = write_task(prompts, n)
    model = (
        f"model=m,base_url={url}/v1/chat/completions,num_concurrent={AT_ONCE},max_retries=2,tokenized_requests=False"
    )
    command = [
        bin_ / "lm_eval", "--model", "local-chat-completions", "--model_args", model, "--tasks", "bench",
        "--include_path", tasks, "--apply_chat_template", "--output_path", "out", "--log_samples",
    ]  # fmt: skip
    return command, {"OPENAI_API_KEY": "key", "HF_HUB_OFFLINE": "1", "HF_HOME": "hub"}


def nemo(bin_: Path, url: str, prompts: Path, n: int) -> tuple[list[str | Path], dict[str, str]]:
    """NeMo Evaluator with the same task of lm-eval; its adapter and its logs as they come."""
    tasks, file = write_task(prompts, n), prompts / f"{n}.nemo.yml"
    out = prompts / f"nemo-{n}"
    file.write_text(NEMO_RUN % {"folder": out, "at_once": AT_ONCE, "tasks": tasks, "url": url})
    env = {
        "PATH": f"{bin_}:{os.environ['PATH']}", "BENCH_KEY": "key", "HF_HUB_OFFLINE": "1", "HF_HOME": "hub",
        "NEMO_EVALUATOR_TELEMETRY_LEVEL": "0",
    }  # fmt: skip
    return [bin_ / "nemo-evaluator", "run_eval", "--run_config", file], env


def llm_eval_framework(bin_: Path, url: str, prompts: Path, n: int) -> tuple[list[str | Path], dict[str, str]]:
    """IFEval with data of ours, without its throttle of 200 a second, which is for judges that are paid for."""
    command = [
        bin_ / "eval-framework", "--task", "ifeval", "--model", "m", "--base-url", f"{url}/v1", "--api-key", "key",
        "--ifeval-input", prompts / f"{n}.jsonl", "--ifeval-skip-nltk-download", "--num-threads", str(AT_ONCE),
        "--output-dir", "out",
    ]  # fmt: skip
    return command, {"MIN_INTERVAL_S": "0"}


def write_task(prompts: Path, n: int) -> Path:
    """A folder with lm-eval's description of these questions."""
    tasks = prompts / f"tasks-{n}"
    tasks.mkdir(exist_ok=True)
    (tasks / "bench.yaml").write_text(LM_EVAL_TASK % (prompts / f"{n}.jsonl"))
    return tasks


OURS = Client("Milepost", None, ours, repeats=5)
PEERS = [
    Client("lm-eval `local-chat-completions`", Peer("lm-eval", ("lm-eval[api]==0.4.13",)), lm_eval),
    Client("llm-eval-framework, 64 threads", Peer("llm-eval-framework", ("llm-eval-framework==0.1.0",)), llm_eval_framework),
    Client("NeMo Evaluator", Peer("nemo", ("nemo-evaluator==0.2.8", "nvidia-lm-eval==26.3")), nemo),
]  # fmt: skip


def replace_packages(given: list[str]) -> None:
    """Have peers installed from other packages than the pinned ones."""
    known = {client.peer.name: client for client in PEERS if client.peer}
    for one in given:
        name, _, packages = one.partition("=")
        if name not in known or not packages:
            sys.exit(f"--peer {one!r}: it takes NAME=PACKAGES, and the names are {', '.join(known)}.")
        known[name].peer = Peer(name, tuple(packages.split()))


def compare(clients: list[Client], folder: Path) -> None:
    """Run all of them, on the same server and the same core."""
    homes: dict[str, Path] = {}
    for client in clients:
        try:
            homes[client.name] = install(client.peer) if client.peer else folder
        except BenchmarkError as error:
            client.trouble = str(error)
    core, other = cores()
    with nginx(folder, other) as url:
        for client in clients:
            for n in (WARM, *(FEW, MANY) * client.repeats):
                if not client.trouble:
                    measure(client, client.many if n == MANY else n, homes[client.name], url, folder, core)
                if n == FEW and client.times[FEW] and client.median(FEW).seconds * MANY / FEW > LONGEST_S:
                    client.many = FEWER
            if not client.trouble and client.median(client.many).seconds <= client.median(FEW).seconds:
                client.trouble = f"{client.many} requests took less than {FEW}: the machine is too busy to tell"
            print(
                f"{client.name}: {client.trouble or f'{client.marginal()[0]:.0f} requests/s'}",
                file=sys.stderr,
                flush=True,
            )


def measure(client: Client, n: int, home: Path, url: str, folder: Path, core: int) -> None:
    """One run with so many requests; what goes wrong is noted with the client."""
    place = folder / "run" / client.name.split()[0] / f"{n}-{len(client.times[n])}"
    place.mkdir(parents=True)
    command, env = client.command(home, url, folder, n)
    before = count(url)
    try:
        client.times[n].append(run(command, cwd=place, env=env, core=core, timeout_s=2 * LONGEST_S))
    except BenchmarkError as error:
        client.trouble = str(error)
        return
    client.asked[n] = count(url) - before - 1
    if client.asked[n] < n:
        client.trouble = f"asked {client.asked[n]} of {n} requests only"


def report(table: Table, clients: list[Client]) -> None:
    """The rates, and how many times those of the peers ours is."""
    best = None if clients[0].trouble else clients[0].marginal()
    rows = []
    for client in clients:
        versions = ", ".join(client.peer.packages) if client.peer else "this commit"
        if client.trouble:
            rows.append([client.name, versions, client.trouble, *["-"] * 5])
            continue
        few, many = client.median(FEW), client.median(client.many)
        whole = f"{many.seconds:.2f}" if client.many == MANY else f"{many.seconds:.2f} (for {client.many:,} requests)"
        rate, by_core = client.marginal()
        ratio = f"{best[0] / rate:.1f}, {best[1] / by_core:.1f}" if best and client.peer else "-"
        rows.append(
            [client.name, versions, f"{few.seconds:.2f}", whole, f"{rate:,.0f}", f"{by_core:,.0f}", ratio,
             f"{many.peak_mb:.0f}"]
        )  # fmt: skip
    table.rows(
        ["client", "packages", f"{FEW} requests, s", f"{MANY:,} requests, s", "marginal requests/s",
         "marginal requests per core second", "Milepost is times as fast (by clock, by core)", "peak MB"],
        rows,
    )  # fmt: skip
    table.say(
        f"Server: nginx {nginx_version()}. {AT_ONCE} requests at once, one core for the client, another for the server."
        f" Milepost: the medians of {clients[0].repeats} runs. Core seconds are what to look at where the machine is not"
        " quiet: a client that waits for its core is not slow, but its clock runs on."
    )


def arm(folder: Path, core: int, *words: str | Path) -> dict[str, object]:
    """One run of ours; what it prints."""
    folder.mkdir(parents=True)
    command = [sys.executable, ROOT / "benchmarks/client_arm.py", *words]
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout))


def added(table: Table, folder: Path) -> None:
    """What the client adds to answers that take a while, below its bound of requests at once."""
    core, other = cores()
    rows = []
    with holding(HELD_S, folder, other) as url:
        for at_once in (1, 8, 32, 63):
            n = round(at_once * 3 / HELD_S)
            write_prompts(folder, n)
            took = arm(
                folder / f"added-{at_once}",
                core,
                f"{url}/v1",
                folder / f"{n}.ours",
                "--concurrency",
                str(at_once),
                "--timed",
            )
            shares = took["added_ms"]
            rate = n / float(took["asking_seconds"])
            rows.append([str(at_once), f"{n:,}", f"{rate:,.0f}", f"{shares['0.5']:.2f}", f"{shares['0.99']:.2f}"])
    table.rows(["in flight", "requests", "requests/s", "added, median ms", "added, 99 % ms"], rows)
    table.say(
        f"The server holds each answer back for {1000 * HELD_S:.0f} ms and says in it for how long it really did. Added is all"
        " else, from the making of the request to the parsed answer: client, loopback, and the other process's turn to run."
    )


def measure_million(folder: Path) -> None:
    """A million requests of one checkpoint: time and memory."""
    table = Table("million")
    items, samples = 125_000, 8
    write_prompts(folder, items, samples)
    core, other = cores()
    with nginx(folder, other) as url:
        took = arm(folder / "million", core, f"{url}/v1", folder / f"{items}.ours")
        size = sum(file.stat().st_size for file in folder.glob("million/results/store/c/*.jsonl")) / 1e6
    numbers = {name: float(value) for name, value in took.items()}
    n = items * samples
    table.rows(
        ["requests", "seconds", "core seconds", "of them before the first request", "requests per core second", "peak MB", "store, MB"],
        [[f"{n:,}", f"{numbers['seconds']:.0f}", f"{numbers['cpu']:.0f}", f"{numbers['cpu'] - numbers['asking_cpu']:.0f}",
          f"{n / numbers['cpu']:,.0f}", f"{numbers['peak_mb']:.0f}", f"{size:.0f}"]],
    )  # fmt: skip
    table.say(f"{items:,} items of 60 words, {samples} samples each, in one task. At most 500 MB is the goal.")
    table.write()


if __name__ == "__main__":
    main()
