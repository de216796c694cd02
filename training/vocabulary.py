"""The embedded model's tokenizer: a byte-level BPE of the corpus with four control tokens.

Knows text and the files of a tokenizer; knows nothing of examples beyond their text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from rotary_batch.model.tokens import Tokenizer

SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}<|assistant|>{% endfor %}"


def train_tokenizer(texts: Iterable[str], out: Path, vocab_size: int) -> Tokenizer:
    """Learn the merges and write them as a checkpoint's tokenizer files."""
    tokenizer = HfTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return Tokenizer.load(out)
