# From answers to scores and numbers. Cheap: none of it starts a model under test.


localrules:
    judge_answers,
    score_answers,
    score_harness,
    tabulate_task,


rule score_answers:
    """Score the answers of one checkpoint to one task. Cheap: rerun it freely."""
    input:
        answers="results/answers/{ckpt}/{task}.jsonl",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
        files=scorer_files,
    output:
        scores="results/scores/{ckpt}/{task}.jsonl",
        summary="results/summaries/{ckpt}/{task}.json",
    log:
        "logs/score_answers/{ckpt}/{task}.log",
    wildcard_constraints:
        task=names(BY_RULE),
    params:
        scored=scored,
        scoring=scoring,
    shell:
        """
        python "$MILEPOST_SCRIPTS/score_answers.py" --ckpt {wildcards.ckpt:q} --task {wildcards.task:q} --scoring {params.scoring:q} \
            --model {input.model:q} --prompts {input.prompts:q} --answers {input.answers:q} \
            --scored {params.scored} --scores {output.scores:q} --summary {output.summary:q} 2> >(tee {log:q} >&2)
        """


# Loads a model of its own, or computes for minutes.
use rule score_answers as score_on_node with:
    wildcard_constraints:
        task=names(ON_NODE),


# Waits for judges, and computes next to nothing.
use rule score_answers as judge_answers with:
    wildcard_constraints:
        task=names(JUDGED),


rule prepare_tables:
    """Prepare what a task's scorer reports beside scores: the part of it that rests on the task alone."""
    input:
        prompts="results/prompts/{task}.jsonl",
        files=scorer_files,
    output:
        directory("results/prepared/{task}"),
    log:
        "logs/prepare_tables/{task}.log",
    wildcard_constraints:
        task=names(PREPARED),
    params:
        scorer=prepares,
        code=scorer_code("prepare_tables.py"),
    shell:
        """
        python "$MILEPOST_SCRIPTS/prepare_tables.py" --task {wildcards.task:q} --scorer {params.scorer:q} --prompts {input.prompts:q} \
            --out {output:q} 2> >(tee {log:q} >&2)
        """


rule tabulate_task:
    """Write what a task's scorer reports beside scores: its own files, tables and figures, from all checkpoints."""
    input:
        scores=collect("results/scores/{ckpt}/{{task}}.jsonl", ckpt=CHECKPOINTS),
        summaries=collect("results/summaries/{ckpt}/{{task}}.json", ckpt=CHECKPOINTS),
        answers=collect("results/answers/{ckpt}/{{task}}.jsonl", ckpt=CHECKPOINTS),
        prompts="results/prompts/{task}.jsonl",
        files=scorer_files,
        prepared=prepared,
    output:
        directory("results/{scorer}/{task}"),
    log:
        "logs/tabulate_task/{scorer}/{task}.log",
    wildcard_constraints:
        task=names(TABULATED),
        scorer=names({SCORERS[task].name for task in TABULATED}),
    params:
        told=tabulates,
        prepared=lambda wildcards, input: ["--prepared", input.prepared] if input.prepared else [],
        code=scorer_code("tabulate_task.py"),
    shell:
        """
        python "$MILEPOST_SCRIPTS/tabulate_task.py" --task {wildcards.task:q} --told {params.told:q} --results results \
            --prompts {input.prompts:q} {params.prepared:q} --out {output:q} 2> >(tee {log:q} >&2)
        """


rule score_harness:
    """Turn NeMo Evaluator's results for one checkpoint and task into scores and numbers of ours."""
    input:
        harness="results/harness/{ckpt}/{task}",
        prompts="results/prompts/{task}.jsonl",
        model="results/models/{ckpt}.json",
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
        python "$MILEPOST_SCRIPTS/score_harness.py" --ckpt {wildcards.ckpt:q} --task {wildcards.task:q} --model {input.model:q} \
            --prompts {input.prompts:q} --harness {input.harness:q} \
            --scored {params.scored} --scores {output.scores:q} --summary {output.summary:q} 2> >(tee {log:q} >&2)
        """
