# Who is asked, and what.


localrules:
    describe_checkpoint,
    prepare_prompts,


rule describe_checkpoint:
    """Say who a checkpoint is: what its files and options say, not where they lie."""
    output:
        "results/models/{ckpt}.json",
    log:
        "logs/describe_checkpoint/{ckpt}.log",
    params:
        settings=identity,
    shell:
        """
        python "$MILEPOST_SCRIPTS/describe_checkpoint.py" --settings {params.settings:q} --out {output:q} 2> >(tee {log:q} >&2)
        """


rule prepare_prompts:
    """Write down all that a task asks: items, sampling, number of samples."""
    input:
        data=data_of,
    output:
        "results/prompts/{task}.jsonl",
    log:
        "logs/prepare_prompts/{task}.log",
    params:
        asked=asked,
    shell:
        """
        python "$MILEPOST_SCRIPTS/prepare_prompts.py" --task {wildcards.task:q} --asked {params.asked} --out {output:q} 2> >(tee {log:q} >&2)
        """
