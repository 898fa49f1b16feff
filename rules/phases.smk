# Parts of a run, for whoever makes them at different times. A run makes all of them by itself.


localrules:
    answers,
    scores,
    figures,


rule answers:
    """Ask all checkpoints what they have not answered yet. Scores nothing, and asks no judge."""
    input:
        [answers_of(ckpt, task) for ckpt in CHECKPOINTS for task in TASKS],
    log:
        "logs/answers.log",
    shell:
        "echo 'All answers are there.' >{log:q}"


rule scores:
    """Score and judge all answers that are there. Starts no checkpoint's server."""
    input:
        scores_of_collected,
    log:
        "logs/scores.log",
    shell:
        "echo 'All answers that are there are scored.' >{log:q}"


rule figures:
    """Draw tables and curves of all numbers."""
    input:
        COMPARED,
        NUMBERS,
        CURVES,
    log:
        "logs/figures.log",
    shell:
        "echo 'All tables and figures are there.' >{log:q}"
