import json
from pathlib import Path

import pytest

from milepost.evaluation.collect import IncompleteError, collect_answers, finished_runs, withdraw
from milepost.evaluation.work import is_complete, remember_complete, requests_of, sample_seed, store_file
from milepost.nemo.runs import DONE, missing_runs
from milepost.records import PromptSet, write_record, write_records
from milepost.store.answers import TaskStore

DIGEST = "d" * 64


@pytest.fixture(autouse=True)
def campaign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def prompt_set(task="t", words=("one", "two"), samples=2, generation=1, **sampling):
    header = {
        "task": task, "kind": "native", "version": 1, "generation": generation, "samples": samples,
        "sampling": {"temperature": 0.7, "max_tokens": 8, "seed": 0, **sampling},
    }  # fmt: skip
    items = [{"id": f"i{n}", "messages": [{"role": "user", "content": word}]} for n, word in enumerate(words)]
    return PromptSet(header, items)


def nemo_set(task="n", samples=2, **params):
    harness = {"eval_type": "h.t", "endpoint_type": "chat", "params": params}
    header = {"task": task, "kind": "nemo", "version": 1, "generation": 1, "samples": samples, "sampling": {}}
    return PromptSet({**header, "harness": harness}, [])


def prepare(*sets):
    write_record("results/models/c.json", {"digest": DIGEST, "identity": {}})
    for prompts in sets:
        write_records(f"results/prompts/{prompts.header['task']}.jsonl", [prompts.header, *prompts.prompts])


def answer_all(prompts, attempt="a", skip=(), digest=DIGEST):
    store = TaskStore(store_file("c", prompts.header["task"]), attempt)
    for request in requests_of(prompts, digest):
        if (request.id, request.sample) not in skip and request.key not in store.settled:
            store.append(request.key, {"id": request.id, "sample": request.sample, "content": request.key})
    store.close()


def finish(prompts):
    for _, folder in missing_runs(Path("results/store/c"), DIGEST, prompts.header):
        write_record(folder / DONE, {})


def test_what_is_asked():
    prompts = prompt_set(stop=["\n"])
    prompts.prompts.append({"id": "p", "prompt": "Once"})
    requests = list(requests_of(prompts, DIGEST))
    assert [(request.id, request.sample) for request in requests] == [(i, s) for i in ("i0", "i1", "p") for s in (0, 1)]
    assert [request.path for request in requests] == ["/chat/completions"] * 4 + ["/completions"] * 2
    assert requests[0].body == {
        "messages": [{"role": "user", "content": "one"}], "temperature": 0.7, "max_tokens": 8, "stop": ["\n"],
        "seed": requests[0].seed,
    }  # fmt: skip
    assert requests[4].body["prompt"] == "Once"
    assert "model" not in requests[0].body


