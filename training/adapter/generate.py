"""Greedy answers about held-out symbols, tuned and untuned, beside the author's sentence.

`held_out.json` has, for each row, its package, its language and the names and sentences of its answers, and the pieces
of the vocabulary, so that no tokenizer is needed where the card is.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch

from rotary_batch.model.rouge import rouge_l
from training.adapter.llama import Cache, Linears, Llama
from training.adapter.rows import Row

MAX_NEW_TOKENS = 48
BATCH = 60


def write_sentences(model: Llama, rows: list[Row], names: Path, out: Path, count: int) -> None:
    """One answer of each of `count` rows, spread evenly, with ROUGE-L of both models by language."""
    known = json.loads(names.read_text())
    chosen = [n for n, one in enumerate(known["rows"]) if one["task"] == "chunk"]
    chosen = chosen[:: max(1, len(chosen) // count)][:count]
    picked = [(number, number % len(rows[number].answers)) for number in chosen]
    prompts = [[*rows[n].prompt.tolist(), *rows[n].answers[k][: rows[n].openings[k]].tolist()] for n, k in picked]
    began = time.monotonic()
    answers = {name: _greedy(model, prompts, known, is_tuned=name == "tuned") for name in ("tuned", "untuned")}
    table = []
    for place, (number, k) in enumerate(picked):
        one = known["rows"][number]
        name, author = one["answers"][k]
        found = {"package": one["package"], "language": one["language"], "name": name, "author": author}
        table.append(found | {which: texts[place] for which, texts in answers.items()})
    scores = {which: _by_language(table, which) for which in answers}
    out.write_text(json.dumps({"rouge_l": scores, "sentences": table}, indent=1) + "\n")
    print(f"{len(table)} symbols in {time.monotonic() - began:.0f} s, ROUGE-L {json.dumps(scores)}", flush=True)


def _by_language(table: list[dict[str, str]], which: str) -> dict[str, float]:
    groups: dict[str, list[float]] = {"all": []}
    for one in table:
        score = rouge_l(one[which], one["author"])
        groups["all"].append(score)
        groups.setdefault(one["language"], []).append(score)
    return {name: round(sum(scores) / len(scores), 4) for name, scores in groups.items()}


@torch.no_grad()
def _greedy(model: Llama, prompts: list[list[int]], known: dict, *, is_tuned: bool) -> list[str]:  # type: ignore[type-arg]
    linears, ends, pieces = model.linears(is_tuned=is_tuned), set(known["ends"]), known["pieces"]
    found: list[str] = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    for start in range(0, len(order), BATCH):
        group = order[start : start + BATCH]
        for number, ids in zip(group, greedy_ids(model, [prompts[n] for n in group], linears, ends), strict=True):
            found[number] = text_of(ids, pieces)
    return found


def greedy_ids(model: Llama, prompts: list[list[int]], linears: Linears, ends: set[int]) -> list[list[int]]:
    """What follows each prompt, up to an end token; prompts are padded at the left."""
    device, width = model.device, max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    pads = torch.tensor([width - len(p) for p in prompts], device=device)
    places = torch.arange(width + MAX_NEW_TOKENS, device=device)
    positions = (places[None] - pads[:, None]).clamp(min=0)
    real = places[None] >= pads[:, None]  # [batch, places]
    causal = places[:width, None] >= places[None, :width]
    allowed = (real[:, None, :width] & causal) | torch.eye(width, dtype=torch.bool, device=device)
    cache = Cache([], [])
    hidden = model(ids, positions[:, :width], _mask(allowed, model.dtype), linears, cache)
    token = model.logits(hidden[:, -1]).argmax(-1)
    found = [[int(t)] for t in token]
    for step in range(1, MAX_NEW_TOKENS):
        if all(ends & set(one) for one in found):
            break
        at = width + step - 1
        mask = _mask(real[:, None, : at + 1], model.dtype)
        hidden = model(token[:, None], positions[:, at : at + 1], mask, linears, cache)
        token = model.logits(hidden[:, -1]).argmax(-1)
        for one, new in zip(found, token.tolist(), strict=True):
            one.append(new)
    return [one[: next((n for n, t in enumerate(one) if t in ends), len(one))] for one in found]


def _mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return (
        torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        .masked_fill_(~allowed, float("-inf"))
        .unsqueeze(1)
    )


def text_of(ids: list[int], pieces: list[str]) -> str:
    """The first line of an answer."""
    return "".join(pieces[n] for n in ids).strip().split("\n")[0].strip()
