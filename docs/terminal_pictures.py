"""Draw parts of docs/session.cast as pictures of a terminal.

pip install pyte; python docs/terminal_pictures.py [--light] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI, TerminalTheme
from rich.text import Text

DOCS = Path(__file__).parent
CAST = DOCS / "session.cast"
PROMPT = "$ "


class Picture(NamedTuple):
    """What follows a command, up to a text."""

    command: str
    until: str = ""


PICTURES = {
    "bar": Picture("make run", until="^C"),
    "end": Picture("rotary-batch run ~/src/click --until"),
    "report": Picture("rotary-batch report"),
}


def commands(events: list[list[Any]]) -> Iterator[list[str]]:
    """What the terminal got for each command: that of a prompt's end to the next."""
    data: list[str] = []
    for _, _, text in events:
        data.append(text)
        if text.endswith(PROMPT):
            yield data
            data = []


def output(events: list[list[Any]], picture: Picture) -> str:
    """The command behind a prompt, and what it printed."""
    data = next(parts for parts in commands(events) if "".join(parts).startswith(picture.command))
    last = next((i for i, text in enumerate(data) if picture.until and picture.until in text), len(data))
    return PROMPT + "".join(data[:last]).removesuffix(PROMPT)


def screen_text(data: str, columns: int) -> Text:
    """The screen of a terminal that got this, in colours."""
    import pyte

    screen = pyte.Screen(columns, 100)
    pyte.Stream(screen).feed(re.sub(r"\x1b\]8;;.*?\x1b\\", "", data))
    num_rows = max(row for row, line in enumerate(screen.display) if line.strip()) + 1
    return Text("\n").join(_row(screen.buffer[row], columns) for row in range(num_rows))


def _row(cells: Any, columns: int) -> Text:  # noqa: ANN401 - pyte has no types
    line = Text()
    for cell in (cells[column] for column in range(columns)):
        line.append(cell.data, Style(color=_color(cell.fg), bold=cell.bold or None, italic=cell.italics or None))
    line.rstrip()
    return line


def _color(name: str) -> str | None:
    """The name that rich has for a colour of pyte."""
    if name == "default":
        return None
    return {"brown": "yellow"}.get(name, name.replace("bright", "bright_"))


def svg(data: str, columns: int, title: str, theme: TerminalTheme) -> str:
    """A picture that asks no other host for fonts."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(screen_text(data, columns), soft_wrap=True)
    drawn = console.export_svg(title=title, theme=theme, unique_id="terminal")
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL).replace("Fira Code, ", "")


def main() -> None:
    """Write every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--out", type=Path, default=DOCS / "images")
    options = parser.parse_args()
    header, *events = map(json.loads, CAST.read_text(encoding="utf-8").splitlines())
    for name, picture in PICTURES.items():
        data = output(events, picture)
        drawn = svg(data, header["width"], "rotary-batch", DEFAULT_TERMINAL_THEME if options.light else MONOKAI)
        (options.out / f"terminal-{name}.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