def test_every_sample_has_its_own_seed_which_is_always_the_same():
    seeds = [sample_seed(base, ident, sample) for base in (0, 1) for ident in ("a", "b", "a/0") for sample in range(20)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    # Answers are filed by it: it never changes.
    assert sample_seed(0, "a", 0) == 1746515184


def test_every_request_has_its_own_key():
    keys = [request.key for request in requests_of(prompt_set(words=("same", "same", "other"), samples=3), DIGEST)]
    assert len(set(keys)) == 9


@pytest.mark.parametrize(
    ("other", "asked_again"),
    [
        (prompt_set(), 0),
        (prompt_set(words=("one", "too")), 2),
        (prompt_set(words=("one", "two", "three")), 2),
        (prompt_set(samples=3), 2),
        (prompt_set(samples=1), 0),
        (prompt_set(temperature=0.8), 4),
        (prompt_set(seed=1), 4),
        (prompt_set(generation=2), 4),
        (prompt_set(task="renamed"), 0),
    ],
)
def test_only_what_changed_is_asked_again(other, asked_again):
    known = {request.key for request in requests_of(prompt_set(), DIGEST)}
    assert sum(request.key not in known for request in requests_of(other, DIGEST)) == asked_again


def test_another_model_is_asked_everything():
    keys = [{request.key for request in requests_of(prompt_set(), digest)} for digest in ("x", "y")]
    assert not keys[0] & keys[1]


class TestIsComplete:
    def test_what_is_not_prepared_is_not_answered(self):
        assert not is_complete("c", ["t"])
        write_record("results/models/c.json", {"digest": DIGEST})
        assert not is_complete("c", ["t"])
        prepare(prompt_set())
        assert not is_complete("c", ["t"])

    @pytest.mark.parametrize("remembered", [False, True])
    def test_a_complete_store(self, remembered):
        prepare(prompt_set(), nemo_set())
        answer_all(prompt_set())
        assert not is_complete("c", ["t", "n"])
        finish(nemo_set())
        if remembered:
            remember_complete("c", [prompt_set()], DIGEST)
        assert is_complete("c", ["t", "n"])
        assert is_complete("c", ["t"])
        assert not is_complete("c", ["t", "n", "another"])

    def test_one_missing_answer_or_run(self):
        prepare(prompt_set(), nemo_set())
        answer_all(prompt_set(), skip=[("i1", 1)])
        finish(nemo_set(samples=1))
        assert not is_complete("c", ["t"])
        assert not is_complete("c", ["n"])

    @pytest.mark.parametrize("change", ["prompts", "model", "store", "removed"])
    def test_what_was_remembered_holds_only_for_what_was_asked(self, change):
        prepare(prompt_set())
        answer_all(prompt_set())
        remember_complete("c", [prompt_set()], DIGEST)
        if change == "prompts":
            prepare(prompt_set(words=("one", "changed")))
        elif change == "model":
            write_record("results/models/c.json", {"digest": "e" * 64})
        elif change == "store":
            store = store_file("c", "t")
            store.write_bytes(b"".join(store.read_bytes().splitlines(keepends=True)[:-1]))
        else:
            store_file("c", "t").unlink()
        assert not is_complete("c", ["t"])

    def test_what_was_remembered_is_not_read_again(self, monkeypatch):
        prepare(prompt_set())
        answer_all(prompt_set())
        remember_complete("c", [prompt_set()], DIGEST)
        monkeypatch.setattr("milepost.evaluation.work.read_settled", lambda path: pytest.fail("read again"))
        assert is_complete("c", ["t"])

    def test_what_is_remembered_is_what_was_asked_not_what_the_files_say_by_then(self):
        prepare(prompt_set())
        answer_all(prompt_set())
        prepare(prompt_set(words=("one", "changed meanwhile")))
        remember_complete("c", [prompt_set()], DIGEST)
        assert not is_complete("c", ["t"])
        prepare(prompt_set())
        assert is_complete("c", ["t"])

    @pytest.mark.parametrize("content", ["", "{", "[]"])
    def test_an_unreadable_memory_is_none(self, content):
        prepare(prompt_set())
        answer_all(prompt_set())
        Path("results/store/c/.complete.json").write_text(content)
        assert is_complete("c", ["t"])
        remember_complete("c", [prompt_set()], DIGEST)
        assert is_complete("c", ["t"])


class TestCollect:
    def test_answers_come_sorted_by_item_and_sample(self):
        prompts = prompt_set()
        answer_all(prompts, skip=[("i0", 0)])
        answer_all(prompts, "later")
        answers = collect_answers("c", DIGEST, prompts)
        assert [(answer["id"], answer["sample"]) for answer in answers] == [("i0", 0), ("i0", 1), ("i1", 0), ("i1", 1)]
        assert set(answers[0]) == {"id", "sample", "content"}, "the store's own fields stay there"

    def test_all_or_none(self):
        prompts = prompt_set()
        answer_all(prompts, skip=[("i1", 0)])
        with pytest.raises(IncompleteError, match="1 of 4 answers are missing"):
            collect_answers("c", DIGEST, prompts)
        with pytest.raises(IncompleteError, match="4 of 4"):
            collect_answers("c", "e" * 64, prompts)
        with pytest.raises(IncompleteError, match="4 of 4"):
            collect_answers("another", DIGEST, prompts)

    def test_answers_of_other_questions_are_left_out(self):
        answer_all(prompt_set(words=("old", "two")))
        answer_all(prompt_set())
        answers = collect_answers("c", DIGEST, prompt_set())
        assert [answer["content"] for answer in answers] == [
            request.key for request in requests_of(prompt_set(), DIGEST)
        ]

    def test_runs_of_a_harness(self):
        prompts = nemo_set(samples=3)
        finish(nemo_set(samples=2))
        with pytest.raises(IncompleteError, match="1 of 3 runs of NeMo Evaluator are missing"):
            finished_runs("c", DIGEST, prompts.header)
        finish(prompts)
        assert [folder.name for folder in finished_runs("c", DIGEST, prompts.header)] == ["run-0", "run-1", "run-2"]

    @pytest.mark.parametrize(
        ("note", "reason"),
        [
            ({"tasks": {"t": {"done": 1, "missing": 3, "error": "server: 500: boom"}}}, "The last reason given: server: 500: boom. "),
            ({"tasks": {"t": {"done": 1, "missing": 3}}}, ""),
            ({}, ""),
            ([], ""),
        ],
    )  # fmt: skip
    def test_a_note_is_withdrawn_and_says_why(self, tmp_path, note, reason):
        path = tmp_path / "c.json"
        path.write_text(json.dumps(note))
        said = withdraw(path, "t", IncompleteError("3 of 4 answers are missing"))
        assert said == (
            f"IncompleteError: c, task 't': 3 of 4 answers are missing. {reason}What there is stays stored;"
            " run the same command again, and it asks for the rest."
        )
        assert path.exists(), "removing it now would take waiting jobs with it"
        assert path.with_name("c.json.withdrawn").exists()
