# Looked at before a run. Nothing here submits a job, starts a server or asks a model anything.


localrules:
    plan,
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
