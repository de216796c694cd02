"""The adapter's trainer: trees of answers, resuming, PEFT's format, with a tiny model of random weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from training.adapter.base import KINDS, Shape, dequantised, half_split, hf_names
from training.adapter.generate import greedy_ids
from training.adapter.llama import Llama
from training.adapter.rows import Row, batches, collate, load_rows, save_rows
from training.lora import Run, write_adapter

LAYERS, HIDDEN, INNER, VOCAB = 2, 32, 48, 97
SHAPE = Shape(num_heads=4, num_kv_heads=2, head_dim=8, rms_eps=1e-5, rope_base=10_000.0)
SIZES = {"q": (32, 32), "k": (16, 32), "v": (16, 32), "o": (32, 32), "gate": (48, 32), "up": (48, 32), "down": (32, 48)}


def tiny_base() -> dict[str, Tensor]:
    torch.manual_seed(3)
    weights = {kind: torch.randn(LAYERS, *SIZES[kind]) * 0.2 for kind in KINDS}
    norms = {name: 1 + 0.1 * torch.randn(LAYERS, HIDDEN) for name in ("attn_norm", "ffn_norm")}
    return weights | norms | {"embed": torch.randn(VOCAB, HIDDEN) * 0.5, "norm": 1 + 0.1 * torch.randn(HIDDEN)}


def tiny_model(*, is_changed: bool = True) -> Llama:
    model = Llama(tiny_base(), 4, 2.0, device=torch.device("cpu"), dtype=torch.float32, shape=SHAPE)
    if is_changed:
        torch.manual_seed(4)
        for tensor in model.b.values():
            tensor.data.normal_(0, 0.1)
    return model


def of_transformers(tensors: dict[str, Tensor]) -> LlamaForCausalLM:
    """The same model by `transformers`, with given weights of the linear layers by Hugging Face's names."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        rms_norm_eps=SHAPE.rms_eps,
        rope_parameters={"rope_type": "default", "rope_theta": SHAPE.rope_base},
        tie_word_embeddings=True,
    )
    base, model = tiny_base(), LlamaForCausalLM(config)
    for layer in range(LAYERS):
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = base["attn_norm"][layer]
        tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = base["ffn_norm"][layer]
    tensors |= {
        "model.embed_tokens.weight": base["embed"],
        "lm_head.weight": base["embed"],
        "model.norm.weight": base["norm"],
    }
    model.load_state_dict(tensors)
    return model.eval()


def random_rows(count: int) -> list[Row]:
    draw = np.random.default_rng(5)
    rows = []
    for _ in range(count):
        answers = tuple(
            draw.integers(3, VOCAB, draw.integers(3, 9)).astype(np.int32) for _ in range(draw.integers(1, 4))
        )
        openings = tuple(int(draw.integers(0, 3)) for _ in answers)
        rows.append(Row(draw.integers(3, VOCAB, draw.integers(5, 20)).astype(np.int32), answers, openings))
    return rows


def same(one: Row, other: Row) -> bool:
    arrays = [(one.prompt, other.prompt), *zip(one.answers, other.answers, strict=True)]
    return one.openings == other.openings and all(np.array_equal(a, b) for a, b in arrays)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = random_rows(20)
    save_rows(rows, tmp_path / "rows.npz")
    assert all(map(same, load_rows(tmp_path / "rows.npz"), rows))


def test_every_row_is_in_one_batch_of_an_epoch() -> None:
    rows = random_rows(50)
    for seed in (None, 1):
        groups = list(batches(rows, 256, seed))
        assert sorted(map(id, (row for group in groups for row in group))) == sorted(map(id, rows))
        assert all(len(group) == 1 or collate(group).ids.numel() <= 256 for group in groups)


