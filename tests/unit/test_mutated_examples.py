"""Every example of the configuration reference, spoiled in every place and in many ways, is read, or ends in one paragraph."""

import json
import re
import textwrap
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from milepost.campaign.frozen import FROZEN
from milepost.errors import MilepostError
from milepost.preflight.campaign import check_campaign, freeze_campaign, load_campaign
from milepost.records import write_records
from milepost.tasks import build_prompts

ROOT = Path(__file__).parents[2]

ITEM = {
    "id": "a",
    "prompt": "?",
    "target": "blue",
    "meta": {"wrong": ["green"], "constraints": [{"kind": "upper_case"}]},
}
JUDGED_ROWS = {
    "healthbench": {
        "prompt_id": "h", "prompt": [{"role": "user", "content": "?"}], "example_tags": ["theme:hedging"],
        "rubrics": [
            {"criterion": "C", "points": 3, "tags": [f"axis:{axis}"]}
            for axis in ("accuracy", "completeness", "communication_quality")
        ],
    },
    "writingbench": {
        "index": 1, "domain1": "Literature & Arts", "domain2": "Poetry", "lang": "en", "query": "?",
        "checklist": [{"name": "N", "criteria_description": "D", "1-2": "bad", "9-10": "good"}],
    },
    "arena_hard": {"uid": "u", "category": "hard_prompt", "subcategory": "coding", "prompt": "?"},
    "alpaca_eval": {"dataset": "koala", "instruction": "?", "output": "!", "generator": "g"},
}  # fmt: skip
ROWS = {
    "items": ITEM,
    "arc": {"id": "x", "question": "?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"},
    "babi": {"task": 1, "passage": "Mary went to the garden.", "question": "Where is Mary?", "answer": "garden", "id": "b"},
    "bbh": {"input": "Back?\nOptions:\n- Yes\n- No", "target": "No"},
    "gpqa": {
        "Question": "?", "Correct Answer": "a", "Incorrect Answer 1": "b", "Incorrect Answer 2": "c", "Incorrect Answer 3": "d",
    },
    "gsm8k": {"question": "1 + 1?", "answer": "It is two. #### 2"},
    "mmlu": {"question": "?", "choices": ["a", "b"], "answer": 0},
    "mmlu_pro": {"question": "?", "options": ["a", "b"], "answer_index": 0, "answer": "A"},
    "ifeval": {
        "key": 1, "prompt": "?", "instruction_id_list": ["length_constraints:number_words"],
        "kwargs": [{"relation": "at least", "num_words": 3, "letter": None}],
    },
    "ifbench": {
        "key": "1", "prompt": "?", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}],
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}, {"role": "user", "content": "?"}],
    },
    **JUDGED_ROWS,
}  # fmt: skip
# What the examples of judged benchmarks have from a package.
JUDGED = {
    "healthbench": {}, "writingbench": {"requirements": "none"}, "arena_hard": {"baselines": {"default": "data/baseline.jsonl"}},
    "alpaca_eval": {"baseline": "data/baseline.jsonl"},
}  # fmt: skip
SCORERS = {"items": "exact_match", "ifeval": "ifeval", "ifbench": "ifeval"}
CONFIG = {
    "title": "T", "tasks": ["t"], "limit": 2, "walltime_margin_s": 60, "nemo_parallel": 2, "offline": True,
    "model_profiles": {"default": {"gpus": 0, "vllm_args": {"dtype": "float32"}, "env": {"A": "b"}, "concurrency": 2}},
    "comparisons": {"pairs": [["c-1", "c-2"]], "against": "c-1", "correction": "bh", "ranking": "all"},
    "tables": {"formats": ["tex"], "metrics": "all"}, "figures": {"band": "ci95", "smoothing": 1},
    "containers": {"vllm": "vllm.sif", "folder": "images", "binds": ["/data"], "nv": True},
}  # fmt: skip
TASK = {
    "version": 1, "title": "T", "description": "D", "data": "data/t.jsonl", "system": "S", "samples": 2, "limit": 3,
    "sampling": {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "max_tokens": 9, "stop": ["x"], "seed": 1}, "generation": 1,
    "scorer": {"name": "exact_match", "ignore_case": True}, "metric": "exact_match", "beside": ["exact_match"],
}  # fmt: skip
NEMO = {
    "version": 1, "harness": "nemo", "eval_type": "lm-evaluation-harness.mmlu", "metric": "acc", "samples": 2,
    "params": {"limit_samples": 5, "temperature": 0.5, "extra": {"args": "--x y"}}, "adapter": {"use_caching": False},
}  # fmt: skip
ENDPOINTS = {
    "judge": {"provider": "external", "model": "m", "url": "http://127.0.0.1:1/v1", "concurrency": 2, "retries": 1},
    "reranker": {"provider": "external", "model": "m", "kind": "reranker", "url": "http://127.0.0.1:1/v1"},
    "embedder": {"provider": "shared", "model": "org/m", "kind": "embedding", "gpus": 0, "idle_s": 20},
}
SHEET = (
    "name\tmodel\trun\tstep\tgpus\tvllm_args\tgeneration\nc-1\tmodel\tr\t1\t0\t--seed 1\t1\nc-2\tmodel\tr\t2\t0\t\t\n"
)
KEY = {"id": "a", "question": "?", "answer": "blue", "category": "c"}


