# From models to answers. Only evaluate_checkpoint costs GPU time.


localrules:
    collect_answers,
    collect_harness,


rule evaluate_checkpoint:
    """Serve one checkpoint once and ask it all that its store does not answer yet. One GPU job; resumes by itself."""
    input:
        prompts=collect("results/prompts/{task}.jsonl", task=TASKS),
        model="results/models/{ckpt}.json",
        images=ancient(IMAGES),
    output:
        note="results/evaluated/{ckpt}.json",
    log:
        "logs/evaluate_checkpoint/{ckpt}.log",
    priority: 10  # the next server starts while the last answers are scored
    resources:
        gpu=gpus,
        server=servers,
    shell:
        """
        python "$MILEPOST_SCRIPTS/evaluate_checkpoint.py" --ckpt {wildcards.ckpt:q} --model {input.model:q} --prompts {input.prompts:q} \
            --gpus {resources.gpu} --log {log:q} --out {output.note:q}
        """


rule collect_answers:
    """Copy the answers to one task out of the store, sorted. Fails, and says why, if some are missing."""
    input:
        evaluated=evaluation_of,
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
    output:
        "results/answers/{ckpt}/{task}.jsonl",
    log:
        "logs/collect_answers/{ckpt}/{task}.log",
    wildcard_constraints:
        ckpt=awaited("native", r"\.jsonl"),
        task=NATIVE,
    retries: 0  # a second look would find the same
    params:
        code=code("collect_answers.py"),
    shell:
        """
        python "$MILEPOST_SCRIPTS/collect_answers.py" --ckpt {wildcards.ckpt:q} --model {input.model:q} --prompts {input.prompts:q} \
            --evaluated results/evaluated/{wildcards.ckpt:q}.json --code {params.code} --out {output:q} 2> >(tee {log:q} >&2)
        """


rule collect_harness:
    """Copy NeMo Evaluator's results for one task out of the store. Fails, and says why, if a run is missing."""
    input:
        evaluated=evaluation_of,
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
    output:
        directory("results/harness/{ckpt}/{task}"),
    log:
        "logs/collect_harness/{ckpt}/{task}.log",
    wildcard_constraints:
        ckpt=awaited("nemo"),
        task=NEMO,
    retries: 0  # a second look would find the same
    params:
        code=code("collect_harness.py"),
    shell:
        """
        python "$MILEPOST_SCRIPTS/collect_harness.py" --ckpt {wildcards.ckpt:q} --model {input.model:q} --prompts {input.prompts:q} \
            --evaluated results/evaluated/{wildcards.ckpt:q}.json --code {params.code} --out {output:q} 2> >(tee {log:q} >&2)
        """
