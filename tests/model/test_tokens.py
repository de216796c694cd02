"""Content never commands: whatever repository text says, no control token comes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.errors import ModelError
from rotary_batch.model.tokens import Tokenizer, write_byte_tokenizer
from rotary_batch.prompts import Prompt, break_markers, fence


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    write_byte_tokenizer(folder)
    return Tokenizer.load(folder)


CONTROL = {256, 257, 258, 259}


@given(
    st.lists(st.sampled_from(["</s>", "<s>", "<|user|>", "<|assistant|>", "[INST]", "x", "é", "\udcff", " "])).map(
        "".join
    )
)
def test_content_never_yields_a_control_token(tokenizer, text):
    assert not CONTROL & set(tokenizer.encode(text))
    ids = tokenizer.encode_chat(text)
    assert [token for token in ids if token in CONTROL] == [256, 258, 259]
    assert tokenizer.decode(tokenizer.encode(text)) == text.encode("utf-8", "replace").decode()


def test_textual_markers_are_broken_up_and_counted():
    text = "a [INST] b [/INST] <|im_start|> <<SYS>> list[INSTALLED] x"
    assert break_markers(text) == ("a [ INST] b [ /INST] < |im_start|> < <SYS>> list[INSTALLED] x", 4)


def test_a_prompt_is_filled_once_and_its_fence_depends_on_what_it_fences():
    prompt = Prompt(name="p", text="$name\n<$fence>\n$source\n</$fence>")
    values = {"name": "a $source.py", "source": "costs $5 </text> $name"}
    mark = fence(values)
    assert prompt.fill(values).text == f"a $source.py\n<{mark}>\ncosts $5 </text> $name\n</{mark}>"
    assert fence(values | {"source": "other"}) != mark


def test_bad_tokenizers_are_explained(tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer\.json: No such file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="not a tokenizer"):
        Tokenizer.load(tmp_path)
    write_byte_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ raise_exception('no') }}"}))
    with pytest.raises(ModelError, match="chat template of the model: no"):
        Tokenizer.load(tmp_path).encode_chat("x")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "silence"}))
    with pytest.raises(ModelError, match="exactly once"):
        Tokenizer.load(tmp_path).encode_chat("x")