def blocks():
    """The YAML blocks of the documentation that are whole files, by what they are."""
    for page in sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "config/README.md"]):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)):
            data = yaml.safe_load(textwrap.dedent(block))
            if not isinstance(data, dict):
                continue
            name = f"{page.stem}-{number}"
            if "version" in data and {"scorer", "harness"} & set(data):
                yield pytest.param("task", data, id=name)
            elif all(isinstance(entry, dict) and "provider" in entry for entry in data.values()):
                yield pytest.param("endpoints", {**ENDPOINTS, **data}, id=name)
            elif set(data) <= set(CONFIG) | {"checkpoints"}:
                yield pytest.param("config", data | {"tasks": ["t"]}, id=name)


def files():
    paths = sorted([*(ROOT / "config/tasks").glob("*.yaml"), *(ROOT / "config/tasks/examples").glob("*.yaml")])
    yield from (pytest.param("task", yaml.safe_load(path.read_text()), id=path.stem) for path in paths)
    demo = sorted((ROOT / "demo/config/tasks").glob("*.yaml"))
    yield from (pytest.param("task", yaml.safe_load(path.read_text()), id=f"demo-{path.stem}") for path in demo)


def places(data, at=()):
    """Every place in nested data."""
    yield at
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*at, key))


HALF = "half-of-a-character"  # a lone surrogate, as an escape in the file
GONE, TWICE, MISSPELT = object(), object(), object()
VALUES = [
    GONE, TWICE, MISSPELT, None, True, -1, 0.5, float("nan"), float("inf"), 2**70, "", " ", "many", [], {}, [None], {"a": {}},
    "bell\x07",
    "re\rturn", HALF, "x" * 3000, "{step}", "~nobody-here/x", "$NOT_SET_HERE/x", "../../..", "[(", "数学",
]  # fmt: skip


def spoiled(data, at, value):
    """A copy with one place changed; nothing if that cannot be."""
    if not at:
        return [value] if value in (None, "", [], True) else None
    copy = deepcopy(data)
    inside = copy
    for key in at[:-1]:
        inside = inside[key]
    last = at[-1]
    if value is GONE:
        del inside[last]
    elif value is TWICE:
        if not isinstance(inside, list):
            return None
        inside.append(inside[last])
    elif value is MISSPELT:
        if not isinstance(inside, dict):
            return None
        inside[f"{last}e"] = inside.pop(last)
    else:
        inside[last] = value
    return copy


def twice(text):
    """YAML with a line of its first level a second time."""
    first = next((line for line in text.splitlines() if re.match(r"\w+:", line)), "a: 1")
    return f"{text}\n{first.split(':')[0]}: 1\n"


