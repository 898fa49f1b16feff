# From answers to scores and numbers. Cheap: none of it starts a model under test.


localrules:
    score_answers,
    score_harness,


rule score_answers:
    """Score the answers of one checkpoint to one task. Cheap: rerun it freely."""
    input:
        answers="results/answers/{ckpt}/{task}.jsonl",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
        script=script("score_answers.py"),
        code=modules("scorers/*.py", "text.py", "stats.py", "summary.py"),
    output:
        scores="results/scores/{ckpt}/{task}.jsonl",
        summary="results/summaries/{ckpt}/{task}.json",
    log:
        "logs/score_answers/{ckpt}/{task}.log",
    wildcard_constraints:
        task=names(BY_RULE),
    params:
        scoring=scoring,
    shell:
        """
        python {input.script:q} --ckpt {wildcards.ckpt:q} --task {wildcards.task:q} --model {input.model:q} \
            --prompts {input.prompts:q} --answers {input.answers:q} \
            --scores {output.scores:q} --summary {output.summary:q} 2> >(tee {log:q} >&2)
        """


use rule score_answers as score_by_meaning with:
    wildcard_constraints:
        task=names(BY_MEANING),


rule score_harness:
    """Turn NeMo Evaluator's results for one checkpoint and task into scores and numbers of ours."""
    input:
        harness="results/harness/{ckpt}/{task}",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
        script=script("score_harness.py"),
        code=modules("harness.py", "nemo_results.py", "stats.py", "summary.py"),
    output:
        scores="results/scores/{ckpt}/{task}.jsonl",
        summary="results/summaries/{ckpt}/{task}.json",
    log:
        "logs/score_harness/{ckpt}/{task}.log",
    wildcard_constraints:
        task=NEMO,
    params:
        scoring=scoring,
    shell:
        """
        python {input.script:q} --ckpt {wildcards.ckpt:q} --task {wildcards.task:q} --model {input.model:q} \
            --prompts {input.prompts:q} --harness {input.harness:q} \
            --scores {output.scores:q} --summary {output.summary:q} 2> >(tee {log:q} >&2)
        """
