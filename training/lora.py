"""Train the adapter: low-rank changes to all linear layers of SmolLM2-135M-Instruct.

    python -m training.lora --data DIR --base DIR --out DIR --for 240

`DIR/train.rows.npz` and `held_out.rows.npz` are what `training.adapter.corpus` writes, `base-*.safetensors` what
`training.adapter.base` writes.  A run that was killed goes on from its last checkpoint; the same command again after
the end only judges.  Writes adapter_model.safetensors and adapter_config.json in PEFT's format, and the first sentences
of held-out symbols, tuned and untuned, beside the author's (sentences.json).  Needs torch, numpy and safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from training.adapter.base import KINDS, hf_names, load_base
from training.adapter.generate import write_sentences
from training.adapter.llama import Linears, Llama
from training.adapter.rows import Batch, Row, batches, collate, load_rows

WARMUP_SHARE = 0.03
LAST_RATE_SHARE = 0.05
BETAS = (0.9, 0.98)
JUDGED_ROWS = 400


@dataclass
class Run:
    """A run: `steps` or seconds long, whichever is given."""

    model: Llama
    rows: list[Row]
    judged: list[Row]
    out: Path
    arguments: argparse.Namespace
    step: int = 0
    spent_s: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(
            [*self.model.a.parameters(), *self.model.b.parameters()],
            lr=1.0,
            betas=BETAS,
            weight_decay=0.0,
            fused=True,
        )
        path = self.out / "checkpoint.pt"
        if path.is_file():
            state = torch.load(path, map_location=self.model.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent_s, self.tokens, self.losses = (
                state[n] for n in ("step", "spent_s", "tokens", "losses")
            )
            self.arguments.rate = state["rate"]

    @property
    def progress(self) -> float:
        """The share of the run that is done."""
        if self.arguments.steps:
            return self.step / self.arguments.steps
        return self.spent_s / self.arguments.seconds

    def rate(self) -> float:
        """Learning rate of the next step: a warm-up, then a cosine."""
        warm = min(1.0, (self.progress + 1e-4) / WARMUP_SHARE)
        falling = LAST_RATE_SHARE + (1 - LAST_RATE_SHARE) * (1 + math.cos(math.pi * min(1.0, self.progress))) / 2
        return float(self.arguments.rate * warm * falling)

    def epochs(self) -> Iterator[list[Row]]:
        """Epoch after epoch; what was read before a kill is passed over."""
        number, epoch = 0, 0
        while True:
            for rows in batches(self.rows, self.arguments.batch_tokens, self.arguments.seed + epoch):
                number += 1
                if number > self.step:
                    yield rows
            epoch += 1
            _print(f"epoch {epoch} ends at step {number}")

    def fit(self) -> None:
        """All steps that are left."""
        arguments, began, spent_before = self.arguments, time.monotonic(), self.spent_s
        saved = judged = began
        self._report_held_out()
        began += time.monotonic() - judged  # judging is not training
        waiting = self.epochs()
        following = _pinned(next(waiting), self.model.device)
        while self.progress < 1:
            found = self._step(following.to(self.model.device))
            self.tokens += following.num_tokens
            following = _pinned(next(waiting), self.model.device)  # while the device works
            self.losses.append(float(found))
            self.step += 1
            now = time.monotonic()
            self.spent_s = spent_before + now - began
            if self.step % arguments.steps_per_line == 0:
                recent = self.losses[-arguments.steps_per_line :]
                speed = self.tokens / max(1e-9, self.spent_s)
                loss = sum(recent) / len(recent)
                _print(f"step {self.step} loss {loss:.4f} tokens/s {speed:,.0f} done {self.progress:.1%}")
            if now - judged > arguments.judge_s:
                self._report_held_out()
                judged = time.monotonic()
                began += judged - now
            if now - saved > arguments.save_s:
                self.save()
                saved = now
        self.save()
        self._report_held_out()

    def take(self, rows: list[Row]) -> None:
        """One step."""
        batch = collate(rows)
        self.losses.append(float(self._step(batch.to(self.model.device))))
        self.tokens += batch.num_tokens
        self.step += 1

    def _step(self, batch: Batch) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss = self._loss(batch, self.model.linears())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _loss(self, batch: Batch, linears: Linears) -> Tensor:
        hidden = self.model(batch.ids, batch.positions, batch.mask(self.model.dtype), linears)
        logits = self.model.logits(hidden.flatten(0, 1)[batch.sources])
        return F.cross_entropy(logits, batch.targets)

    @torch.no_grad()
    def held_out_loss(self, *, is_tuned: bool = True) -> float:
        """Mean loss of an answer's token on held-out rows."""
        linears, total, count = self.model.linears(is_tuned=is_tuned), 0.0, 0
        for rows in batches(self.judged, self.arguments.batch_tokens, None):
            batch = collate(rows).to(self.model.device)
            total += float(self._loss(batch, linears)) * len(batch.targets)
            count += len(batch.targets)
        return total / max(1, count)

    def _report_held_out(self) -> None:
        if self.judged:
            _print(f"step {self.step} held-out loss {self.held_out_loss(is_tuned=self.step > 0):.4f} of a token")

    def save(self) -> None:
        """Write the checkpoint so that a kill leaves the old one or the new one."""
        path = self.out / "checkpoint.pt"
        state = {name: getattr(self, name) for name in ("step", "spent_s", "tokens", "losses")}
        state |= {
            "rate": self.arguments.rate,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with path.with_suffix(".tmp").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".tmp").replace(path)
        write_adapter(self.model, self.out)


