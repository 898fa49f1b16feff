"""What `list_evals` prints."""

from pathlib import Path

import pytest

import list_evals
from milepost.errors import EnvironmentMissingError
from milepost.nemo import listing
from milepost.nemo.catalogue import Benchmark, Catalogue
from milepost.nemo.installation import NemoInstallation
from milepost.nemo.listing import campaign_installations, environments, installations, render

GROUP = {"kind": "group", "members": ["mmlu_law", "mmlu_art"]}
TASKS = {
    "mmlu_art": {"kind": "task", "asks": "multiple_choice"},
    "mmlu_law": {"kind": "task", "asks": "multiple_choice"},
    "mmlu": GROUP,
    "mmlu_2.0": {"kind": "task", "asks": "generate_until"},
    "gsm8k": {"kind": "task", "asks": "generate_until"},
    "coded_mmlu": {"kind": "python_task", "asks": None},
}


def benchmark(harness, name, types=("chat",), task=None, log_probabilities=False):
    return Benchmark(harness, name, types, task, {}, (), (), log_probabilities)


def catalogue(*listed, tasks=None):
    by_harness = {}
    for one in listed:
        by_harness.setdefault(one.harness, {})[one.name] = one
    defaults = {harness: benchmark(harness, "", ("chat", "completions")) for harness in by_harness}
    return Catalogue("here", by_harness, defaults, tasks or {})


LM_EVAL = catalogue(
    benchmark("lm-eval", "mmlu_instruct", task="mmlu_str"),
    benchmark("lm-eval", "arc", ("completions",), task="arc", log_probabilities=True),
    tasks={"lm-eval": TASKS},
)
INSTALLATION = NemoInstallation("nemo")


def rows(lines):
    """Cells of the tables' lines, by their first cell."""
    return {
        line.split("  ")[1]: [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in lines
        if line[:2] == "  "
    }


def test_listed_benchmarks_by_endpoint_type_and_need():
    lines = render(INSTALLATION, LM_EVAL)
    assert lines[0] == "environment nemo, lm-eval: 2 of 2 benchmarks"
    assert rows(lines)["mmlu_instruct"] == ["mmlu_instruct", "chat", "text", "mmlu_str"]
    assert rows(lines)["arc"] == ["arc", "completions", "log-probabilities"]
    assert any("6 tasks and groups of lm-eval's own" in line for line in lines)
    assert not any("gsm8k" in line for line in lines), "the harness's own tasks are shown on demand only"


def test_a_word_searches_the_harness_own_tasks_too():
    lines = render(INSTALLATION, LM_EVAL, find="MMLU")
    assert "4 of 6 tasks and groups" in "\n".join(lines)
    found = rows(lines)
    assert [name for name in found if name.startswith("lm-eval.")] == [
        "lm-eval.mmlu",
        "lm-eval.coded_mmlu",
        "lm-eval.mmlu_art",
        "lm-eval.mmlu_law",
    ]
    # A group asks for what its members ask for, and a chat gives no log-probabilities.
    assert found["lm-eval.mmlu"] == ["lm-eval.mmlu", "completions", "log-probabilities", "group"]
    assert found["lm-eval.coded_mmlu"] == ["lm-eval.coded_mmlu", "chat, completions", "see its code", "task"]
    assert "arc" not in found


def test_long_lists_are_cut_unless_all_are_asked_for():
    many = catalogue(benchmark("h", "a"), tasks={"h": {f"t{n:03}": {"kind": "task", "asks": "x"} for n in range(100)}})
    assert "... and 60 more" in render(INSTALLATION, many, find="t")[-2]
    assert len([row for row in rows(render(INSTALLATION, many, complete=True)) if row.startswith("h.t")]) == 100


def test_a_name_of_two_harnesses_is_given_with_its_harness():
    both = catalogue(benchmark("one", "mmlu"), benchmark("two", "mmlu"), benchmark("two", "arc"))
    assert {"one.mmlu", "two.mmlu", "arc"} <= rows(render(INSTALLATION, both)).keys()
    assert "one.mmlu" not in rows(render(INSTALLATION, both, harness="two"))


@pytest.fixture
def two_environments(monkeypatch):
    """Two environments, of which the first is installed and the second is not."""

    def read(installation):
        if installation.environment == "nemo":
            return LM_EVAL
        raise EnvironmentMissingError(
            f"The environment {installation.environment!r} is not installed. Run `envs/setup.sh {installation.environment}`."
        )

    monkeypatch.setattr(
        list_evals,
        "installations",
        lambda environment, container: [NemoInstallation("nemo"), NemoInstallation("other")],
    )
    monkeypatch.setattr(list_evals, "read_catalogue", read)


def test_environments_that_are_not_installed_are_listed_with_the_reason(two_environments, capsys):
    list_evals.main([])
    said = capsys.readouterr().out
    assert "mmlu_instruct" in said
    assert "environment other: The environment 'other' is not installed. Run `envs/setup.sh other`." in said


def test_a_harness_that_is_not_there(two_environments, monkeypatch, capsys):
    monkeypatch.setattr(list_evals, "installations", lambda environment, container: [NemoInstallation("nemo")])
    list_evals.main(["--harness", "lm-evl"])
    assert "There is no harness 'lm-evl'. Harnesses: lm-eval." in capsys.readouterr().out
    list_evals.main(["--find", "nothing-like-it"])
    assert "No benchmark or task has 'nothing-like-it' in its name" in capsys.readouterr().out


def test_our_environments_of_nemo_the_default_first():
    assert environments()[0] == "nemo"
    assert {"nemo-simple-evals", "nemo-0.1", "nemo-0.3"} <= set(environments())
    assert not {"workflow", "vllm", "train"} & set(environments())


def test_images_that_the_campaign_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert campaign_installations() == []
    (tmp_path / "config" / "tasks").mkdir(parents=True)
    (tmp_path / "config" / "config.yaml").write_text(
        "tasks: [a]\ncontainers: {nemo: docker://x/nemo:1, folder: /apps}\n"
    )
    (tmp_path / "config" / "tasks" / "a.yaml").write_text("harness: nemo\ncontainer: skills.sif\n")
    (tmp_path / "config" / "tasks" / "b.yaml").write_text("scorer: {name: avert}\n")
    assert [installation.title for installation in campaign_installations()] == [
        "image /apps/x_nemo_1.sif",
        "image /apps/skills.sif",
    ]
    assert [installation.title for installation in installations()][-1] == "image /apps/skills.sif"
    assert installations(container="skills.sif") == [NemoInstallation(None, Path("/apps/skills.sif"))]
    (tmp_path / "skills.sif").touch()
    assert installations(container="skills.sif") == [NemoInstallation(None, Path("skills.sif"))], (
        "a file, as a shell completes it"
    )
    assert listing.installations("nemo") == [NemoInstallation("nemo")]
