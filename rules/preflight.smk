# Looked at before a run. Nothing here submits a job, starts a server or asks a model anything.


localrules:
    list_evals,
    plan,
    prefetch,
    preflight,


rule preflight:
    """Look at all that a run needs before a GPU is asked for: models, environments, and what the cluster offers."""
    log:
        "logs/preflight.log",
    retries: 0  # a second look would find the same
    params:
        submission=submission,
    shell:
        """
        python "$MILEPOST_SCRIPTS/preflight.py" --submission {params.submission:q} 2>&1 | tee {log:q}
        """


rule plan:
    """Show what a run would take: GPU jobs, missing answers, and the GPU hours that earlier jobs let expect."""
    log:
        "logs/plan.log",
    retries: 0  # a second look would find the same
    params:
        submission=submission,
    shell:
        """
        python "$MILEPOST_SCRIPTS/plan.py" --submission {params.submission:q} 2>&1 | tee {log:q}
        """


rule list_evals:
    """Print what NeMo Evaluator can run here (--config find=WORD: only what has the word in its name)."""
    log:
        "logs/list_evals.log",
    params:
        find=["--find", str(config["find"])] if "find" in config else [],
    shell:
        """
        python "$MILEPOST_SCRIPTS/list_evals.py" {params.find:q} 2> >(tee {log:q} >&2)
        """


rule prefetch:
    """Bring data sets, tokenizers and hub models of this campaign into HF_HOME, for nodes without a way to the hub."""
    log:
        "logs/prefetch.log",
    shell:
        """
        python "$MILEPOST_SCRIPTS/prefetch.py" 2> >(tee {log:q} >&2)
        """
