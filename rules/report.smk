# From numbers to what people look at. One process each for all checkpoints and tasks.


localrules:
    check_numbers,
    compare,
    partial_report,
    tabulate,
    plot,
    report,
    preview_prompts,


# Named here and not as `rules.compare.output`: behind that, Snakemake takes the square of the number of a rule's inputs.
COMPARED = [f"results/tables/{name}.csv" for name in ("comparisons", "flips", "steps", "trends", "ranking")]
NUMBERS = [*(f"results/tables/{name}" for name in ("scores.csv", "metrics.csv", "scores.md", "scores.txt")), *TABLES]
CURVES = [f"results/figures/{figure}.{kind}" for figure in [*TASKS, "all"] for kind in ("svg", "png", "csv")]


rule compare:
    """Compare checkpoints item by item: pairs, the steps of each run, ranks. Asks and scores nothing."""
    input:
        scores=collect("results/scores/{ckpt}/{task}.jsonl", ckpt=CHECKPOINTS, task=TASKS),
        summaries=collect("results/summaries/{ckpt}/{task}.json", ckpt=CHECKPOINTS, task=TASKS),
    output:
        COMPARED,
    log:
        "logs/compare.log",
    params:
        code=code("compare.py"),
        # The places of checkpoints on curves come in here and no earlier: renaming a run scores nothing again.
        settings=shown("comparisons", numbers=True),
    shell:
        """
        python "$MILEPOST_SCRIPTS/compare.py" --settings {params.settings:q} --scores results/scores --summaries results/summaries --out results/tables \
            2> >(tee {log:q} >&2)
        """


rule tabulate:
    """Put the numbers of all checkpoints and tasks into tables."""
    input:
        summaries=collect("results/summaries/{ckpt}/{task}.json", ckpt=CHECKPOINTS, task=TASKS),
        compared=COMPARED,
    output:
        scores=report("results/tables/scores.csv", caption="../report/table.rst", category="Tables"),
        metrics="results/tables/metrics.csv",
        markdown="results/tables/scores.md",
        text="results/tables/scores.txt",
        on_request=TABLES,
    log:
        "logs/tabulate.log",
    params:
        code=code("tabulate.py"),
        settings=shown("tables", "title", "marks", numbers=True),
        # Left from an earlier run that was asked for them, they would show its numbers beside new ones.
        unwanted=[path for path in ("results/tables/scores.tex", "results/tables/scores.xlsx") if path not in TABLES],
    shell:
        """
        rm -f {params.unwanted:q}
        python "$MILEPOST_SCRIPTS/tabulate.py" --settings {params.settings:q} --summaries results/summaries --compared results/tables --csv {output.scores:q} \
            --metrics {output.metrics:q} --markdown {output.markdown:q} --text {output.text:q} \
            --also {output.on_request:q} 2> >(tee {log:q} >&2)
        """


rule plot:
    """Draw the training curve of every task, and a sheet of all."""
    input:
        scores="results/tables/scores.csv",
        metrics="results/tables/metrics.csv",
        steps="results/tables/steps.csv",
    output:
        report(
            collect("results/figures/{task}.svg", task=TASKS),
            caption="../report/curve.rst",
            category="Curves",
        ),
        report("results/figures/all.svg", caption="../report/sheet.rst", category="Curves"),
        collect("results/figures/{figure}.png", figure=[*TASKS, "all"]),
        collect("results/figures/{figure}.csv", figure=[*TASKS, "all"]),
    log:
        "logs/plot.log",
    params:
        code=code("plot.py"),
        settings=shown("figures"),
    shell:
        """
        python "$MILEPOST_SCRIPTS/plot.py" --settings {params.settings:q} --scores {input.scores:q} --metrics {input.metrics:q} --steps {input.steps:q} \
            --out results/figures 2> >(tee {log:q} >&2)
        """


rule report:
    """Write the report: scores, curves, comparisons, coverage, cost, provenance on one page that opens offline."""
    input:
        summaries=collect("results/summaries/{ckpt}/{task}.json", ckpt=CHECKPOINTS, task=TASKS),
        prompts=collect("results/prompts/{task}.jsonl", task=TASKS),
        scores="results/tables/scores.csv",
        metrics="results/tables/metrics.csv",
        compared=COMPARED,
        figures=collect("results/figures/{task}.svg", task=TASKS),
    output:
        "results/report.html",
    log:
        "logs/report.log",
    params:
        code=code("report.py"),
        templates=digest_of([path.read_text() for path in sorted(CODE.glob("report/*.*"))]),
        settings=shown("title", numbers=True),
    shell:
        """
        python "$MILEPOST_SCRIPTS/report.py" --settings {params.settings:q} --tables results/tables --figures results/figures --prompts results/prompts \
            --summaries results/summaries --store results/store --bills results/bills.json --out {output:q} 2> >(tee {log:q} >&2)
        """


rule check_numbers:
    """Say which numbers are not what they seem. Fails if nothing of a task could be scored, when all else is made."""
    input:
        # Everything that a run makes: this is its last step, so that its failure keeps nothing from being made.
        report="results/report.html",
        scores="results/tables/scores.csv",
        own=[f"results/{SCORERS[task].name}/{task}" for task in TABULATED],
    output:
        "results/checked.json",
    log:
        "logs/check_numbers.log",
    retries: 0  # a second look would find the same
    params:
        code=code("check_numbers.py"),
    shell:
        """
        python "$MILEPOST_SCRIPTS/check_numbers.py" --scores {input.scores:q} --out {output:q} 2> >(tee {log:q} >&2)
        """


rule partial_report:
    """Make tables, figures and a report of what is scored so far, in results/partial. Asks and scores nothing."""

    # No result is an input: it takes what lies there, and nothing is made for it. Without outputs, it always runs.
    log:
        "logs/partial_report.log",
    shell:
        """
        python "$MILEPOST_SCRIPTS/partial_report.py" 2> >(tee {log:q} >&2)
        """


rule preview_prompts:
    """Print the first prompt of every task as the model sees it, chat template applied."""
    input:
        prompts=collect("results/prompts/{task}.jsonl", task=TASKS),
    log:
        "logs/preview_prompts.log",
    params:
        ckpt=CHECKPOINTS[0],
    shell:
        """
        python "$MILEPOST_SCRIPTS/preview_prompts.py" --ckpt {params.ckpt:q} --prompts {input.prompts:q} 2> >(tee {log:q} >&2)
        """