def tried_rate(model: Llama, rows: list[Row], judged: list[Row], arguments: argparse.Namespace) -> float:
    """The rate that has the lowest held-out loss after a short run of its own, somewhat lowered for a longer one."""
    losses: dict[float, float] = {}
    for rate in arguments.try_rates:
        model.begin(arguments.seed)
        short = argparse.Namespace(**vars(arguments) | {"rate": rate, "steps": arguments.try_steps})
        run = Run(model, rows, judged, Path("/nowhere"), short)
        began = time.monotonic()
        for batch_rows in run.epochs():
            run.take(batch_rows)
            if run.progress >= 1:
                break
        losses[rate] = run.held_out_loss()
        speed = run.tokens / (time.monotonic() - began)
        _print(f"rate {rate}: held-out loss {losses[rate]:.4f} after {run.step} steps, {speed:,.0f} tokens/s")
    model.begin(arguments.seed)
    best = min(losses, key=lambda rate: losses[rate])
    return best * 0.7


def _pinned(rows: list[Row], device: torch.device) -> Batch:
    batch = collate(rows)
    if device.type != "cuda":
        return batch
    return Batch(*(getattr(batch, name).pin_memory() for name in Batch.__slots__))


def write_adapter(model: Llama, out: Path) -> None:
    """In PEFT's format, bfloat16."""
    tensors = {}
    for layer in range(model.num_layers):
        for kind, module in hf_names(layer).items():
            for part, held in (("lora_A", model.a), ("lora_B", model.b)):
                value = held[kind][layer].detach().to("cpu", torch.bfloat16)
                tensors[f"base_model.model.{module}.{part}.weight"] = value.contiguous()
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": model.scale * model.rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": model.rank,
        "target_modules": sorted(f"{kind}_proj" for kind in KINDS),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _print(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _compiled(model: Llama) -> None:
    """Fuse the elementwise parts where that works on this machine."""
    try:
        gated = torch.compile(model.gated, dynamic=True)
        rotated = torch.compile(model.rotated, dynamic=True)
        for width in (128, 192):
            x = torch.zeros(2, 9, width, 64, device=model.device, dtype=model.dtype, requires_grad=True)
            cos = torch.zeros(2, 1, width, 64, device=model.device, dtype=model.dtype)
            (rotated(x, cos, cos).sum() + gated(x, x).sum()).backward()
        model.gated, model.rotated = gated, rotated
        _print("compiled")
    except Exception as error:  # noqa: BLE001 - without a compiler the plain operators serve
        _print(f"not compiled: {type(error).__name__} {str(error)[:200]}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "base", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--for", dest="seconds", type=float, default=240.0, help="seconds of training")
    parser.add_argument("--steps", type=int, default=0, help="instead of --for")
    parser.add_argument("--rank", type=int, default=24)
    parser.add_argument("--scale", type=float, default=2.0, help="of the changes: lora_alpha / rank")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--try-rates", type=float, nargs="*", default=(), help="choose the rate by short runs first")
    parser.add_argument("--try-steps", type=int, default=50)
    parser.add_argument("--batch-tokens", type=int, default=32_768)
    parser.add_argument("--rows", type=int, default=0, help="train on so many rows only")
    parser.add_argument("--seed", type=int, default=20261128)
    parser.add_argument("--judge-s", type=float, default=45.0)
    parser.add_argument("--save-s", type=float, default=30.0)
    parser.add_argument("--steps-per-line", type=int, default=25)
    parser.add_argument("--judged-rows", type=int, default=JUDGED_ROWS)
    parser.add_argument("--sentences", type=int, default=300, help="held-out symbols to write sentences of at the end")
    parser.add_argument("--threads", type=int, default=1, help="on a CPU")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Train, write the adapter, write sentences."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # without AMX bfloat16 is slower on a CPU
    torch.backends.cuda.matmul.allow_tf32 = True
    if device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    began = time.monotonic()
    model = Llama(load_base(arguments.base), arguments.rank, arguments.scale, device=device, dtype=dtype)
    rows = load_rows(arguments.data / "train.rows.npz")
    held_out = load_rows(arguments.data / "held_out.rows.npz")
    judged = held_out[:: max(1, len(held_out) // max(1, arguments.judged_rows))] if arguments.judged_rows else []
    _print(
        f"{len(rows):,} rows, {sum(row.num_tokens for row in rows):,} tokens; ready in {time.monotonic() - began:.0f} s"
    )
    if arguments.compile and device.type == "cuda":
        _compiled(model)
    rows = rows[: arguments.rows] if arguments.rows else rows
    if arguments.try_rates and not (arguments.out / "checkpoint.pt").is_file():
        arguments.rate = tried_rate(model, rows, judged, arguments)
        _print(f"rate {arguments.rate}")
    run = Run(model, rows, judged, arguments.out, arguments)
    run.fit()
    write_adapter(model, arguments.out)
    if arguments.sentences:
        write_sentences(
            model, held_out, arguments.data / "held_out.json", arguments.out / "sentences.json", arguments.sentences
        )
    _print("done")


if __name__ == "__main__":
    main()