BYTES = {
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "Latin-1": lambda text: (text + "\n# grün\n").encode("latin-1"),
    "a byte order mark": lambda text: text.encode("utf-8-sig"),
    "cut": lambda text: text.encode()[: len(text) * 2 // 3],
    "empty": lambda text: b"",
    "zeros": lambda text: b"\0" * 100,
    "twice": lambda text: twice(text).encode(),
    "tabs": lambda text: text.replace("  ", "\t").encode(),
    "spaces": lambda text: text.replace("\t", "  ").encode(),
    "commas": lambda text: text.replace("\t", ",").encode(),
    "carriage returns": lambda text: text.replace("\n", "\r\n").encode(),
    "a quotation mark": lambda text: text.replace("\tr\t", '\t"r\t').encode(),
    "deep": lambda text: b"[" * 3000,
    "JSON": lambda text: b"[1, 2",
}


class Place:
    """A campaign's folder in which one file after the other is spoiled."""

    def __init__(self):
        self.path = {
            "config": Path("config/config.yaml"), "task": Path("config/tasks/t.yaml"), "sheet": Path("config/checkpoints.tsv"),
            "endpoints": Path("config/endpoints.yaml"), "items": Path("data/t.jsonl"), "key": Path("data/key.jsonl"),
        }  # fmt: skip
        Path("model").mkdir()
        Path("model/config.json").write_text("{}")
        Path("model/tokenizer_config.json").write_text('{"chat_template": "x"}')
        for path in self.path.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        self.write(config=CONFIG, task=TASK, endpoints=ENDPOINTS, sheet=SHEET, items=ITEM, key=KEY)

    def write(self, **contents):
        for name, content in contents.items():
            if name in ("items", "key") and not isinstance(content, bytes):
                text = json.dumps(content).replace(HALF, "\\ud800") + "\n"
            elif not isinstance(content, bytes | str):
                dumped = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
                text = dumped.replace(HALF, '"\\ud800"')
            else:
                text = content
            self.path[name].write_bytes(text if isinstance(text, bytes) else text.encode())

    def result(self):
        """Nothing where the campaign is taken, with what a job would be given; else the message."""
        try:
            campaign = load_campaign()
            check_campaign(campaign, installed=False)
            for task in campaign.tasks.values():
                prompts = build_prompts(task, campaign.config.get("limit"))
                write_records("out.jsonl", [prompts.header, *prompts.prompts])
                json.dumps([task.questions(), task.scoring(), getattr(task, "tuning", dict)(), task.title]).encode()
            freeze_campaign(campaign)
        except MilepostError as error:
            return str(error)
        return None

    def check(self, what):
        try:
            said = self.result()
        except Exception as error:
            return f"{what}: {type(error).__name__}: {str(error)[:200]}"
        if said is not None and (not said.strip() or len(said) > 6000 or not said.isprintable()):
            return f"{what}: not a paragraph: {said[:200]!r}"
        return None


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(FROZEN, raising=False)
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    return Place()


def write_baseline():
    """A baseline's answer to the one item of judged benchmarks, whichever."""
    Path("data/baseline.jsonl").write_text(json.dumps({"uid": "u", "instruction": "?", "output": "!"}) + "\n")


def prepare(place, kind, data):
    """Write an example with what it needs beside it; the example as it is written."""
    if kind != "task":
        compared = data.get("comparisons", {}) if kind == "config" else {}
        named = {
            *filter(None, [compared.get("against")]),
            *(name for pair in compared.get("pairs", []) for name in pair),
        }
        rows = [f"{name}\tmodel\t\t\t0\t\t" for name in sorted(named - {"c-1", "c-2"})]
        rows += [f"{run}-9\tmodel\t{run}\t9\t0\t\t" for run in compared.get("same_step", [])]
        place.write(**{kind: data}, sheet=SHEET + "".join(f"{row}\n" for row in rows))
        return data
    scorer = data.get("scorer", {})
    judges = [*scorer.get("evaluators", []), *scorer.get("judges", [])]
    if judges or "endpoint" in scorer:
        names = [*judges, *filter(None, [scorer.get("endpoint")])]
        kind_of = "chat" if judges else "reranker" if scorer.get("method") == "rerank" else "embedding"
        entry = {"provider": "external", "model": "m", "kind": kind_of, "url": "http://127.0.0.1:1/v1"}
        place.write(endpoints={**ENDPOINTS, **dict.fromkeys(names, entry)})
    data = deepcopy(data)
    if "ifbench_dir" in scorer:
        Path(scorer["ifbench_dir"]).mkdir(exist_ok=True)
        Path(scorer["ifbench_dir"], "instructions_registry.py").touch()
    # A package may bring the data.
    if "data" in data or data.get("format") in ROWS:
        data["data"] = "data/t.jsonl"
        place.write(items=ROWS[data.get("format", "items")])
    if scorer.get("name") in JUDGED:
        data["scorer"] |= JUDGED[scorer["name"]]
        write_baseline()
    if "answer_key" in scorer:
        data["scorer"]["answer_key"] = "data/key.jsonl"
    place.write(task=data)
    return data


EXAMPLES = [
    *files(), *blocks(), pytest.param("task", TASK, id="task"), pytest.param("task", NEMO, id="nemo"),
    pytest.param("config", CONFIG, id="config"), pytest.param("endpoints", ENDPOINTS, id="endpoints"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "data"), EXAMPLES)
def test_a_spoiled_example_is_read_or_ends_in_a_paragraph(place, kind, data):
    data = prepare(place, kind, data)
    said = place.result()
    assert said is None or "not installed" in said or "does not exist" in said, said
    wrong = []
    for at in places(data):
        for value in VALUES:
            copy = spoiled(data, at, value)
            if copy is not None:
                place.write(**{kind: copy})
                shown = (
                    {GONE: "gone", TWICE: "twice", MISSPELT: "misspelt"}.get(value) if type(value) is object else value
                )
                wrong.append(place.check(f"{'.'.join(map(str, at))} = {str(shown)[:40]!r}"))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("kind", ["config", "task", "endpoints", "sheet", "items", "key"])
def test_a_spoiled_file_is_read_or_ends_in_a_paragraph(place, kind):
    task = {**TASK, "scorer": {"name": "equator", "evaluators": ["judge"], "answer_key": "data/key.jsonl"}}
    place.write(task={**{key: value for key, value in task.items() if key not in ("metric", "beside")}})
    assert place.result() is None
    text = place.path[kind].read_text()
    wrong = []
    for name, spoil in BYTES.items():
        place.path[kind].write_bytes(spoil(text))
        wrong.append(place.check(name))
    place.path[kind].unlink()
    wrong.append(place.check("missing"))
    place.path[kind].mkdir()
    wrong.append(place.check("a folder"))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("form", ROWS)
def test_a_spoiled_item_is_read_or_ends_in_a_paragraph(place, form):
    scorer = {"name": SCORERS.get(form, "avert")}
    if form in JUDGED:
        scorer = {"name": form, "judges": ["judge"], **JUDGED[form]}
        write_baseline()
    place.write(task={"version": 1, "data": "data/t.jsonl", "format": form, "scorer": scorer}, items=ROWS[form])
    assert place.result() is None, place.result()
    wrong = []
    for at in places(ROWS[form]):
        for value in VALUES:
            copy = spoiled(ROWS[form], at, value)
            if copy is not None:
                place.write(items=copy)
                wrong.append(place.check(f"{'.'.join(map(str, at))} = {str(value)[:40]!r}"))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("column", ["name", "model", "run", "step", "gpus", "vllm_args", "generation"])
def test_a_spoiled_cell_is_read_or_ends_in_a_paragraph(place, column):
    header, row, other = (line.split("\t") for line in SHEET.splitlines())
    values = [
        "", " ", "many", "-1", "0", "1e5", "nan", "9" * 400, '"', "'", "a" * 300, "{step}", "a{step}", "~nobody/x", "$NOT_SET/x",
        "../..", "/", ".", "\x07", "\r", "\x85", "\u2028", "--", "--a", "--a=", "-x", "数", "C-2", "\x00", "--x 'y",
    ]  # fmt: skip
    wrong = []
    for value in values:
        cells = [value if name == column else cell for name, cell in zip(header, row, strict=True)]
        place.write(sheet="\n".join("\t".join(line) for line in (header, cells, other)) + "\n")
        wrong.append(place.check(repr(value)))
    assert not any(wrong), "\n".join(filter(None, wrong))
