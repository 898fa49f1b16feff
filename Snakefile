# Milepost: scores every checkpoint of a training run. This file is the table of contents; rules/ holds the rules.
# Run it from a campaign's folder: snakemake --profile slurm


configfile: "config/config.yaml"


include: "rules/looks.smk"
include: "rules/common.smk"
include: "rules/submission.smk"
include: "rules/preflight.smk"
include: "rules/prepare.smk"
include: "rules/images.smk"
include: "rules/endpoints.smk"
include: "rules/evaluate.smk"
include: "rules/score.smk"
include: "rules/report.smk"
include: "rules/phases.smk"


rule all:
    """Every table, figure and the report that the config asks for."""
    default_target: True
    input:
        # Made last, and only if every task has a number: without it, a run ends with exit code 1.
        "results/checked.json",
        "results/report.html",
        # Behind an `ancient` input alone, a change of its config would not be seen.
        IMAGES,
        # Behind an existing report, Snakemake overlooks that one of these is missing.
        COMPARED,
        NUMBERS,
        CURVES,
        collect("results/summaries/{ckpt}/{task}.json", ckpt=CHECKPOINTS, task=TASKS),
        collect("results/scores/{ckpt}/{task}.jsonl", ckpt=CHECKPOINTS, task=TASKS),
        [answers_of(ckpt, task) for ckpt in CHECKPOINTS for task in TASKS],
        [f"results/{SCORERS[task].name}/{task}" for task in TABULATED],


onstart:
    keep_others_locks()
    hand_down_resources(rules.serve_shared.rule)


onsuccess:
    stop_shared_servers()


onerror:
    stop_shared_servers()
    # Earlier, it would take waiting jobs with it; the next run goes on with these checkpoints. A look that fails may stand
    # beside a run whose jobs wait.
    if not only_looks(BESIDE):
        remove_withdrawn_notes()
    if any(Path("results/summaries").glob("*/*.json")) and not only_looks(BESIDE):
        print("`snakemake partial_report` makes tables, figures and a report of what is there.", file=sys.stderr)
    explain_failed_jobs(log)
