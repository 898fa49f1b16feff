# From numbers to what people look at. One process each for all checkpoints and tasks.


localrules:
    tabulate,
    plot,
    report,
    preview_prompts,


rule tabulate:
    """Put the numbers of all checkpoints and tasks into tables."""
    input:
        summaries=collect("results/summaries/{ckpt}/{task}.json", ckpt=CHECKPOINTS, task=TASKS),
        script=script("tabulate.py"),
        code=modules("tables.py"),
    output:
        scores=report("results/tables/scores.csv", caption="../report/table.rst", category="Tables"),
        metrics="results/tables/metrics.csv",
        markdown="results/tables/scores.md",
        text="results/tables/scores.txt",
    log:
        "logs/tabulate.log",
    params:
        # Here and no earlier: renaming a run scores nothing again.
        curves={name: [ckpt.run, ckpt.step] for name, ckpt in CAMPAIGN.checkpoints.items()},
        titles={name: task.title for name, task in CAMPAIGN.tasks.items()},
    shell:
        """
        python {input.script:q} --summaries results/summaries --csv {output.scores:q} --metrics {output.metrics:q} \
            --markdown {output.markdown:q} --text {output.text:q} 2> >(tee {log:q} >&2)
        """


rule plot:
    """Draw the training curve of every task, and a sheet of all."""
    input:
        scores="results/tables/scores.csv",
        metrics="results/tables/metrics.csv",
        script=script("plot.py"),
        code=modules("figures.py"),
    output:
        report(
            collect("results/figures/{task}.svg", task=TASKS),
            caption="../report/curve.rst",
            category="Curves",
        ),
        report("results/figures/all.svg", caption="../report/sheet.rst", category="Curves"),
        collect("results/figures/{figure}.png", figure=[*TASKS, "all"]),
        collect("results/figures/{task}.csv", task=TASKS),
    log:
        "logs/plot.log",
    params:
        beside={name: task.spec.get("beside", []) for name, task in CAMPAIGN.tasks.items()},
    shell:
        """
        python {input.script:q} --scores {input.scores:q} --metrics {input.metrics:q} --out results/figures \
            2> >(tee {log:q} >&2)
        """


rule report:
    """Write the report: tables, curves, coverage, cost and provenance on one page that opens offline."""
    input:
        evaluated=ancient(collect("results/evaluated/{ckpt}.json", ckpt=CHECKPOINTS)),
        summaries=collect("results/summaries/{ckpt}/{task}.json", ckpt=CHECKPOINTS, task=TASKS),
        scores="results/tables/scores.csv",
        metrics="results/tables/metrics.csv",
        figures=collect("results/figures/{figure}.svg", figure=[*TASKS, "all"]),
        script=script("report.py"),
        code=modules("report.py"),
        template=str(CODE / "report" / "report.html.j2"),
    output:
        "results/report.html",
    log:
        "logs/report.log",
    params:
        title=config.get("title"),
    shell:
        """
        python {input.script:q} --scores {input.scores:q} --metrics {input.metrics:q} --figures results/figures \
            --results results --out {output:q} 2> >(tee {log:q} >&2)
        """


rule preview_prompts:
    """Print the first prompt of every task as the model sees it, chat template applied."""
    input:
        prompts=collect("results/prompts/{task}.jsonl", task=TASKS),
        script=script("preview_prompts.py"),
    log:
        "logs/preview_prompts.log",
    params:
        ckpt=CHECKPOINTS[0],
    shell:
        """
        python {input.script:q} --ckpt {params.ckpt:q} --prompts {input.prompts:q} 2> >(tee {log:q} >&2)
        """
