"""t_colours as NeMo Evaluator 0.3 takes a benchmark of one's own: the same items, asked and compared alike."""

import string

from nemo_evaluator.environments.custom import benchmark, scorer


def plain(text):
    """Without case and punctuation, as lm-eval compares."""
    return text.lower().translate(str.maketrans("", "", string.punctuation))


@benchmark(name="colours", dataset="data/colours.jsonl", prompt="{question}", target_field="target")
@scorer
def score(sample):
    return {"correct": plain(sample.response) == plain(str(sample.target))}
