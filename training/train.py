"""Train the embedded model: `python -m training.train --out training/out --steps 1420`.

Seeded; a checkpoint every 200 steps, so that a killed run goes on where it was with the same data order.
Warm-up, constant rate, then linear decay over the last 30 % of the steps.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from rotary_batch.model.tokens import Tokenizer
from training.corpus import Pair, build
from training.model import Mixtral, Shape

SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}<|assistant|>{% endfor %}"
SEED = 20261124
BATCH_TOKENS = 8192  # padded tokens of one step
MAX_TOKENS = 512  # of one training sequence
PROMPT_WEIGHT = 0.1  # of the loss on prompt tokens, beside 1 on answer tokens
PROMPT_SHARE = 0.25  # of the prompt tokens, drawn anew each time: the head is a third of the arithmetic
BALANCE_WEIGHT = 0.01
PEAK_RATE = 3e-3
WARMUP_STEPS = 100
DECAY_SHARE = 0.3


def train_tokenizer(pairs: list[Pair], out: Path, vocab_size: int) -> Tokenizer:
    """A byte-level BPE of the corpus, written as a checkpoint's tokenizer files."""
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for pair in pairs[:30000] for text in (pair.prompt, pair.answer)), trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return Tokenizer.load(out)


def encode(pairs: list[Pair], tokenizer: Tokenizer) -> list[tuple[NDArray[np.uint16], int]]:
    """Token ids of prompt + answer + stop, with the length of the prompt; too long ones are left out."""
    stop = min(tokenizer.stop_ids)
    rows = []
    for pair in pairs:
        prompt = tokenizer.encode_chat(pair.prompt)
        ids = [*prompt, *tokenizer.encode(pair.answer), stop]
        if len(ids) <= MAX_TOKENS:
            rows.append((np.array(ids, dtype=np.uint16), len(prompt)))
    return rows


def batches(rows: list[tuple[NDArray[np.uint16], int]], seed: int) -> list[list[int]]:
    """One epoch: rows of like length together, batches in a seeded order."""
    generator = random.Random(seed)
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]) // 16, generator.random()))
    found: list[list[int]] = [[]]
    for index in order:
        if (len(found[-1]) + 1) * len(rows[index][0]) > BATCH_TOKENS:
            found.append([])
        found[-1].append(index)
    generator.shuffle(found)
    return found


def collate(rows: list[tuple[NDArray[np.uint16], int]], batch: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] and the loss weight of every next token [B, T - 1]."""
    length = max(len(rows[i][0]) for i in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    weight = torch.zeros(len(batch), length - 1)
    for place, index in enumerate(batch):
        row, prompt_tokens = rows[index]
        ids[place, : len(row)] = torch.from_numpy(row.astype(np.int64))
        weight[place, : prompt_tokens - 1] = PROMPT_WEIGHT * (torch.rand(prompt_tokens - 1) < PROMPT_SHARE)
        weight[place, prompt_tokens - 1 : len(row) - 1] = 1.0
    return ids, weight


def losses(model: Mixtral, ids: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted loss to minimise, loss on answer tokens alone, expert loads."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden, balance, loads = model(ids[:, :-1])
        keep = weight > 0
        logits = model.logits(hidden[keep]).float()
    each = F.cross_entropy(logits, ids[:, 1:][keep], reduction="none")
    scale = weight[keep]
    answer = (each * (scale == 1)).sum() / (scale == 1).sum()
    return (each * scale).sum() / scale.sum() + BALANCE_WEIGHT * balance, answer.detach(), loads.detach()


def rate(step: int, steps: int) -> float:
    """Learning rate of a step."""
    decay = min(1.0, (steps - step) / (steps * DECAY_SHARE))
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * max(0.02, decay)


def save(out: Path, **state: object) -> None:
    """Write the checkpoint so that a kill leaves the old one or the new one."""
    torch.save(state, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")


def evaluate(model: Mixtral, rows: list[tuple[NDArray[np.uint16], int]]) -> float:
    """Mean loss on held-out answer tokens over at most 20 batches."""
    with torch.no_grad():
        found = [losses(model, *collate(rows, batch))[1].item() for batch in batches(rows, 0)[:20]]
    return sum(found) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1420)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    shape = Shape()
    pairs, held_out = build(SEED, held_out=False), build(SEED, held_out=True)
    tokenizer = train_tokenizer(pairs, arguments.out, shape.vocab_size)
    rows, judged = encode(pairs, tokenizer), encode(held_out, tokenizer)
    print(f"{len(rows)} pairs, {sum(len(r) for r, _ in rows):,} tokens; held out {len(judged)}", flush=True)
    fit(Mixtral(shape), rows, judged, arguments.out, arguments.steps)


def fit(
    model: Mixtral,
    rows: list[tuple[NDArray[np.uint16], int]],
    judged: list[tuple[NDArray[np.uint16], int]],
    out: Path,
    steps: int,
) -> None:
    """The loop; goes on from `out/checkpoint.pt` when there is one."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    step = _resume(out, model, optimizer)
    epoch, order = -1, []
    started, tokens = time.monotonic(), 0
    while step < steps:
        per_epoch = len(order) or len(batches(rows, SEED))
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = batches(rows, SEED + epoch)
        ids, weight = collate(rows, order[min(step % per_epoch, len(order) - 1)])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        loss, answer, loads = losses(model, ids, weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        tokens += ids.numel()
        if step % 50 == 0:
            speed = tokens / (time.monotonic() - started)
            print(
                f"step {step} answer loss {answer:.3f} tokens/s {speed:.0f} load {loads.min():.3f}-{loads.max():.3f}",
                flush=True,
            )
        if step % 200 == 0 or step == steps:
            save(out, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)
            print(f"step {step} held-out answer loss {evaluate(model, judged):.3f}", flush=True)


def _resume(out: Path, model: Mixtral, optimizer: torch.optim.Optimizer) -> int:
    path = out / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    main()
