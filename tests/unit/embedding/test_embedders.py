import sys
import time
from itertools import product

import numpy as np
import pytest

from milepost.embedding.embedders import CosineSimilarity, MiniLM, checked_vectors
from milepost.embedding.minilm import MAX_TOKENS
from milepost.errors import EnvironmentMissingError, ServerError
from milepost.runtime import environments
from milepost.runtime.environments import environment_python
from milepost.scorers.avert.scorer import Scorer

READY = "import json, sys, struct\nprint('ready', flush=True)\n"


def worker(tmp_path, code):
    file = tmp_path / "worker.py"
    file.write_text(code)
    return MiniLM(sys.executable, file)


def environment_is_there():
    try:
        environment_python("semantic")
    except EnvironmentMissingError:
        return False
    return True


needs_model = pytest.mark.skipif(not environment_is_there(), reason="envs/semantic is not installed")


def test_environment_python(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "_ENVS", tmp_path)
    (tmp_path / "semantic").mkdir()
    (tmp_path / "semantic/requirements.in").touch()
    with pytest.raises(EnvironmentMissingError, match=r"not installed.*setup.sh semantic"):
        environment_python("semantic")
    with pytest.raises(EnvironmentMissingError, match=r"no environment 'semantics'.*Did you mean 'semantic'"):
        environment_python("semantics")
    python = tmp_path / "semantic/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert environment_python("semantic") == python


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 0.0]], r"shape \(1, 2\) for 2 texts"),
        ([[1.0], [1.0, 2.0]], "unequal size"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([[], []], r"shape \(2, 0\)"),
        ([[1.0, float("nan")], [1.0, 0.0]], "1 of 2 vectors that are not finite"),
        ([[1.0, float("inf")], [1.0, 0.0]], "not finite"),
        ([["a"], ["b"]], "unequal size"),
    ],
)
def test_checked_vectors(vectors, message):
    with pytest.raises(ServerError, match=message):
        checked_vectors(vectors, 2)


def test_a_zero_vector_has_similarity_0_with_everything():
    similarity = CosineSimilarity(lambda texts: [[0, 0], [3, 4]], ["a", "bb"])
    assert similarity("a", ["a", "bb"]) == [0, 0]
    assert similarity("bb", ["bb"]) == pytest.approx([1])


def test_the_embedder_is_given_texts_as_they_are_and_called_again(tmp_path):
    code = READY + (
        "for line in sys.stdin:\n"
        "    texts = json.loads(line)\n"
        "    sys.stdout.buffer.write(b'[%d, 2]\\n' % len(texts))\n"
        "    for text in texts: sys.stdout.buffer.write(struct.pack('<2f', len(text), text.count('\\n')))\n"
        "    sys.stdout.flush()\n"
    )
    with worker(tmp_path, code) as embed:
        assert embed(["a\nb\u2028", "ü" * 100_000]).tolist() == [[4, 1], [100_000, 0]]
        assert embed(["x"]).tolist() == [[1, 0]]
        process = embed._process
    assert process.returncode is not None


def test_an_embedder_that_does_not_start_shows_its_last_lines(tmp_path):
    with (
        worker(tmp_path, "raise ImportError('no torch here')") as embed,
        pytest.raises(EnvironmentMissingError, match=r"(?s)does not start.*no torch here.*setup.sh semantic"),
    ):
        embed(["a"])


def test_an_interpreter_that_does_not_run(tmp_path):
    with MiniLM(tmp_path / "python") as embed, pytest.raises(EnvironmentMissingError, match="does not run here"):
        embed(["a"])


@pytest.mark.parametrize(
    "code",
    [
        "sys.stdin.readline(); sys.exit('out of memory')",
        "sys.exit('out of memory')",
        "print('out of memory', file=sys.stderr); print('[1, 384]', flush=True)",
        "print('out of memory', file=sys.stderr); print('nonsense', flush=True)",
        "print('out of memory', file=sys.stderr); print('3', flush=True)",
    ],
)
def test_an_embedder_that_fails_shows_its_last_lines(tmp_path, code):
    with worker(tmp_path, READY + code) as embed, pytest.raises(ServerError, match=r"(?s)embedder.*out of memory"):
        embed(["a" * 1_000_000])


def test_the_embedder_ends_with_its_parent(tmp_path):
    """It reads standard input to its end, and the end comes when this process is gone, however it went."""
    embed = worker(tmp_path, READY + "for line in sys.stdin: print('[1, 1]\\nabcd', end='', flush=True)")
    embed(["a"])
    process = embed._process
    process.stdin.close()
    for _ in range(100):
        if process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.returncode == 0
    embed._errors.close()
    process.stdout.close()


# Every 96th component, by sentence-transformers 6.2.0; to import it here would take 10 to 50 seconds.
REFERENCE = {
    "kitchen": [0.0353, -0.031418, -0.029346, 0.030728],
    "Mary is in the kitchen.": [0.011529, -0.138024, 0.040444, 0.00648],
    "Ünïcode — ✨ \n": [-0.037277, 0.098616, -0.069671, -0.122848],
    "word " * 200: [-0.001924, -0.013936, 0.046546, 0.15508],
}


@needs_model
def test_vectors_are_those_of_sentence_transformers():
    with MiniLM() as embed:
        vectors = embed(list(REFERENCE))
        assert vectors[:, ::96] == pytest.approx(np.array(list(REFERENCE.values())), abs=1e-5)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
        # Longer than the model reads: the end counts.
        long, other, end = embed(["a " * 500 + "kitchen", "b " * 500 + "a " * MAX_TOKENS + "kitchen", "a " * 500])
        assert long == pytest.approx(other, abs=1e-5)
        assert long != pytest.approx(end, abs=1e-2)


@needs_model
def test_sentences_that_name_a_place_are_matched():
    """A floor: with these sentences, all were matched as the rule says when this was written."""
    places = ["kitchen", "garden", "office", "hallway", "bathroom", "bedroom"]
    sentences = ["{} is in the {}.", "You can find {} in the {} right now.", "I think {} went to the {}.", "{}: the {}"]
    prompts = [{"id": place, "prompt": "?", "target": place, "choices": places} for place in places]
    texts = [s.format(name, place) for s, name, place in product(sentences, ["Mary", "John"], places)]
    answers = [{"id": place, "sample": n, "content": text} for place in places for n, text in enumerate(texts)]
    scores = list(Scorer(extra_wrong=["unknown"], truth="names_target").score(prompts, answers))

    def mean(name):
        return sum(score["metrics"][name] for score in scores) / len(scores)

    assert mean("truth") == pytest.approx(1 / 6)
    assert mean("avert_agrees") > 0.97
    assert mean("chance") == pytest.approx(1 / 6, abs=0.01)
