"""Content never commands: whatever repository text says, no control token comes of it."""

from __future__ import annotations

import json
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.errors import ModelError
from rotary_batch.model import rendering
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
@settings(deadline=None)  # the first example renders the template in a process of its own
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
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: chat template: no; take"):
        Tokenizer.load(tmp_path).encode_chat("x")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "silence"}))
    with pytest.raises(ModelError, match="exactly once"):
        Tokenizer.load(tmp_path).encode_chat("x")


def test_a_module_that_prints_at_the_start_of_python_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("print('hello')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write_byte_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("prints: {{ messages[0].content }}")
    with pytest.raises(ModelError, match=r"chat_template\.jinja: chat template: a module that Python loads .* 'hello"):
        Tokenizer.load(tmp_path).encode_chat("x")


LONG = "{% for i in range(99999) %}"
HOSTILE = {
    "nested loops": (LONG * 4 + "x" + "{% endfor %}" * 4, "takes over 1 s"),
    "a loop over a filter": ("{% for i in range(99999) %}{{ range(99999)|sum }}{% endfor %}", "takes over 1 s"),
    "a macro that calls itself twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "takes over 1 s",
    ),
    "a power": ("{{ (9 ** (9 ** 9)) % 2 }}", "takes over 1 s"),
    "a text times a number": ("{{ 'a' * 10 ** 10 }}", "MiB of memory"),
    "a list times a number": ("{{ ([1] * 10 ** 10)|length }}", "MiB of memory"),
    "doubling": (
        "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "MiB of memory",
    ),
    "doubling lists": (
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "MiB of memory",
    ),
    "a wide column": ("{{ 'a'|center(10 ** 10) }}", "MiB of memory"),
    "a wide format": ("{{ '%010000000000d'|format(1) }}", "MiB of memory"),
    "a wide percent": ("{{ '%10000000000d' % 1 }}", "MiB of memory"),
    "a wide str.format": ("{{ '{:>10000000000}'.format(1) }}", "MiB of memory"),
    "a wide indent": ("{{ ('a\n' * 10 ** 5)|indent(10 ** 6) }}", "takes over"),
    "a join": ("{{ range(99999)|join('a' * 10 ** 5) }}", "MiB of memory"),
    "replacing": ("{{ ('a' * 10 ** 5)|replace('a', 'b' * 10 ** 5) }}", "MiB of memory"),
    "batches": ("{{ [1]|batch(10 ** 10, 0)|list }}", "MiB of memory"),
    "a long answer": ("{{ messages[0]['content'] }}" + LONG + "aaaaaaaaaaaaaaaa{% endfor %}", "characters"),
    "itself": ("{% import self %}", ""),
    "an include": ("{% include '/etc/passwd' %}", ""),
    "a macro without an end": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
    "brackets by the thousand": ("{{ " + "(" * 20_000 + ")" * 20_000 + " }}", ""),
    "a million bytes": ("x" * 1_000_001, "over 1,000,000 bytes"),
    "a class": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "a file": ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
    "a missing name": ("{{ a.b.c }}", "undefined"),
    "a division by zero": ("{{ 1 // 0 }}", "ZeroDivisionError"),
    "half a surrogate pair": ("{{ '\\ud800' }}{{ messages[0]['content'] }}", "half of a surrogate pair"),
    "half a surrogate pair in its own error": ("{{ raise_exception('no \\ud800') }}", "no \\ud800"),
}


@pytest.mark.parametrize(("template", "fact"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_template_is_an_error_in_bounded_time_and_memory(template, fact, tmp_path, monkeypatch):
    """Each once ran in this process, some of them for ever."""
    monkeypatch.setattr(rendering, "_CPU_S", 1)
    write_byte_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as error:
        Tokenizer.load(tmp_path).encode_chat("x")
    assert str(error.value).startswith(f"{tmp_path}/chat_template.jinja: chat template: ")
    assert fact in str(error.value)
    assert str(error.value).encode(), "any terminal can show it"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000


def test_templates_of_the_field_render_as_they_did(tmp_path):
    """Loops, conditions, filters, macros and namespaces, as published templates use them."""
    template = (
        "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- endif %}"
        "{%- set ns = namespace(last=messages|length - 1) %}"
        "{% macro turn(m) %}[{{ m.role|upper }}] {{ m['content'] | trim }} [END]{% endmacro %}"
        "{{ bos_token }}{% for message in messages %}{{ turn(message) }}{% if loop.index0 == ns.last %}!{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    values = {"messages": [{"role": "user", "content": "hello"}], "add_generation_prompt": True, "bos_token": "<s>"}
    assert rendering.render(template, values) == "<s>[USER] hello [END]!<|assistant|>"
