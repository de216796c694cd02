"""Text to token ids and back, with a checkpoint's own tokenizer and chat template.

Knows which ids are control tokens and keeps repository text from ever producing one; knows nothing of
what a prompt says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from rotary_batch.errors import ModelError
from rotary_batch.model.rendering import RenderingError, render

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
# Stands for the content while the template is rendered; private-use characters, so no template holds it.
_HOLE = "\ue000rotary-content\ue001"
# A checkpoint without a template gets the content alone, begun as its tokenizer begins a text.
_PLAIN_TEMPLATE = "{{ bos_token }}{{ messages[0]['content'] }}"


class Tokenizer:
    """Counts, encodes and decodes.  Content and template are encoded apart, so content commands nothing."""

    def __init__(
        self, tokenizer_json: str, config: dict[str, Any], template: str | None, template_source: Path
    ) -> None:
        self._content = HfTokenizer.from_str(tokenizer_json)
        # Makes `</s>` in repository text three ordinary pieces instead of the end of the sequence.
        self._content.encode_special_tokens = True
        self._control = HfTokenizer.from_str(tokenizer_json)
        self._config = config
        self._template = template or _PLAIN_TEMPLATE
        self._template_source = template_source
        self.digest = _digest(tokenizer_json, self._template, [self._special(n) for n in ("bos_token", "eos_token")])

    @classmethod
    def load(cls, model_dir: Path) -> Tokenizer:
        """Read a checkpoint's or a pack's tokenizer.  Raises ModelError when there is none."""
        path = model_dir / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path}: no such file; a model needs its tokenizer.json (not tokenizer.model)")
        config = _json(model_dir / "tokenizer_config.json")
        template_path = model_dir / "chat_template.jinja"
        template = template_path.read_text(encoding="utf-8") if template_path.is_file() else config.get("chat_template")
        if isinstance(template, list):  # several named templates: the default one
            template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
        try:
            source = template_path if template_path.is_file() else model_dir / "tokenizer_config.json"
            return cls(path.read_text(encoding="utf-8"), config, template, source)
        except Exception as error:
            raise ModelError(f"{path}: not a tokenizer that `tokenizers` can read: {error}") from error

    def count(self, text: str) -> int:
        """How many tokens a text is, as content."""
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """Token ids of content; never a control token, whatever the text says."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._content.encode(clean, add_special_tokens=False).ids)

    def encode_chat(self, content: str) -> list[int]:
        """Token ids of one user message in the checkpoint's chat template, ready to be answered."""
        before, after = self._wrapper
        return [*before, *self.encode(content), *after]

    @cached_property
    def _wrapper(self) -> tuple[list[int], list[int]]:
        if self._template == _PLAIN_TEMPLATE:
            return self._encode_control(self._special("bos_token")), []
        try:
            rendered = render(self._template, _HOLE, self._special("bos_token"), self._special("eos_token"))
        except RenderingError as error:
            raise self._bad_template(str(error)) from error
        before, hole, after = rendered.partition(_HOLE)
        if not hole or _HOLE in after:
            raise self._bad_template("it does not put the user's message in exactly once")
        return self._encode_control(before), self._encode_control(after)

    def _bad_template(self, fact: str) -> ModelError:
        return ModelError(
            f"{self._template_source}: chat template: {fact}; take the template of the model's own publisher, or name "
            "another model"
        )

    def _encode_control(self, text: str) -> list[int]:
        return list(self._control.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return str(self._control.decode(list(token_ids), skip_special_tokens=True))

    def pieces(self) -> dict[int, str]:
        """The text of every token as it stands within a text: a word that follows a space begins with one."""
        marked = {token_id: token for token, token_id in self._control.get_vocab().items()}
        spaces = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})  # byte-level and SentencePiece vocabularies
        return {token_id: token.translate(spaces).replace("<0x0A>", "\n") for token_id, token in marked.items()}

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The end-of-sequence token of the tokenizer; a model's config may add others."""
        found = self._control.token_to_id(self._special("eos_token"))
        return frozenset() if found is None else frozenset({found})

    def _special(self, name: str) -> str:
        value = self._config.get(name) or ""
        return str(value["content"] if isinstance(value, dict) else value)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


_SPECIAL = ("<s>", "</s>", "<|user|>", "<|assistant|>")
_CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}<|assistant|>{% endfor %}"


def write_byte_tokenizer(folder: Path) -> None:
    """A tokenizer for models of random weights: 256 byte tokens, then the control tokens; a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    builder = HfTokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    builder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    builder.decoder = decoders.ByteLevel()
    builder.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    builder.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": _CHAT_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
