"""Train the demo's model on the spot: a Qwen3 of 0.7 million parameters, saved after some of its steps.

Takes about a minute on one core. What is complete is not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import worlds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

# Examples of each task in one step, weighed so that every task is still learned from one checkpoint to the next.
MIXTURE = {"sums": 22, "where": 16, "constraints": 12, "colours": 6}
ADAM_PEAK = 4e-3
MUON_PEAK = 0.03
WARM_UP_STEPS = 20
CONTEXT = 512
MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 384,
    "rope_theta": 100.0,
    "initializer_range": 0.04,
}

# A chat as token ids, and how many of them, at its end, are the answer.
Row = tuple[list[int], int]

PAD, END, SPEAKERS = "<|pad|>", "<|end|>", ["<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the evaluation items, then train and save whatever checkpoint is not there yet."""
    args = parse_args(argv)
    if args.data_out:
        worlds.write_items(args.data_out)
    if args.out:
        missing = missing_steps(args.out, args.steps, args.seed)
        if missing:
            train(args.out, args.steps, missing, args.seed)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for step-N, one model each")
    parser.add_argument(
        "--steps", type=step_numbers, default=[50, 100, 200, 400], help="when to save (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and training examples (default: %(default)s)")
    parser.add_argument("--data-out", type=Path, help="folder for the evaluation items")
    args = parser.parse_args(argv)
    if not args.out and not args.data_out:
        parser.error("nothing to do: give --out for the model, --data-out for the evaluation items, or both")
    return args


def step_numbers(text: str) -> list[int]:
    """Read steps such as '50,100'."""
    steps = sorted({int(part) for part in text.split(",")})
    if steps[0] < 1:
        raise argparse.ArgumentTypeError("steps count from 1")
    return steps


def missing_steps(out: Path, steps: list[int], seed: int) -> list[int]:
    """The steps without a model; ends the program where a model of another training is in the way."""
    missing = []
    for step in steps:
        folder = out / f"step-{step}"
        if not folder.exists():
            missing.append(step)
            continue
        note = folder / "training.json"
        found = json.loads(note.read_text(encoding="utf-8")) if note.exists() else None
        if found != training_note(step, steps, seed):
            sys.exit(
                f"{folder} holds another training: {found}, not {training_note(step, steps, seed)}. "
                "Remove it, or choose another --out."
            )
    return missing


def training_note(step: int, steps: list[int], seed: int) -> dict[str, int]:
    """What tells one training from another; the last step decides the learning rate of all."""
    return {"seed": seed, "step": step, "last_step": steps[-1]}


