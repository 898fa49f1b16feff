import importlib.util
import sys
from pathlib import Path

import pytest
import yaml
from test_known_tasks import ROWS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "lm_eval/avert"
sys.path.append(str(ROOT / "tests"))
from scoring_stub import Stub  # noqa: E402

RIGHT = {
    "babi": "kitchen",
    "mmlu": "4",
    "mmlu_pro": "o11",
    "gpqa": "right",
    "gsm8k": "42",
    "bbh": "blue",
    "arc": "blue",
}


class Loader(yaml.SafeLoader):
    """Reads `!function module.name` as lm-eval does."""


Loader.add_constructor("!function", lambda loader, node: ("function", node.value))


@pytest.fixture(scope="module")
def functions():
    spec = importlib.util.spec_from_file_location("milepost_avert", FOLDER / "milepost_avert.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch, Stub(quiet=True).running() as url:
        patch.setenv("MILEPOST_PYTHON", sys.executable)
        for name, value in {
            "MODEL_ENDPOINT": url, "ENDPOINT_TYPE": "vllm", "MODEL_NAME": "m", "METHOD": "embedding", "PROMPT_TEMPLATE": "empty"
        }.items():  # fmt: skip
            patch.setenv(f"AVERT_{name}", value)
        yield module
        module._worker().terminate()
        module._worker().communicate()


@pytest.mark.parametrize("form", sorted(ROWS))
def test_a_task_of_lm_eval_asks_and_scores_with_ours(functions, form):
    task = yaml.load((FOLDER / f"avert_{form}.yaml").read_text(), Loader)
    shared = yaml.load((FOLDER / task["include"]).read_text(), Loader)
    row = ROWS[form][0]
    call = {name: getattr(functions, task[name][1].partition(".")[2]) for name in task if isinstance(task[name], tuple)}
    assert set(call) == {"doc_to_text", "doc_to_target", "process_results"}
    assert call["doc_to_text"](row).startswith(str(next(iter(row.values())) if form != "babi" else row["passage"])[:5])
    assert call["doc_to_target"](row) == RIGHT[form]
    right, wrong = (
        call["process_results"](row, [text]) for text in (f"It is {RIGHT[form]}.", "It is nothing of that.")
    )
    # Its metrics are those that are averaged.
    assert set(right) == {metric["metric"] for metric in shared["metric_list"]}
    assert (right["avert_match"], wrong["exact_match"]) == (1, 0)
    assert right["avert_correct"] > wrong["avert_correct"]


def test_an_item_that_our_scorer_cannot_score_is_an_error(functions):
    with pytest.raises(RuntimeError, match="no column 'answer'"):
        functions.mmlu_text({"question": "?", "choices": ["a", "b"]})
