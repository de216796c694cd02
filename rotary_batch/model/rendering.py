"""Render the chat template of a checkpoint in a child process with a limit on time, memory and output.

A template is an untrusted program: three nested loops run for years, `'a' * 10**10` takes all memory, and no list of
forbidden operations is complete.  The limits of the operating system hold for all of them.  A process renders a
template once, so the child's tenth of a second does not matter.  Run as a script, this file is the child; it imports
nothing from the package.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

MAX_TEMPLATE_NBYTES = 10**6  # the longest of the field are under 20 KB
_CPU_S = 5
_WALL_S = 60.0  # on a busy machine
_MEMORY_NBYTES = 512 * 2**20
_MAX_OUTPUT_LETTERS = 10**6
# What `strftime_now` calls today, always: with the true date, every prompt would be another one each night, and every
# answer would be asked again.  The date of Llama 3's own template.
_TODAY = datetime.date(2024, 7, 26)


class RenderingError(ValueError):
    """A template that cannot be rendered; the text says why."""


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template with values for its names.  Raises RenderingError."""
    if len(template.encode("utf-8", "replace")) > MAX_TEMPLATE_NBYTES:
        raise RenderingError(f"over {MAX_TEMPLATE_NBYTES:,} bytes")
    try:
        # -P: the folder of this file, whose modules have names of their own, is not searched for imports.
        child = subprocess.run(
            [sys.executable, "-P", __file__],
            input=json.dumps([template, values, _CPU_S]).encode(),
            capture_output=True,
            timeout=_WALL_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise RenderingError(f"takes over {_WALL_S:.0f} s to render") from error
    if child.returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise RenderingError(f"takes over {_CPU_S} s to render")
    if child.returncode:
        raise RenderingError(f"the process that renders it ended with {child.returncode}: {_last_line(child.stderr)}")
    try:
        answer = json.loads(child.stdout)
    except ValueError as error:
        printed = ascii(child.stdout.decode("utf-8", "replace")[:100])
        raise RenderingError(f"a module that Python loads at its start prints into the answer: {printed}") from error
    if "error" in answer:
        raise RenderingError(answer["error"])
    return str(answer["text"])


def _last_line(stderr: bytes) -> str:
    return (stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1][:200]


def _limit(cpu_s: int) -> None:
    for kind, amount in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, _MEMORY_NBYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (amount, amount) if hard == resource.RLIM_INFINITY else (min(amount, hard), hard))


def _answer(template: str, values: dict[str, object], cpu_s: int) -> dict[str, str]:
    import jinja2

    environment = _environment()
    _limit(cpu_s)
    try:
        text = environment.from_string(template).render(values)
    except MemoryError:
        return {"error": f"takes over {_MEMORY_NBYTES // 2**20} MiB of memory"}
    except jinja2.TemplateError as error:
        return {"error": _encodable(str(error)[:300])}
    except Exception as error:  # noqa: BLE001 - whatever a stranger's program raises
        return {"error": _encodable(f"{type(error).__name__}: {error}"[:300])}
    if len(text) > _MAX_OUTPUT_LETTERS:
        return {"error": f"makes a prompt of {len(text):,} characters"}
    if _encodable(text) != text:
        return {"error": "makes a prompt that is not valid Unicode: it has half of a surrogate pair"}
    return {"text": text}


def _environment() -> Any:  # noqa: ANN401 - jinja2 is loaded in the child alone
    """With what published templates use: what `transformers` gives them."""
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """`{% generation %}...{% endgeneration %}` marks answers for training, and changes no text."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Any) -> Any:  # noqa: ANN401 - jinja2 is loaded in the child alone
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: ANN401, FBT001, FBT002 - as templates call it
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    extensions = [Generation, jinja2.ext.loopcontrols]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=extensions
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": _TODAY.strftime}
    return environment


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(*json.load(sys.stdin))))