def train(out: Path, steps: list[int], missing: list[int], seed: int) -> None:
    """Train from the start to the last missing step, and save the missing ones."""
    # Imported here, for they take seconds, which a model that is already complete must not cost.
    import torch
    from transformers import logging

    from muon import Muon

    # A model this small loses more to the hand-over between threads than it gains by them.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    logging.disable_progress_bar()
    tokenizer = train_tokenizer(seed)
    model = build_model(tokenizer)
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and weight is not embedding]
    vectors = [weight for weight in model.parameters() if weight.ndim == 1]
    muon = Muon(matrices, lr=MUON_PEAK)
    adam = torch.optim.AdamW([embedding, *vectors], lr=ADAM_PEAK, betas=(0.9, 0.98), weight_decay=0.0)
    progress = Progress(missing[-1])
    for step, batch in enumerate(islice(batches(tokenizer, seed), missing[-1]), 1):
        loss = backward(model, batch, tokenizer.pad_token_id)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in [(muon, MUON_PEAK), (adam, ADAM_PEAK)]:
            optimizer.param_groups[0]["lr"] = peak * learning_rate(step, steps[-1])
            optimizer.step()
            optimizer.zero_grad()
        progress.show(step, loss)
        if step in missing:
            save(model, tokenizer, out / f"step-{step}", training_note(step, steps, seed))


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, from the beginning of the training stream; digits stay single."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    texts = [
        f"{example.question}\n{example.answer}"
        for task in worlds.DRAWS
        for example in islice(worlds.training_examples(task, seed), 2000)
    ]
    # Invented words are to be read by the syllable: each of them then is a copy of what the model knows.
    syllables = [spelling for syllable in worlds.SYLLABLES for spelling in (syllable, syllable.upper())]
    texts += [" ".join([syllable] * 200) for syllable in syllables]
    texts += [syllable for syllable in syllables for _ in range(200)]
    trainer = trainers.BpeTrainer(
        min_frequency=100,  # this ends the vocabulary, at about 700 tokens
        special_tokens=[PAD, END, *SPEAKERS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=SPEAKERS,
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 with fresh weights."""
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    end = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            dtype="float32",
            **MODEL,
            **end,
        )
    )
    # Servers take their defaults of sampling from here: nothing but the end of an answer.
    model.generation_config = GenerationConfig(**end)
    return model


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[list[list[Row]]]:
    """One batch per step, in two parts of similar lengths, so that little of it is padding."""
    streams = {task: worlds.training_examples(task, seed) for task in MIXTURE}
    while True:
        examples = [next(streams[task]) for task, count in MIXTURE.items() for _ in range(count)]
        rows = sorted((row(tokenizer, example) for example in examples), key=lambda row: len(row[0]))
        half = len(rows) // 2
        yield [rows[:half], rows[half:]]


def row(tokenizer: PreTrainedTokenizerFast, example: worlds.Example) -> Row:
    """The token ids of a chat, and how many of them, at its end, are the answer."""
    question = tokenizer(f"<|user|>{example.question}<|assistant|>")["input_ids"]
    answer = tokenizer(f"{example.answer}{END}")["input_ids"]
    return question + answer, len(answer)


def backward(model: Qwen3ForCausalLM, batch: list[list[Row]], pad: int) -> float:
    """Add up the gradients of one batch; only the tokens of answers count."""
    import torch

    answer_tokens = sum(answer for part in batch for _, answer in part)
    total = 0.0
    for part in batch:
        width = max(len(ids) for ids, _ in part)
        # Padding stands behind what a causal model looks at, and needs no mask.
        tokens = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in part])
        taught = torch.tensor([[len(ids) - answer <= at < len(ids) for at in range(width)] for ids, answer in part])
        taught = taught[:, 1:]
        hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[taught])
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][taught], reduction="sum") / answer_tokens
        loss.backward()
        total += loss.item()
    return total


def learning_rate(step: int, last_step: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine almost to nothing.

    >>> learning_rate(10, 400), learning_rate(20, 400), round(learning_rate(400, 400), 2)
    (0.5, 1.0, 0.02)
    """
    if step <= WARM_UP_STEPS:
        return step / WARM_UP_STEPS
    done = (step - WARM_UP_STEPS) / (last_step - WARM_UP_STEPS)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2


def save(model: Any, tokenizer: Any, folder: Path, note: dict[str, int]) -> None:
    """Save one checkpoint: the folder appears whole, or not at all."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside, save_jinja_files=False)
    # The weights come with mode 0600; other accounts may have to serve them.
    umask = os.umask(0)
    os.umask(umask)
    for file in beside.iterdir():
        file.chmod(0o666 & ~umask)
    (beside / "training.json").write_text(json.dumps(note) + "\n", encoding="utf-8")
    beside.rename(folder)


class Progress:
    """How far the training is, on stderr: a line that renews itself on a terminal, now and then a line elsewhere."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.start = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def show(self, step: int, loss: float) -> None:
        """Tell of one step."""
        if step % (5 if self.terminal else 50) and step != self.steps:
            return
        seconds = time.monotonic() - self.start
        left = seconds / step * (self.steps - step)
        end = "\r" if self.terminal and step != self.steps else "\n"
        text = f"training: step {step}/{self.steps}, loss {loss:.3f}, {seconds:.0f} s, about {left:.0f} s left"
        print(f"{text:<75}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
