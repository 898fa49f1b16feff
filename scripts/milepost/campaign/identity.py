"""Who a checkpoint is: what its files and answer-changing options say, never where it lies.

The digest enters the key of every stored answer. It is asked for whenever a workflow is planned, so digests of files
are remembered by name, size and time of change.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milepost.campaign.models import find_model
from milepost.campaign.options import SECRET
from milepost.campaign.sampling import bears_on_answers, server_options
from milepost.campaign.types import Checkpoint, Serving
from milepost.errors import ModelError
from milepost.records import write_record

CACHE = Path("results/models/.digests.json")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
WHOLE = (".json", ".jinja", ".model", ".txt", ".py", ".tiktoken")
IGNORED = ("README.md", "training_args.bin", "trainer_state.json", "optimizer.pt", "scheduler.pt", "generation.log")
SAMPLE = 64 * 1024  # bytes
SAMPLES = 16
# Made once: there is a key for each of what may be millions of requests.
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)

# Options and variables that cannot change an answer: where and with how much the model is served.
INERT_OPTIONS = frozenset(
    "tensor-parallel-size pipeline-parallel-size data-parallel-size gpu-memory-utilization kv-cache-memory-bytes"
    " swap-space cpu-offload-gb max-num-seqs port host uvicorn-log-level disable-log-requests disable-log-stats"
    " max-log-len download-dir max-parallel-loading-workers distributed-executor-backend".split()
)
INERT_VARIABLES = frozenset(
    "VLLM_CPU_KVCACHE_SPACE VLLM_CPU_OMP_THREADS_BIND OMP_NUM_THREADS CUDA_VISIBLE_DEVICES HF_HOME HF_HUB_OFFLINE"
    " VLLM_CACHE_ROOT VLLM_LOGGING_LEVEL TRITON_CACHE_DIR TORCHINDUCTOR_CACHE_DIR TMPDIR".split()
)
# Options that name a file or a folder: what is in it counts.
FILE_OPTIONS = ("chat-template", "tokenizer", "hf-config-path", "generation-config")


def identify(ckpt: Checkpoint, cache: DigestCache | None = None) -> dict[str, Any]:
    """The identity of a checkpoint and its digest.

    Args:
        ckpt: The checkpoint.
        cache: Digests of files to share between checkpoints; the caller saves it.

    Returns:
        `{"digest": 64 hexadecimal digits, "identity": {...}}`.

    Raises:
        ModelError: The model is not there.
    """
    shared, cache = cache is not None, cache or DigestCache(CACHE)
    if ckpt.endpoint is not None:
        return _digested({"endpoint": ckpt.endpoint.identity}, ckpt)
    folder = find_model(ckpt)
    # A hub model is its commit, whether its files are here yet or not. The revision of a folder says nothing.
    model: dict[str, Any] = {"hub": ckpt.model, "revision": ckpt.revision}
    if folder is not None and folder == Path(ckpt.model):
        model = {"files": describe_folder(folder, cache)}
    identity: dict[str, Any] = {"model": model, "serving": describe_serving(ckpt.serving, cache)}
    if bears_on_answers(ckpt, folder):
        identity["serving"]["vllm_args"] |= server_options(ckpt.serving)
    if not shared:
        cache.save()
    return _digested(identity, ckpt)


def _digested(identity: dict[str, Any], ckpt: Checkpoint) -> dict[str, Any]:
    if ckpt.generation != 1:
        identity["generation"] = ckpt.generation
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return {"digest": hashlib.sha256(canonical.encode()).hexdigest(), "identity": identity}


def describe_serving(serving: Serving, cache: DigestCache) -> dict[str, Any]:
    """The options that may change answers; files by what is in them."""
    options: dict[str, Any] = {}
    for name, value in sorted(serving.vllm_args.items()):
        path = Path(str(value))
        if name in INERT_OPTIONS:
            continue
        # A template may stand in the option itself, longer than any name of a file.
        if name in FILE_OPTIONS and os.path.exists(path):
            options[name] = describe_folder(path, cache) if path.is_dir() else cache.digest(path)
        else:
            options[name] = value if isinstance(value, bool | list | dict) else str(value)
    env = {
        name: value
        for name, value in sorted(serving.env.items())
        if name not in INERT_VARIABLES and not SECRET.search(name)
    }
    return {"vllm_args": options, "env": env}


def describe_folder(folder: Path, cache: DigestCache) -> dict[str, str]:
    """Name and digest of every file of a model that bears on its answers.

    Small files count whole; of weights their size, their header and evenly spread samples.
    """
    files = {path.name: cache.digest(path) for path in model_files(folder)}
    if not files:
        raise ModelError(f"{folder} holds neither configuration nor weights of a model.")
    return files


def model_files(folder: Path) -> list[Path]:
    """The files of a model's folder that bear on its answers: not what training keeps beside them."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name not in IGNORED and not path.name.startswith(".")
        if path.suffix in WEIGHTS or path.suffix in WHOLE
        if path.is_file()
    ]


def digest_file(path: Path) -> str:
    """Digest of a small file, or of the size, header and samples of weights."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if path.suffix not in WEIGHTS or size <= SAMPLE * SAMPLES * 2:
            digest.update(file.read())
        else:
            # A safetensors header says which tensors lie where; it follows its own length in 8 bytes.
            header = int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else 0
            file.seek(0)
            digest.update(file.read(min(8 + header, 100 * 1024 * 1024)))
            for i in range(SAMPLES):
                file.seek((size - SAMPLE) * i // (SAMPLES - 1))
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


class DigestCache:
    """Digests of files, remembered by absolute name, size and time of change."""

    def __init__(self, path: Path) -> None:
        """Open the cache; one that is missing or unreadable is an empty one."""
        # Absolute: it may be saved when this process is about to end, in another folder.
        self.path = path.absolute()
        self.changed = False
        self._saved = float("-inf")
        try:
            loaded = json.loads(path.read_bytes())
        except (OSError, ValueError):
            loaded = {}
        self.digests: dict[str, str] = loaded if isinstance(loaded, dict) else {}

    def digest(self, path: Path) -> str:
        """Digest of a file, from the cache if it has not changed since."""
        state = path.stat()
        key = f"{os.path.realpath(path)}|{state.st_size}|{state.st_mtime_ns}"
        if key not in self.digests:
            self.digests[key] = digest_file(path)
            self.changed = True
        return self.digests[key]

    def save(self, pause_s: float = 0.0) -> None:
        """Keep what was added; the whole file is written, so not again within `pause_s` of the last time."""
        if self.changed and time.monotonic() - self._saved >= pause_s:
            self._saved = time.monotonic()
            write_record(self.path, self.digests)
            self.changed = False


def request_key(digest: str, body: Mapping[str, Any], sample: int, generation: int) -> str:
    """The key of a stored answer: who is asked, what (without the name the server goes by), and which sample.

    Args:
        digest: The model's.
        body: The request without `model`.
        sample: Number of the sample, from 0.
        generation: The task's.
    """
    asked = {name: value for name, value in body.items() if name != "model"}
    return hashlib.sha256(CANONICAL.encode([digest, asked, sample, generation]).encode()).hexdigest()[:32]
