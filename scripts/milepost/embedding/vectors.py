"""Keeps vectors of texts on disk, by the text's content and the model, so that no text is embedded twice.

A process adds to a file pair of its own (hashes, numbers), and reads those of all others, so that several may embed at
the same time. A pair that a crash left torn counts as far as both of its files reach.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, TypeVar

from milepost.errors import ServerError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.floating[Any]]

HASH = 16  # bytes

_Text = TypeVar("_Text", str, bytes)

Keep = Callable[[Sequence[Any], Any], None]
"""Takes the vectors of some of the texts, as they come."""
Ask = Callable[[Sequence[str], Keep], None]
"""Has texts embedded, and hands their vectors over."""


class VectorStore:
    """The vectors of one model in one folder. Use it as a context manager.

    Args:
        folder: Where to keep them; None keeps them in memory only.
        identity: What decides the model's vectors.
        double: Whether to keep double precision.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any], *, double: bool = False) -> None:
        self._type = "<f8" if double else "<f4"
        content = json.dumps([dict(identity), self._type], sort_keys=True)
        self._folder = folder and folder / hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        self._blocks: list[Vectors] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._size: int | None = None
        self._open = ExitStack()
        self._files: tuple[IO[bytes], IO[bytes]] | None = None

    def __enter__(self) -> Self:
        """Read the vectors that are kept in the folder."""
        import numpy as np

        for keys in sorted(self._folder.glob("*.keys")) if self._folder is not None else ():
            name, _, size = keys.stem.rpartition("-")
            hashes, numbers = keys.read_bytes(), keys.with_name(f"{name}-{size}.vectors")
            row = int(size) * np.dtype(self._type).itemsize
            count = min(len(hashes) // HASH, numbers.stat().st_size // row if numbers.exists() else 0)
            if count:
                block = np.memmap(numbers, dtype=self._type, mode="r", shape=(count, int(size)))
                self._take([hashes[at * HASH : (at + 1) * HASH] for at in range(count)], block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def embed(self, texts: Sequence[str], ask: Ask) -> Vectors:
        """The vectors of distinct texts: kept ones, and new ones from `ask`; zeros where no vector came.

        Raises:
            ServerError: Vectors of another size than those before.
        """
        missing = self.missing(texts)
        if missing:
            ask(missing, self.keep)
        return self.get(texts)

    def missing(self, texts: Sequence[_Text]) -> list[_Text]:
        """Those of the texts (or their hashes) of which no vector is kept."""
        return [text for text in texts if hash_of(text) not in self._places]

    def get(self, texts: Sequence[str | bytes]) -> Vectors:
        """The vectors of texts, shape (n_texts, size); zeros where none is kept."""
        import numpy as np

        gathered = np.zeros((len(texts), self._size or 1), self._type)
        for at, text in enumerate(texts):
            place = self._places.get(hash_of(text))
            if place is not None:
                gathered[at] = self._blocks[place[0]][place[1]]
        return gathered

    def keep(self, texts: Sequence[str | bytes], vectors: Any) -> None:
        """Keep the vectors of some texts, in memory and on disk.

        Raises:
            ServerError: They are of another size than those before.
        """
        import numpy as np

        array = np.ascontiguousarray(vectors, dtype=self._type)
        self._take([hash_of(text) for text in texts], array)
        if self._folder is None:
            return
        if self._files is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            name = self._folder / f"{uuid.uuid4().hex}-{array.shape[1]}"
            numbers = self._open.enter_context(name.with_suffix(".vectors").open("wb"))
            keys = self._open.enter_context(name.with_suffix(".keys").open("wb"))
            self._files = numbers, keys
        # The numbers first: a hash without its numbers would point nowhere.
        for file, data in zip(self._files, (array.tobytes(), b"".join(map(hash_of, texts))), strict=True):
            file.write(data)
            file.flush()

    def _take(self, hashes: Sequence[bytes], block: Vectors) -> None:
        if self._size not in (None, block.shape[1]):
            raise ServerError(
                f"The embedder gave vectors of {block.shape[1]} numbers, and before that of {self._size}: another model "
                "answers. Correct the endpoint, give it another `revision` if its model was replaced, or remove the kept "
                f"vectors: {self._folder}."
            )
        self._size = block.shape[1]
        self._blocks.append(block)
        self._places |= {key: (len(self._blocks) - 1, row) for row, key in enumerate(hashes)}


def hash_of(text: str | bytes) -> bytes:
    """The hash of a text; a value that is a hash already is returned as it is."""
    if isinstance(text, bytes):
        return text
    # "surrogatepass": a model's answer may hold half of a surrogate pair, which plain UTF-8 refuses.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH).digest()
