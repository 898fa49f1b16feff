# Looked at before a run.


localrules:
    list_evals,
    prefetch,


rule list_evals:
    """Print what NeMo Evaluator can run here (--config find=WORD: only what has the word in its name)."""
    input:
        script=script("list_evals.py"),
    log:
        "logs/list_evals.log",
    params:
        find=["--find", str(config["find"])] if "find" in config else [],
    shell:
        """
        python {input.script:q} {params.find:q} 2> >(tee {log:q} >&2)
        """


rule prefetch:
    """Bring data sets, tokenizers and hub models of this campaign into HF_HOME, for nodes without a way to the hub."""
    input:
        script=script("prefetch.py"),
    log:
        "logs/prefetch.log",
    shell:
        """
        python {input.script:q} 2> >(tee {log:q} >&2)
        """
