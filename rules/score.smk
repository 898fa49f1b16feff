# From answers to scores and numbers. Cheap: none of it starts a model under test.


localrules:
    score_answers,
    score_by_answer_key,
    score_harness,
    tabulate_equator,


rule score_answers:
    """Score the answers of one checkpoint to one task. Cheap: rerun it freely."""
    input:
        answers="results/answers/{ckpt}/{task}.jsonl",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
        script=script("score_answers.py"),
    output:
        scores="results/scores/{ckpt}/{task}.jsonl",
        summary="results/summaries/{ckpt}/{task}.json",
    log:
        "logs/score_answers/{ckpt}/{task}.log",
    wildcard_constraints:
        task=names(BY_RULE),
    params:
        scored=scored,
    shell:
        """
        python {input.script:q} --ckpt {wildcards.ckpt:q} --task {wildcards.task:q} --model {input.model:q} \
            --prompts {input.prompts:q} --answers {input.answers:q} \
            --scored {params.scored} --scores {output.scores:q} --summary {output.summary:q} 2> >(tee {log:q} >&2)
        """


use rule score_answers as score_by_meaning with:
    wildcard_constraints:
        task=names(BY_MEANING),


rule build_answer_key:
    """Keep a task's answer key in a Chroma collection, and try how well a search for the nearest question finds it."""
    input:
        key=answer_key_of,
        prompts="results/prompts/{task}.jsonl",
        script=script("build_answer_key.py"),
    output:
        collection=directory("results/answer_keys/{task}/collection"),
        retrieval="results/answer_keys/{task}/retrieval.json",
    log:
        "logs/build_answer_key/{task}.log",
    wildcard_constraints:
        task=names(BY_ANSWER_KEY),
    params:
        code=code("build_answer_key.py"),
    shell:
        """
        python {input.script:q} --key {input.key:q} --prompts {input.prompts:q} \
            --collection {output.collection:q} --retrieval {output.retrieval:q} 2> >(tee {log:q} >&2)
        """


# Waits for evaluators, and computes next to nothing.
use rule score_answers as score_by_answer_key with:
    input:
        answers="results/answers/{ckpt}/{task}.jsonl",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
        key=rules.build_answer_key.output.collection,
        script=script("score_answers.py"),
    wildcard_constraints:
        task=names(BY_ANSWER_KEY),
    params:
        scored=scored,


rule tabulate_equator:
    """Put the verdicts on one task into EQUATOR's files, and one table and figure by category and model."""
    input:
        scores=collect("results/scores/{ckpt}/{{task}}.jsonl", ckpt=CHECKPOINTS),
        summaries=collect("results/summaries/{ckpt}/{{task}}.json", ckpt=CHECKPOINTS),
        answers=collect("results/answers/{ckpt}/{{task}}.jsonl", ckpt=CHECKPOINTS),
        prompts="results/prompts/{task}.jsonl",
        key=answer_key_of,
        retrieval="results/answer_keys/{task}/retrieval.json",
        script=script("tabulate_equator.py"),
    output:
        directory("results/equator/{task}"),
    log:
        "logs/tabulate_equator/{task}.log",
    wildcard_constraints:
        task=names(BY_ANSWER_KEY),
    params:
        code=code("tabulate_equator.py"),
        label=lambda wildcards: CAMPAIGN.tasks[wildcards.task].spec["scorer"].get("label", wildcards.task),
    shell:
        """
        python {input.script:q} --task {wildcards.task:q} --results results --prompts {input.prompts:q} \
            --key {input.key:q} --retrieval {input.retrieval:q} --label {params.label:q} --out {output:q} \
            2> >(tee {log:q} >&2)
        """


rule score_harness:
    """Turn NeMo Evaluator's results for one checkpoint and task into scores and numbers of ours."""
    input:
        harness="results/harness/{ckpt}/{task}",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
        script=script("score_harness.py"),
    output:
        scores="results/scores/{ckpt}/{task}.jsonl",
        summary="results/summaries/{ckpt}/{task}.json",
    log:
        "logs/score_harness/{ckpt}/{task}.log",
    wildcard_constraints:
        task=NEMO,
    params:
        scored=scored,
    shell:
        """
        python {input.script:q} --ckpt {wildcards.ckpt:q} --task {wildcards.task:q} --model {input.model:q} \
            --prompts {input.prompts:q} --harness {input.harness:q} \
            --scored {params.scored} --scores {output.scores:q} --summary {output.summary:q} 2> >(tee {log:q} >&2)
        """
