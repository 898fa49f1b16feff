"""Run `snakemake --lint` on the workflow; fail on any finding but its wish for a conda environment per rule.

Rules name no environment: envs/setup.sh makes them all, and a project that was moved must not evaluate anything again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IGNORED = "Specify a conda environment or container for each rule."


def main() -> None:
    """Print the findings that count, one a line."""
    with tempfile.TemporaryDirectory() as campaign:
        make_campaign(Path(campaign))
        # As text: Snakemake 9.27 takes `--lint json` and prints text all the same.
        command = ["snakemake", "--snakefile", ROOT / "Snakefile", "--directory", campaign, "--lint"]
        lint = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    total, findings = read_findings(lint.stdout)
    if lint.returncode != 0 and total == 0:
        sys.exit(f"{lint.stdout}snakemake --lint failed.")
    if findings:
        sys.exit("\n".join([*findings, f"snakemake --lint found {len(findings)} thing(s) to correct."]))


def make_campaign(folder: Path) -> None:
    """The project's own configuration with one checkpoint: without any, there is no workflow to look at."""
    shutil.copytree(ROOT / "config", folder / "config")
    (folder / "model").mkdir()
    for name, content in {"config.json": "{}", "tokenizer_config.json": '{"chat_template": "any"}'}.items():
        (folder / "model" / name).write_text(content)
    (folder / "config" / "checkpoints.tsv").write_text("name\tmodel\nany\tmodel\n")


def read_findings(text: str) -> tuple[int, list[str]]:
    """The number of all findings in Snakemake's text, and those that count.

    >>> read_findings("Lints for rule a (line 1, F):\\n    * No log directive defined:\\n      Without ...\\n")
    (1, ['rule a (line 1, F): No log directive defined'])
    >>> read_findings(f"Lints for rule a (line 1, F):\\n    * {IGNORED}:\\n      This way ...\\n")
    (1, [])
    """
    place, total, findings = "", 0, []
    for line in text.splitlines():
        if line.startswith("Lints for "):
            place = line.removeprefix("Lints for ").removesuffix(":")
        elif line.startswith("    * "):
            total += 1
            title = line.removeprefix("    * ").removesuffix(":")
            if title != IGNORED:
                findings.append(f"{place}: {title}")
    return total, findings


if __name__ == "__main__":
    main()
