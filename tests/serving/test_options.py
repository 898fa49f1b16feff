"""What the real vLLM says of options before anything is served."""

import pytest

from milepost.endpoints.vllm import command_line
from milepost.preflight.serving import KEPT, PROBE, ask_vllm, unknown_of_old
from milepost.runtime.containers import Containers


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "float32", "enforce-eager": True, "max-model-len": "8k", "enable-prefix-caching": False}, ""),
        ({"hf-overrides": {"a": 1}, "compilation-config.mode": 0, "lora_dtype": "auto"}, ""),
        ({"dtpe": "float32", "max-modl-len": 5}, "vLLM does not know: --dtpe, --max-modl-len. Did you mean '--dtype'?"),
        ({"dtype": "flat"}, "vLLM refuses: argument --dtype: invalid choice: 'flat'"),
        ({"max-model-len": "many"}, "vLLM refuses: argument --max-model-len"),
    ],
    ids=str,
)
def test_options(options, problem):
    said, found = ask_vllm(command_line(options), Containers())
    assert said is not None, found
    assert found.startswith(problem) if problem else found == "", said[-2000:]


def test_the_kept_options_are_those_of_this_version():
    said, _ = ask_vllm(["--nonsuch"], Containers())
    words = {word.strip("[],") for word in said.split()}
    known = [word for word in words if word.startswith("--") and word not in ("--nonsuch", PROBE)]
    assert len(known) > 200
    assert unknown_of_old(known) == "", KEPT
