"""How often each scorer agrees with labels.

python benchmarks/validity.py [--plot docs/images/validity.svg] [--vectors FOLDER] [--limit N]
                              [--judge ENDPOINT] [--reranker ENDPOINT] [--embedder ENDPOINT] [--api vllm] [--campaign FOLDER]

With --judge, EQUATOR is among the methods; with --reranker or --embedder, A-VERT with that model. ENDPOINT is a name in
the campaign's config/endpoints.yaml, or URL,MODEL or URL,MODEL,KEY_VARIABLE. Replies are kept in the campaign's
results/judged: what was interrupted goes on.

Prints Markdown tables for docs/validity.md. Three sets of labelled answers:
- easy: free answers of three models to 30 questions in ten orders of their options, each labelled right or wrong. They
  are not part of this project: MILEPOST_SHARED names the folder that holds data/easy_problems. Three views of them: whole,
  uncued (without the option's letter at the end), prose (letters written out).
- places: answers about who is where, generated here, right and wrong in nine ways of saying it; and the same in other words.
- styles: answers to questions of several kinds, generated here, as models of other kinds write them; and styles that no rule
  of `statement` was changed for, but one.

With the environment variables of the original program (AVERT_MODEL_ENDPOINT, AVERT_METHOD, ...), the model that they name
is judged beside the others.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import labelled
import numpy as np
import yaml
from labelled import Labelled, read_easy

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from milepost.embedding.embedders import MINILM_IDENTITY, CosineSimilarity, Embed, MiniLM, checked_vectors  # noqa: E402
from milepost.embedding.vectors import Keep, VectorStore  # noqa: E402
from milepost.endpoints.specs import ENDPOINTS, find_endpoint  # noqa: E402 (the package is found from here)
from milepost.errors import ConfigError, run_step  # noqa: E402
from milepost.scorers import CheckpointTask  # noqa: E402
from milepost.scorers.avert.scorer import Scorer  # noqa: E402
from milepost.scorers.avert.similarity import CHUNK  # noqa: E402
from milepost.scorers.equator.keys import Key  # noqa: E402
from milepost.scorers.equator.scorer import Scorer as Equator  # noqa: E402
from milepost.scorers.exact_match import Scorer as ExactMatch  # noqa: E402

VIEWS = ("whole", "uncued", "prose")
ROUNDS = 2000
# Under which replies are kept.
PLACE = CheckpointTask("validity", "answers")


@dataclass(frozen=True)
class Judged:
    """What a method says of each answer: a score, and right or wrong."""

    margins: np.ndarray
    """Of shape (n_answers,): above 0 for right; the larger, the surer."""
    right: np.ndarray
    without: frozenset[int] = frozenset()
    """Answers without a verdict: they are counted, and left out of the agreement."""

    def part(self, rows: Sequence[int]) -> Judged:
        """The same of some answers."""
        without = frozenset(at for at, row in enumerate(rows) if row in self.without)
        return Judged(self.margins[list(rows)], self.right[list(rows)], without)


Method = Callable[[Sequence[Labelled]], Judged]


def records(rows: Sequence[Labelled]) -> tuple[list[Any], list[Any]]:
    """Answers as the scorers take them, each with an item of its own."""
    prompts = [
        {"id": str(n), "prompt": "?", "target": row.options[row.correct], "choices": row.options}
        for n, row in enumerate(rows)
    ]
    return prompts, [{"id": str(n), "sample": 0, "content": row.text} for n, row in enumerate(rows)]


def exact_match(rows: Sequence[Labelled]) -> Judged:
    """The whole answer is the target."""
    found = [
        score["score"] or 0.0 for score in ExactMatch(ignore_case=True, ignore_punctuation=True).score(*records(rows))
    ]
    return Judged(np.array(found) - 0.5, np.array(found) > 0)


class KeptMiniLM:
    """The embedder that comes with Milepost, with what it gave before kept in a folder."""

    def __init__(self, embed: MiniLM, store: VectorStore) -> None:
        self._embed = embed
        self._store = store

    def __call__(self, texts: Sequence[str]) -> Any:
        """Embed what is not kept."""

        def ask(missing: Sequence[str], keep: Keep) -> None:
            for at in range(0, len(missing), CHUNK):
                chunk = missing[at : at + CHUNK]
                keep(chunk, checked_vectors(self._embed(chunk), len(chunk)))

        return self._store.embed(texts, ask)


def semscore(embed: Embed) -> Method:
    """Cosine of the answer with the target; right above a threshold that the other questions' answers choose."""

    def judge(rows: Sequence[Labelled]) -> Judged:
        targets = [row.options[row.correct] for row in rows]
        similarity = CosineSimilarity(embed, {*targets, *(row.text for row in rows)})
        scores = np.array([similarity(row.text, [target])[0] for row, target in zip(rows, targets, strict=True)])
        labels = np.array([row.label for row in rows])
        clusters = np.array([row.cluster for row in rows])
        margins = np.empty(len(rows))
        for cluster in np.unique(clusters):
            held_out = clusters == cluster
            margins[held_out] = scores[held_out] - best_threshold(scores[~held_out], labels[~held_out])
        return Judged(margins, margins > 0)

    return judge


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the best balanced accuracy."""
    order = np.argsort(scores)
    ordered = labels[order]
    # Right is what lies above: all, then without the lowest, and so on.
    kept = (ordered.sum() - np.concatenate([[0], np.cumsum(ordered)])) / ordered.sum()
    refused = np.concatenate([[0], np.cumsum(~ordered)]) / (~ordered).sum()
    at = int(np.argmax(kept + refused))
    edges = np.concatenate([[scores[order[0]] - 1], scores[order]])
    return float(edges[at])


def avert(embed: Embed | None, **options: Any) -> Method:
    """Our scorer; without an embedder, with the model that the options or the environment name."""

    def judge(rows: Sequence[Labelled]) -> Judged:
        scorer = Scorer(embed=embed, chance=False, semscore=False, **options)
        scores = list(scorer.score(*records(rows)))
        margins = [s["metrics"]["margin"] or 0.0 for s in scores]
        without = frozenset(n for n, s in enumerate(scores) if s["score"] is None)
        return Judged(np.array(margins), np.array([s["score"] == 1 for s in scores]), without)

    return judge


def endpoint_named(given: str, kind: str) -> str:
    """The name of an endpoint of the current folder; one that is given by its address is added to it.

    Raises:
        ConfigError: Words that are no address, or a name that is not there.
    """
    if "://" not in given:
        return find_endpoint(given, f"--{kind}").name
    url, _, rest = given.partition(",")
    model, _, variable = rest.partition(",")
    if not model:
        raise ConfigError(f"--{kind} is {given!r}. Write URL,MODEL or URL,MODEL,KEY_VARIABLE, or an endpoint's name.")
    entries = yaml.safe_load(ENDPOINTS.read_text()) if ENDPOINTS.exists() else {}
    name = f"{kind}-{model.rpartition('/')[2]}"
    served = {"judge": "chat", "embedder": "embedding"}.get(kind, kind)
    entry = {"provider": "external", "kind": served, "url": url, "model": model}
    entries[name] = entry | ({"key_env": variable} if variable else {})
    ENDPOINTS.parent.mkdir(parents=True, exist_ok=True)
    ENDPOINTS.write_text(yaml.safe_dump(entries))
    return find_endpoint(name, f"--{kind}").name


def equator(judge: str) -> Method:
    """An evaluator with the right option as its answer key."""

    def run(rows: Sequence[Labelled]) -> Judged:
        keys = {str(n): Key(str(n), row.question, row.options[row.correct]) for n, row in enumerate(rows)}
        scorer = Equator(evaluators=[judge], answer_key="", keys=keys, place=PLACE)
        found = [score["score"] for score in scorer.score(*records(rows))]
        without = frozenset(n for n, score in enumerate(found) if score is None)
        margins = np.array([(score or 0.0) - 0.5 for score in found])
        return Judged(margins, np.array([score == 1 for score in found]), without)

    return run


def agreement(right: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy, precision, recall, F1 and Cohen's kappa."""
    hit, miss = (right & labels).sum(), (~right & labels).sum()
    alarm, reject = (right & ~labels).sum(), (~right & ~labels).sum()
    total = len(labels)
    accuracy = (hit + reject) / total
    by_chance = ((hit + miss) * (hit + alarm) + (reject + alarm) * (reject + miss)) / total**2
    return {
        "accuracy": accuracy,
        "balanced": (hit / max(hit + miss, 1) + reject / max(reject + alarm, 1)) / 2,
        "precision": hit / (hit + alarm) if hit + alarm else float("nan"),
        "recall": hit / max(hit + miss, 1),
        "F1": 2 * hit / max(2 * hit + miss + alarm, 1),
        "κ": (accuracy - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan"),
    }


def r_squared(right: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> float:
    """Squared correlation of score and labelled accuracy over model and category."""
    names = sorted(set(groups))
    member = np.array([[float(group == name) for group in groups] for name in names])
    scores, truth = member @ right / member.sum(1), member @ labels / member.sum(1)
    return float(np.corrcoef(scores, truth)[0, 1] ** 2) if scores.std() > 0 else float("nan")


def interval(right: np.ndarray, labels: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of the balanced accuracy, over questions drawn anew."""
    draw = np.random.default_rng(0)
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    found = []
    for _ in range(ROUNDS):
        rows = np.concatenate([members[at] for at in draw.integers(len(members), size=len(members))])
        found.append(agreement(right[rows], labels[rows])["balanced"])
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def print_table(
    title: str, rows: Sequence[Labelled], judged: dict[str, Judged], note: str = "", *, grouped: bool = True
) -> None:
    """One table: a line for each method; with R² where the rows are grouped by model and category."""
    right = np.mean([row.label for row in rows])
    print(f"\n{title}: {len(rows)} answers, {right:.0%} of them right{note}\n")
    print(f"| method | balanced accuracy [95 %] | accuracy | precision | recall | F1 | κ |{' R² |' * grouped}")
    print(f"|---|---|---|---|---|---|---|{'---|' * grouped}")
    for name, judge in judged.items():
        there = [n for n in range(len(rows)) if n not in judge.without]
        if not there:
            print(f"| {name} ({len(rows)} without a verdict) |{' |' * (6 + grouped)}")
            continue
        labels, clusters = (np.array([getattr(rows[n], what) for n in there]) for what in ("label", "cluster"))
        verdicts, groups = judge.right[there], [rows[n].group for n in there]
        low, high = interval(verdicts, labels, clusters)
        numbers = agreement(verdicts, labels)
        cells = [f"{numbers['balanced']:.3f} [{low:.2f}, {high:.2f}]"]
        cells += [f"{numbers[key]:.3f}" for key in ("accuracy", "precision", "recall", "F1", "κ")]
        if grouped:
            cells.append(f"{r_squared(verdicts, labels, groups):.2f}")
        counted = f" ({len(judge.without)} without a verdict)" if judge.without else ""
        print(f"| {name}{counted} | {' | '.join(cells)} |".replace("nan", "-"))


def print_by_saying(rows: Sequence[Labelled], judged: dict[str, Judged]) -> None:
    """Where each method fails: its accuracy by the way of saying."""
    names = list(dict.fromkeys(row.group for row in rows))
    labels = np.array([row.label for row in rows])
    print(f"\nAccuracy by the way of saying it\n\n| method | {' | '.join(names)} |\n|---{'|---' * len(names)}|")
    for name, judge in judged.items():
        agree = judge.right == labels
        cells = []
        for saying in names:
            there = [n for n, row in enumerate(rows) if row.group == saying and n not in judge.without]
            cells.append(f"{agree[there].mean():.2f}" if there else "-")
        print(f"| {name} | {' | '.join(cells)} |")


def plot(path: Path, rows: Sequence[Labelled], judged: dict[str, Judged]) -> None:
    """Calibration: the share of right answers over the margin, in ten parts of equal size."""
    import matplotlib.pyplot as plt
    import seaborn as sns

    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    labels = np.array([row.label for row in rows])
    for name, judge in judged.items():
        parts = np.array_split(np.argsort(judge.margins, kind="stable"), 10)
        axes.plot([judge.margins[p].mean() for p in parts], [labels[p].mean() for p in parts], "o-", label=name)
    axes.axvline(0, color="0.5", linestyle=":")
    axes.set(
        title="Answers labelled right, over the margin of the score",
        xlabel="margin: share of the right group minus share of the wrong one",
        ylabel="share labelled right",
        ylim=(-0.02, 1.02),
    )
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    print(f"\nCalibration, view uncued: {path}")


def limited(rows: list[Labelled], limit: int | None) -> list[Labelled]:
    """So many of the rows, drawn by a fixed seed."""
    if limit is None or limit >= len(rows):
        return rows
    drawn = set(random.Random(0).sample(range(len(rows)), limit))  # noqa: S311 (a draw of rows, no secret)
    return [row for at, row in enumerate(rows) if at in drawn]


def main(argv: Sequence[str] | None = None) -> None:
    """Judge, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, help="where to draw the calibration of the margin (SVG or PNG)")
    parser.add_argument("--vectors", type=Path, help="folder in which to keep vectors for the next time")
    parser.add_argument("--limit", type=int, help="only so many answers of each set, drawn by a fixed seed")
    parser.add_argument("--judge", action="append", default=[], help="marks as EQUATOR's evaluator; may be repeated")
    parser.add_argument("--reranker", action="append", default=[], help="compares whole answers; may be repeated")
    parser.add_argument("--embedder", action="append", default=[], help="embeds whole answers; may be repeated")
    parser.add_argument("--api", default="vllm", choices=["openai", "vllm", "tei"], help="theirs, but for judges'")
    parser.add_argument("--template", default="empty", help="words around texts for --reranker, such as qwen3-reranker")
    parser.add_argument("--campaign", type=Path, default=Path(), help="folder of config/endpoints.yaml and replies")
    args = parser.parse_args(argv)
    shared = os.environ.get("MILEPOST_SHARED")
    easy = Path(shared).resolve() / "data" / "easy_problems" if shared else None
    for name in ("plot", "vectors"):
        setattr(args, name, getattr(args, name) and getattr(args, name).resolve())
    args.campaign.mkdir(parents=True, exist_ok=True)
    os.chdir(args.campaign)
    with MiniLM() as minilm, VectorStore(args.vectors, MINILM_IDENTITY) as store:
        embed = KeptMiniLM(minilm, store)
        methods: dict[str, Method] = {
            "exact match": exact_match,
            "SemScore": semscore(embed),
            "A-VERT, whole answer": avert(embed, reading="whole"),
            "A-VERT, statement": avert(embed, letters=True),
            "A-VERT, statement, refusals": avert(embed, letters=True, refusal=True),
        }
        asked: dict[str, Any] = {"reading": "whole", "letters": True, "api": args.api, "place": PLACE}
        for name in [endpoint_named(given, "reranker") for given in args.reranker]:
            methods[f"A-VERT, {name}"] = avert(None, endpoint=name, method="rerank", template=args.template, **asked)
        for name in [endpoint_named(given, "embedder") for given in args.embedder]:
            methods[f"A-VERT, {name}"] = avert(None, endpoint=name, method="embedding", **asked)
        for name in [endpoint_named(given, "judge") for given in args.judge]:
            methods[f"EQUATOR, {name}"] = equator(name)
        if "AVERT_MODEL_ENDPOINT" in os.environ:
            name = os.environ.get("AVERT_MODEL_NAME", "the environment's model")
            methods[f"A-VERT, {name}"] = avert(None, reading="whole", letters=True)
        if easy is None:
            print("easy: SKIPPED, MILEPOST_SHARED does not say where data/easy_problems lies.", file=sys.stderr)
        for view in VIEWS if easy else ():
            rows, blank = read_easy(easy, view)
            rows = limited(rows, args.limit)
            judged = {name: method(rows) for name, method in methods.items()}
            print_table(f"easy, view {view}", rows, judged, f"; {blank} without text left out")
            if view == "uncued":
                for model in sorted({row.group.split()[0] for row in rows}):
                    own = [n for n, row in enumerate(rows) if row.group.split()[0] == model]
                    part = {name: j.part(own) for name, j in judged.items()}
                    print_table(f"easy, view uncued, {model}", [rows[n] for n in own], part)
                if args.plot:
                    plot(args.plot, rows, {name: j for name, j in judged.items() if name.startswith("A-VERT")})
        for title, every in labelled.generated().items():
            rows = limited(every, args.limit)
            judged = {name: method(rows) for name, method in methods.items()}
            print_table(title, rows, judged, grouped=False)
            print_by_saying(rows, judged)


if __name__ == "__main__":
    run_step(main)