def test_an_adapter_in_pefts_format_merged_by_hand_gives_each_answer_the_logits_of_its_branch(tmp_path: Path) -> None:
    model, rows = tiny_model(), random_rows(6)
    write_adapter(model, tmp_path)
    config, adapter = (
        json.loads((tmp_path / "adapter_config.json").read_text()),
        load_file(tmp_path / "adapter_model.safetensors"),
    )
    for held in (model.a, model.b):  # the file has them in bfloat16
        for tensor in held.values():
            tensor.data.copy_(tensor.data.bfloat16())
    merged = {}
    for layer in range(LAYERS):
        for kind, module in hf_names(layer).items():
            a, b = (adapter.pop(f"base_model.model.{module}.lora_{part}.weight").float() for part in "AB")
            change = b @ a * (config["lora_alpha"] / config["r"])
            merged[f"{module}.weight"] = tiny_base()[kind][layer] + change
    assert not adapter
    reference, batch = of_transformers(merged), collate(rows)
    with torch.no_grad():
        hidden = model(batch.ids, batch.positions, batch.mask(torch.float32), model.linears())
        found = model.logits(hidden.flatten(0, 1)[batch.sources])
        expected = []
        for row in rows:
            for answer, opening in zip(row.answers, row.openings, strict=True):
                ids = torch.from_numpy(np.concatenate([row.prompt, answer]).astype(np.int64))
                expected.append(reference(ids[None]).logits[0, len(row.prompt) + opening - 1 : -1])
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_weights_that_are_changed_once_a_step_and_products_of_their_own_agree() -> None:
    model, batch = tiny_model(), collate(random_rows(4))
    apart = model.linears()
    model.device = torch.device("cuda")  # only decides how the changes are computed
    together = model.linears()
    one, other = (model(batch.ids, batch.positions, batch.mask(torch.float32), way) for way in (apart, together))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_greedy_answers_of_a_padded_batch_are_those_of_transformers() -> None:
    model = tiny_model(is_changed=False)
    reference = of_transformers(
        {f"{m}.weight": tiny_base()[k][n] for n in range(LAYERS) for k, m in hf_names(n).items()}
    )
    prompts = [row.prompt.tolist() for row in random_rows(5)]
    found = greedy_ids(model, prompts, model.linears(), {0})
    for prompt, answer in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in answer:
            with torch.no_grad():
                assert int(reference(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def arguments(**changes: object) -> argparse.Namespace:
    given = {"steps": 12, "seconds": 0.0, "rate": 1e-2, "seed": 1, "batch_tokens": 256, "judge_s": 1e9, "save_s": 1e9}
    return argparse.Namespace(**given | {"steps_per_line": 100} | changes)


def fitted(out: Path, **changes: object) -> Run:
    out.mkdir(exist_ok=True)
    run = Run(tiny_model(is_changed=False), random_rows(30), [], out, arguments(**changes))
    run.fit()
    return run


def test_the_loss_falls(tmp_path: Path) -> None:
    losses = fitted(tmp_path, steps=60).losses
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) - 0.3


def test_a_run_that_was_killed_goes_on_as_if_it_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(tmp_path / "whole")

    def dies(self: Run) -> None:
        if self.step == 5:
            raise KeyboardInterrupt
        save(self)

    save = Run.save
    monkeypatch.setattr(Run, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut", save_s=-1.0)  # a checkpoint every step; the fifth is never written
    monkeypatch.setattr(Run, "save", save)
    resumed = fitted(tmp_path / "cut")
    assert resumed.losses == whole.losses
    assert all(
        torch.equal(one, other) for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True)
    )


def test_blocks_are_dequantised_as_gguf_does() -> None:
    gguf = pytest.importorskip("gguf")
    values = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    for name in ("Q4_1", "Q8_0"):
        kind = gguf.GGMLQuantizationType[name]
        data = gguf.quantize(values, kind)
        expected = torch.from_numpy(gguf.dequantize(data, kind))
        assert torch.equal(dequantised(torch.from_numpy(data), name).reshape(4, 64), expected)


def test_rotary_pairs_become_halves() -> None:
    rows = torch.arange(16.0).reshape(1, 16, 1)  # two heads of 8
    assert half_split(rows, 2).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]
