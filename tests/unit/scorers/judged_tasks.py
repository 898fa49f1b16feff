"""What the tests of judged benchmarks share: judges that reply as they are told, and verdicts without any judge."""

from contextlib import contextmanager
from pathlib import Path

from judge_stub import Stub, reply_to

from milepost.scorers import CheckpointTask, load_scorer
from milepost.scorers.responses import read_responses


@contextmanager
def judges(**replies):
    """Judges by name in config/endpoints.yaml of the current folder; gives their servers by name."""
    stubs = {name: Stub(reply or reply_to) for name, reply in replies.items()}
    with _all_running(list(stubs.values())) as urls:
        Path("config").mkdir(exist_ok=True)
        Path("config/endpoints.yaml").write_text(
            "".join(
                f"{name}: {{provider: external, model: m, url: '{url}', retries: 0}}\n"
                for name, url in zip(stubs, urls, strict=True)
            )
        )
        yield stubs


@contextmanager
def _all_running(stubs):
    if not stubs:
        yield []
        return
    with stubs[0].running() as url, _all_running(stubs[1:]) as others:
        yield [url, *others]


def make_scorer(name, *names, **options):
    return load_scorer({"name": name, "judges": list(names), **options}, CheckpointTask("c", "t"))


def answer_to(prompt, content="Yes.", sample=0, **more):
    return {"id": prompt["id"], "sample": sample, "content": content, "finish_reason": "stop", **more}


def scored(scorer, prompts, values, content="Yes."):
    """The scores that follow from verdicts: by the item's id, by judge, the value of each question."""
    answers = [answer_to(prompt, content) for prompt in prompts]
    return [
        scorer.scored(
            response,
            {
                judge: [
                    {"about": about, "value": value, **({} if value is not None else {"problem": "prose"})}
                    for about, value in said.items()
                ]
                for judge, said in values[response.prompt["id"]].items()
            },
        )
        for response in read_responses(prompts, answers)
    ]
