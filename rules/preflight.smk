# Looked at before a run. Nothing here submits a job, starts a server or asks a model anything.


localrules:
    list_evals,
    plan,
    prefetch,
    preflight,


rule preflight:
    """Look at all that a run needs before a GPU is asked for: models, environments, and what the cluster offers."""
    input:
        script=script("preflight.py"),
    log:
        "logs/preflight.log",
    retries: 0  # a second look would find the same
    params:
        submission=submission,
    shell:
        """
        python {input.script:q} --submission {params.submission:q} 2>&1 | tee {log:q}
        """


rule plan:
    """Show what a run would take: GPU jobs, missing answers, and the GPU hours that earlier jobs let expect."""
    input:
        script=script("plan.py"),
    log:
        "logs/plan.log",
    retries: 0  # a second look would find the same
    params:
        submission=submission,
    shell:
        """
        python {input.script:q} --submission {params.submission:q} 2>&1 | tee {log:q}
        """


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
