"""Similarity by embeddings: texts as vectors, made by a model in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from milepost.errors import EnvironmentMissingError, ServerError
from milepost.runtime.environments import environment_python

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.floating[Any]]

Embed = Callable[[Sequence[str]], Any]
"""Texts to vectors: an array, or lists of numbers, of shape (n_texts, n_dimensions)."""

ENVIRONMENT = "semantic"
# What decides the built-in embedder's vectors, for those that are kept. Raise the version when minilm.py changes them.
MINILM_IDENTITY = {"model": "all-MiniLM-L6-v2", "worker": "1"}
_WORKER = Path(__file__).with_name("minilm.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class CosineSimilarity:
    """Computes cosine similarities between texts; each distinct text is embedded once.

    Args:
        embed: Makes the vectors.
        texts: All texts that will be compared.

    Raises:
        ServerError: The embedder gave vectors that cannot be compared.
    """

    def __init__(self, embed: Embed, texts: Iterable[str]) -> None:
        import numpy as np

        # By length: texts of one batch are padded to the longest of them.
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        self._row = {text: row for row, text in enumerate(distinct)}
        vectors = checked_vectors(embed(distinct), len(distinct)) if distinct else np.zeros((0, 1))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        # A vector of zeros points nowhere: its cosine with everything is taken as 0.
        self._vectors: Vectors = vectors / np.where(norms > 0, norms, 1)

    def __call__(self, query: str, documents: Sequence[str]) -> list[float]:
        """How similar each document is to the query: 1 - cosine distance, in [-1, 1]."""
        rows = [self._row[document] for document in documents]
        cosines: list[float] = (self._vectors[rows] @ self._vectors[self._row[query]]).tolist()
        return cosines


def checked_vectors(vectors: Any, count: int) -> Vectors:
    """Check an embedder's vectors, and return them as an array with one row per text.

    Raises:
        ServerError: Another number of vectors, vectors of unequal size, or numbers that are not finite.
    """
    import numpy as np

    advice = "No answer can be scored with them. Run `envs/setup.sh semantic` to install the embedder anew."
    try:
        array = np.asarray(vectors)
        if array.dtype.kind != "f":
            array = array.astype(float)
    except (TypeError, ValueError):
        raise ServerError(f"The embedder gave vectors of unequal size. {advice}") from None
    if array.ndim != 2 or array.shape[0] != count or array.shape[1] == 0:
        raise ServerError(f"The embedder gave vectors of shape {array.shape} for {count} texts. {advice}")
    broken = int((~np.isfinite(array)).any(axis=1).sum())
    if broken:
        raise ServerError(f"The embedder gave {broken} of {count} vectors that are not finite. {advice}")
    return array


class MiniLM:
    """The embedder all-MiniLM-L6-v2, in a process that starts with the first texts and ends with the `with` block.

    It speaks over pipes (see minilm.py) and ends when its standard input does: it never outlives this process.

    Args:
        python: The interpreter of an environment with the model; that of envs/semantic if None.
        worker: The program that it runs.
    """

    def __init__(self, python: Path | None = None, worker: Path = _WORKER) -> None:
        self._python = python
        self._worker = worker
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, in batches of neighbours.

        Raises:
            EnvironmentMissingError: The environment is not installed, or the model cannot be loaded in it.
            ServerError: The process ended, or did not answer as agreed.
        """
        import numpy as np

        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(list(texts)).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise ServerError(self._ended("The embedder ended early.")) from None
        try:
            shape = json.loads(process.stdout.readline())
            body = process.stdout.read(4 * shape[0] * shape[1])
            return np.frombuffer(body, dtype="<f4").reshape(shape)
        except (ValueError, TypeError, LookupError):
            raise ServerError(self._ended("The embedder did not answer with vectors.")) from None

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> subprocess.Popen[bytes]:
        python = self._python or environment_python(ENVIRONMENT)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        # -I: neither this folder's modules nor this environment's PYTHONPATH get into the other one.
        try:
            self._process = subprocess.Popen(
                [python, "-I", self._worker],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | _OFFLINE,
            )
        except OSError as error:
            raise EnvironmentMissingError(
                f"The interpreter of the environment {ENVIRONMENT!r} does not run here: {error}. Run `envs/setup.sh semantic` on "
                "this machine."
            ) from None
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise EnvironmentMissingError(
                self._ended(f"The embedder does not start in the environment {ENVIRONMENT!r}.")
                + " Run `envs/setup.sh semantic`."
            )
        return self._process

    def _ended(self, message: str) -> str:
        """An error message, followed by the last lines that the process wrote."""
        assert self._errors is not None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{message} Its last lines:\n" + "\n".join(lines[-8:] or ["(none)"]) + "\n"
