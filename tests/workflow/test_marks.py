"""Campaigns over other people's servers that do not answer as they should: the numbers say so, and so does the run's end."""

import csv
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from campaigns import REPOSITORY, Campaign

sys.path.insert(0, str(REPOSITORY / "tests"))
from providers import Server, serve

# A way to answer, the mark of its number, and words of the reason.
EXPECTED = {
    "thinker": ("only reasoning 100 %", "the parser does not fit the model"),
    "refuser": ("refused 100 %", "I cannot help with that"),
    "filtered": ("filtered 100 %", "content filter"),
    "caller": ("only tool calls 100 %", "calls of tools"),
    "broken": ("identical 100 %", "'!!!!'"),
    "blank": ("empty 100 %", "are empty"),
    "short": ("cut off 100 %", "Raise `max_tokens`"),
    "mixed": ("2 models", "other"),
}


def ask(campaign: Campaign, server: Server, names: list[str], **options: Any) -> None:
    """Make a campaign of eight items over these models."""
    entries = {name: {"provider": "external", "url": server.url, "model": name, **options} for name in names}
    if "mixed" in entries:
        entries["mixed"]["accepts"] = ["mixed", "other"]
    campaign.write("config/endpoints.yaml", yaml.safe_dump(entries))
    campaign.sheet(",".join(f"{name} {name}" for name in names), "name endpoint")


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_that_are_not_what_they_seem_say_so(make_campaign: Callable[..., Campaign]) -> None:
    with serve() as server:
        campaign = make_campaign(tasks=("t1",))
        items = [
            {"id": f"i{at}", "messages": [{"role": "user", "content": f"hello {at}"}], "target": f"hello {at}"}
            for at in range(8)
        ]
        campaign.write("data/t1.jsonl", "".join(json.dumps(item) + "\n" for item in items))
        campaign.task("t1", samples=1, scorer={"name": "exact_match"})
        campaign.select("t1", tables={"formats": ["tex", "xlsx"]})
        ask(campaign, server, ["sound", *EXPECTED])
        run = campaign.run()
        assert run.rc == 0, run.said
        results = campaign.folder / "results"
        rows = {row["ckpt"]: row for row in read(results / "tables/scores.csv")}
        assert (rows["sound"]["value"], rows["sound"]["marks"], rows["sound"]["reasons"]) == ("1.0", "", "")
        texts = {name: (results / f"tables/scores.{name}").read_text() for name in ("md", "txt", "tex")}
        page = (results / "report.html").read_text()
        first_screen = page[: page.index('id="curves"')]
        with zipfile.ZipFile(results / "tables/scores.xlsx") as book:
            sheet = book.read("xl/sharedStrings.xml").decode()
        drawn = {row["ckpt"]: row["marks"] for row in read(results / "figures/t1.csv")}
        metrics = {row["ckpt"]: row["marks"] for row in read(results / "tables/metrics.csv")}
        for name, (mark, words) in EXPECTED.items():
            assert mark in rows[name]["marks"]
            assert words in rows[name]["reasons"]
            assert mark in drawn[name]
            assert mark in metrics[name]
            latex = mark.replace("%", r"\%")
            for text, shown in ((texts["md"], mark), (texts["txt"], mark), (texts["tex"], latex), (sheet, mark)):
                assert f"! {shown}" in text
            assert f"! {mark}" in first_screen
            assert f"! {name}, t1:" in run.said
        assert "9 numbers are not what they seem" not in first_screen
        assert "8 of 9 numbers are not what" in " ".join(first_screen.split())
        # What stands in place of an answer is kept, and counted by kind.
        kept = {name: campaign.stored(name, "t1")[0] for name in EXPECTED}
        assert kept["refuser"]["refusal"] == "I cannot help with that."
        assert kept["caller"]["tool_calls"][0]["function"]["name"] == "f"
        assert kept["filtered"]["finish_reason"] == "content_filter"
        kinds = {"refuser": "refused", "filtered": "filtered", "caller": "tool_calls", "thinker": "reasoning_only"}
        assert all(campaign.summary(name, "t1")["rates"][kind] == 1.0 for name, kind in kinds.items())
        # Shares are the user's; a change scores nothing.
        campaign.select("t1", marks={"identical": 1})
        run = campaign.run()
        assert (run.rc, run.scores) == (0, 0), run.said
        assert {row["ckpt"]: row["marks"] for row in read(results / "tables/scores.csv")}["broken"] == ""


def test_a_task_of_which_nothing_could_be_scored_fails_the_run_when_all_else_is_made(
    make_campaign: Callable[..., Campaign],
) -> None:
    with serve() as server:
        campaign = make_campaign(tasks=("t1",))
        ask(campaign, server, ["sound", "tiny"])
        run = campaign.run()
        assert run.rc == 1, run.said
        assert "NothingScoredError: 1 of 2 numbers are missing, because nothing could be scored: tiny/t1." in run.said
        assert "Traceback" not in run.said
        results = campaign.folder / "results"
        assert not (results / "checked.json").exists()
        assert "Nothing of it could be scored" in (results / "report.html").read_text()
        rows = {row["ckpt"]: row for row in read(results / "tables/scores.csv")}
        assert (rows["sound"]["value"], rows["tiny"]["value"]) == ("1.0", "")
        # Again, and nothing is made but the check; it fails as before.
        run = campaign.run()
        assert (run.rc, set(run.rules) - {"all"}) == (1, {"check_numbers"}), run.said
        # With the cause gone, all is well, and then there is nothing to do.
        ask(campaign, server, ["sound"])
        assert campaign.run().rc == 0
        assert json.loads((results / "checked.json").read_bytes()) == {"numbers": 1, "marked": []}
        run = campaign.run()
        assert (run.rc, run.rules) == (0, {})
