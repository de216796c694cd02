"""Text to token ids and back, with a checkpoint's own tokenizer and chat template.

Text of a repository never becomes a control token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer

from rotary_batch.model.answers import AnswerForm
from rotary_batch.model.begun import BegunChat, answer_begun, thinks
from rotary_batch.model.chat import ChatTemplate, Message, Variables
from rotary_batch.model.chat_ids import ChatEncoder, encodable
from rotary_batch.model.chat_rendering import keep_rendering, kept_renderings
from rotary_batch.model.chat_tokens import ENDS, HARMONY_TURN_END, ROLE_ENDS
from rotary_batch.model.rendering import RenderingError
from rotary_batch.model.rust_tokenizers import reading_tokenizer
from rotary_batch.model.tables import Table, read_object, read_text, shown
from rotary_batch.model.words import Words

_REMEDY = "fetch the files of the model again"
_MAX_TOKENIZER_NBYTES = 256 * 2**20
_MAX_CONFIG_NBYTES = 64 * 2**20
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
_MAX_ENDS, _MAX_TOKEN_ID = 256, 2**26


class Tokenizer:
    """Counts, encodes and decodes.  Content and template are encoded separately, so content has no control tokens."""

    def __init__(
        self, tokenizer_json: str, specials: Mapping[str, str], chat: ChatTemplate, end_ids: Sequence[int]
    ) -> None:
        self._content = HfTokenizer.from_str(tokenizer_json)
        # Makes `</s>` in repository text three ordinary pieces instead of the end of the sequence.
        self._content.encode_special_tokens = True
        self._words = Words.of(self._content)
        self._json = tokenizer_json
        self._specials = specials
        self._chat, self._end_ids = chat, end_ids
        self.digest = _digest(tokenizer_json, chat.text, [specials["bos_token"], specials["eos_token"]])

    @classmethod
    def load(cls, model_dir: Path) -> Tokenizer:
        """Read a checkpoint's or a pack's tokenizer.  Raises ModelError when there is none, MemoryError."""
        path, config_path = model_dir / "tokenizer.json", model_dir / "tokenizer_config.json"
        config = read_object(config_path, _MAX_CONFIG_NBYTES, _REMEDY) if config_path.exists() else {}
        table = Table(config, config_path, _REMEDY)
        tokenizer_json = read_text(path, _MAX_TOKENIZER_NBYTES, f"a model needs its tokenizer.json; {_REMEDY}")
        specials = {name: _special(table, name) for name in ("bos_token", "eos_token")}
        chat, end_ids = _chat(model_dir, table, specials), _end_ids(model_dir / "generation_config.json")
        with reading_tokenizer(len(tokenizer_json), path, _REMEDY):
            return cls(tokenizer_json, specials, chat, end_ids)

    @cached_property
    def _control(self) -> HfTokenizer:
        """Knows control tokens.  Counting text needs none, and reading a tokenizer takes 0.1 s."""
        return HfTokenizer.from_str(self._json)

    @cached_property
    def _chat_encoder(self) -> ChatEncoder:
        return ChatEncoder(self._json, self._control, self.encode)

    def count(self, text: str) -> int:
        """How many tokens a text is, as content."""
        return len(self.encode(text))

    def count_ranges(self, source: bytes) -> Callable[[int, int], int]:
        """A function that counts the tokens of any range of bytes of a source, as of a text of its own."""
        ranges = self._words.ranges(source) if self._words is not None else None
        return ranges or (lambda start, end: self.count(source[start:end].decode("utf-8", "replace")))

    def encode(self, text: str) -> list[int]:
        """Token ids of content; never a control token, whatever the text says."""
        clean = encodable(text)
        if self._words is not None and (ids := self._words.encode(clean)) is not None:
            return ids
        return list(self._content.encode(clean, add_special_tokens=False).ids)

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of what a model wrote, in which control tokens are spelt out."""
        return list(self._control.encode(encodable(text), add_special_tokens=False).ids)

    @property
    def num_tokens(self) -> int:
        """The size of the vocabulary, with control tokens."""
        return int(self._control.get_vocab_size(with_added_tokens=True))

    def encode_chat(self, content: str, variables: Variables = MappingProxyType({})) -> list[int]:
        """Token ids of one user message in the checkpoint's chat template, up to where the answer begins."""
        return self.encode_messages([Message("user", content)], variables)

    def encode_messages(self, messages: Sequence[Message], variables: Variables = MappingProxyType({})) -> list[int]:
        """Token ids of several messages in the chat template.  Raises ModelError when it cannot have them."""
        arranged, around = self._chat.arranged(messages, variables)
        return self._chat_encoder.encode(around, [message.content for message in arranged])

    def begin_chat(self, content: str, variables: Variables = MappingProxyType({})) -> BegunChat:
        """One user message in the chat template, to which something is added: the beginning of the answer.

        When the model is to think before it answers, the answer cannot be begun, and the message goes on.
        """
        arranged, around = self._chat.arranged([Message("user", content)], variables)
        contents, may_begin = [message.content for message in arranged], not thinks(variables, self.answers)
        control = answer_begun(around[-1], self.answers) if may_begin else around[-1]
        *head, tail = self._chat_encoder.parts([*around[:-1], control], contents)
        ids = tuple(chain.from_iterable(head))
        going_on = partial(self._chat_encoder.going_on, before=control if may_begin else None)
        if may_begin:
            return BegunChat(head_ids=(*ids, *tail), tail_ids=(), is_answer=True, going_on=going_on)
        return BegunChat(head_ids=ids, tail_ids=tuple(tail), is_answer=False, going_on=going_on)

    def keep_rendering(self, pack_dir: Path) -> None:
        """Keep in a pack what its chat template makes of a message; nothing where it makes nothing.  Raises OSError."""
        with suppress(RenderingError):
            keep_rendering(pack_dir, *self._chat.user_rendering())

    @property
    def renders_as_kept(self) -> bool:
        """Whether its folder keeps no rendering, or the right one."""
        return self._chat.renders_as_known

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, control tokens left out."""
        return str(self._control.decode(list(token_ids), skip_special_tokens=True))

    def written(self, token_ids: Sequence[int]) -> str:
        """The text of a prompt, its control tokens as they are spelt."""
        return str(self._control.decode(list(token_ids), skip_special_tokens=False))

    def pieces(self) -> dict[int, str]:
        """Token id -> its text within a sentence: a word that follows a space begins with one."""
        marked = {token_id: token for token, token_id in self._control.get_vocab().items()}
        spaces = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})  # byte-level and SentencePiece vocabularies
        return {token_id: token.translate(spaces).replace("<0x0A>", "\n") for token_id, token in marked.items()}

    @cached_property
    def answers(self) -> AnswerForm:
        """What of this vocabulary's answers is meant for their reader."""
        added = {one.content: token_id for token_id, one in self._control.get_added_tokens_decoder().items()}
        return AnswerForm(added, self.pieces)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: those of its files, and control tokens that mean it everywhere.

        A model's config may add others.
        """
        added = self._control.get_added_tokens_decoder()
        control = {one.content: token_id for token_id, one in added.items() if one.special}
        ends = {token_id for text, token_id in control.items() if text in ENDS}
        if all(text in control and text in self._chat.text for text in ROLE_ENDS):
            ends |= {control[text] for text in ROLE_ENDS}
        ends |= {*self._end_ids}
        if (eos_id := self._control.token_to_id(self._specials["eos_token"])) is not None:
            ends.add(eos_id)
        goes_on = {control.get(HARMONY_TURN_END)} if self.answers.has_channels else set()
        return frozenset(ends - goes_on)


def _special(table: Table, name: str) -> str:
    """A control token, empty when absent; in some configs it is an object."""
    if not table.has(name):
        return ""
    return table.table(name).text("content") if table.holds(name, dict) else table.text(name)


def _chat(model_dir: Path, table: Table, specials: Mapping[str, str]) -> ChatTemplate:
    path = model_dir / "chat_template.jinja"
    text = read_text(path, _MAX_CONFIG_NBYTES, _REMEDY) if path.exists() else _template(table)
    has_bos = text or not table.has("add_bos_token") or table.boolean("add_bos_token")
    source = path if path.exists() else model_dir / "tokenizer_config.json"
    bos_token = specials["bos_token"] if has_bos else ""
    return ChatTemplate(text, source, bos_token, specials["eos_token"], kept_renderings(model_dir))


def _template(table: Table) -> str | None:
    """Of several named ones, the default one."""
    if not table.has("chat_template"):
        return None
    if not table.holds("chat_template", list):
        return table.text("chat_template")
    rows = [table.part("chat_template", row) for row in table.rows("chat_template", 64) if isinstance(row, dict)]
    templates = {row.text("name"): row.text("template") for row in rows}
    if templates and "default" not in templates:
        raise table.error(f'chat_template: none of {", ".join(map(shown, templates))} is named "default"')
    return templates.get("default")


def _end_ids(path: Path) -> tuple[int, ...]:
    """The tokens that end an answer by generation_config.json, if there is one."""
    config = Table(read_object(path, _MAX_CONFIG_NBYTES, _REMEDY) if path.exists() else {}, path, _REMEDY)
    if not config.has("eos_token_id"):
        return ()
    if config.holds("eos_token_id", list):
        return config.wholes("eos_token_id", _MAX_ENDS, _MAX_TOKEN_ID)
    return (config.whole("eos_token_id", _MAX_TOKEN_ID, least=0),)


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
