# Servers that many jobs ask. A job that needs one starts it by itself; these rules are for people.
SERVED = config.get("endpoint")


localrules:
    check_endpoint,
    forget_refusals,
    stop_servers,


rule check_endpoint:
    """Ask endpoints one small question each, and say what is wrong (--config endpoint=NAME: only this one)."""
    log:
        "logs/check_endpoint.log",
    retries: 0  # a second look would find the same
    params:
        endpoint=["--endpoint", SERVED] if SERVED else [],
    shell:
        """
        python "$MILEPOST_SCRIPTS/check_endpoint.py" {params.endpoint:q} 2>&1 | tee {log:q}
        """


rule serve_shared:
    """Serve a shared endpoint until told to end, also for others than this campaign (--config endpoint=NAME)."""
    log:
        "logs/serve_shared.log",
    retries: 0
    resources:
        gpu=gpus,
    params:
        endpoint=SERVED or "",
    # The server's last words come after the signal that ends all of this, and are written down as well.
    shell:
        """
        python "$MILEPOST_SCRIPTS/serve_shared.py" --endpoint {params.endpoint:q} --kept 2>&1 | (
            trap '' INT TERM
            exec tee {log:q}
        )
        """


rule forget_attempt:
    """Take out what one attempt stored (--config forget=CKPT/ATTEMPT); the next run asks for it again."""
    log:
        "logs/forget_attempt.log",
    retries: 0
    params:
        of=config.get("forget", ""),
    shell:
        """
        python "$MILEPOST_SCRIPTS/forget_attempt.py" --of {params.of:q} 2>&1 | tee {log:q}
        """


rule forget_refusals:
    """Have what an endpoint refused for good asked again by the next run (--config forget=CKPT or CKPT/TASK: only theirs)."""
    log:
        "logs/forget_refusals.log",
    retries: 0
    params:
        of=["--of", config["forget"]] if "forget" in config else [],
    shell:
        """
        python "$MILEPOST_SCRIPTS/forget_refusals.py" {params.of:q} 2>&1 | tee {log:q}
        """


rule stop_servers:
    """End the servers that this campaign's jobs share, at once, and those of serve_shared."""
    log:
        "logs/stop_servers.log",
    shell:
        """
        python "$MILEPOST_SCRIPTS/stop_servers.py" 2>&1 | tee {log:q}
        """
