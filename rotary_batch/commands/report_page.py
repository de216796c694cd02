"""A report as one HTML page: no script, no request, light or dark as the reader's system is, at any width.

Names and texts of repositories and models have no effect in it: all of it is escaped, and no link leads anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from rotary_batch.commands import report_words as words
from rotary_batch.commands.report_plots import figures, outcomes
from rotary_batch.commands.run_report import RunReport
from rotary_batch.pages.sanitise import one_line
from rotary_batch.sizes import duration_text
from rotary_batch.work.samples import Sample

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --page: #fbfbf9; --card: #fff; --ink: #1d232a; --soft: #5d6772; --edge: #d9dde1;
  --s0: #c4cad0; --s1: #1668a8; --s2: #c2500d; --s3: #7d9bb5; --s4: #c99a1c; --s5: #8a4f9e; --s6: #8d8d80; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --card: #1c2228; --ink: #e6eaee; --soft: #9ba7b3;
  --edge: #343c45; --s0: #4a545e; --s1: #5aa9e6; --s2: #f08a4b; --s3: #5d7f9c; --s4: #e0b94a; --s5: #b98ad0;
  --s6: #a5a596; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.soft, figcaption, .legend, .tiles dt { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tiles div, figure, .list { background: var(--card); border: 1px solid var(--edge); border-radius: .5rem; }
.tiles div { padding: .6rem .8rem; }
.tiles dt { font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: .75rem; }
figure { display: flex; flex-direction: column; margin: 0; padding: .7rem .8rem; }
figure svg { margin-top: auto; }
figure h3 { margin: 0; font-size: .95rem; }
figcaption { font-size: .85rem; min-height: 1.5em; }
figcaption p { margin: 0; }
svg { display: block; width: 100%; height: auto; }
.bar { height: 1.75rem; border-radius: .3rem; overflow: hidden; }
.grid { stroke: var(--edge); }
.tick { fill: var(--soft); font-size: 11px; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.dashed { stroke-dasharray: 6 4; }
.area { fill: var(--c); opacity: .15; }
.part, .dot { fill: var(--c); }
.hint { fill: transparent; }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.s4 { --c: var(--s4); } .s5 { --c: var(--s5); } .s6 { --c: var(--s6); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; margin: .35rem 0 0; padding: 0;
  font-size: .85rem; }
figure .legend { margin: 0; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: .75rem; height: .75rem; border-radius: .15rem; background: var(--c);
  margin-right: .4rem; vertical-align: -1px; }
.key.dashed { height: .2rem; vertical-align: .2rem; }
.list { margin: 0; padding: .5rem .8rem .5rem 1.8rem; font-size: .9rem; }
.list li { overflow-wrap: anywhere; margin: .2rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
td { padding: .15rem 1.5rem .15rem 0; border-bottom: 1px solid var(--edge); vertical-align: top; }
td + td { text-align: right; padding-right: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
code { font-size: .92em; overflow-wrap: anywhere; }
summary { cursor: pointer; margin-top: 2rem; font-weight: 600; }
"""


def page(report: RunReport, samples: Sequence[Sample]) -> str:
    """The page; `samples` are those of the run, the first one first."""
    title = _text(words.headline(report).partition(". ")[0].rstrip("."))
    body = "\n".join(
        [
            f"<h1>{title}</h1>",
            f'<p class="soft">{_who(report)}</p>',
            *(f"<p>{_sentence(text)}</p>" for text in _sentences(report) if text),
            _tiles(report),
            *_outcomes(report),
            *_plots(report, samples),
            *_sections(report),
            *_tables(report),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<style>{_STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _text(text: str) -> str:
    return escape(one_line(text))


def _sentence(text: str) -> str:
    """What is in backticks is code."""
    parts = one_line(text).split("`")
    if len(parts) % 2 == 0:
        return _text(text)
    return "".join(f"<code>{escape(part)}</code>" if n % 2 else escape(part) for n, part in enumerate(parts))


def _who(report: RunReport) -> str:
    model = f", with {_text(report.model)}" if report.model else ""
    return f"Run {report.run}, <code>rotary-batch {_text(report.command)}</code>, {_text(words.period(report))}{model}"


def _sentences(report: RunReport) -> tuple[str, ...]:
    return (
        words.headline(report).partition(". ")[2],
        words.reason(report),
        words.answers(report),
        words.forecast(report),
        words.problems(report),
        words.next_step(report),
    )


def _tiles(report: RunReport) -> str:
    shown = "".join(f"<div><dt>{_text(one.name)}</dt><dd>{_text(one.value)}</dd></div>" for one in _figures(report))
    return f'<dl class="tiles">{shown}</dl>'


def _figures(report: RunReport) -> Iterator[words.Figure]:
    """The few figures that come first."""
    stats, step_s = report.stats, report.stats.get("step_s", 0)
    tokens = stats.get("prefill_tokens", 0) + stats.get("decode_tokens", 0)
    yield words.Figure("answered", f"{report.answered:,} of {report.items:,}")
    yield words.Figure("new answers", f"{report.new_answers:,}")
    yield words.Figure("failed", f"{report.parked:,}")
    yield words.Figure("took", duration_text(report.seconds))
    if step_s:
        yield words.Figure("tokens a second", f"{tokens / step_s:,.0f}")
    if step_s and stats.get("bound_s"):
        yield words.Figure("of the bound", f"{100 * stats['bound_s'] / step_s:.0f} %")
    if report.pages_changed:
        yield words.Figure("pages changed", f"{report.pages_changed:,}")


def _outcomes(report: RunReport) -> Iterator[str]:
    if bar := outcomes(report):
        yield f"<h2>Items by outcome</h2>\n{bar}"


def _plots(report: RunReport, samples: Sequence[Sample]) -> Iterator[str]:
    drawn = [
        f"<figure><h3>{one.title}</h3><figcaption>{one.words}</figcaption>{one.svg}</figure>"
        for one in figures(report, samples)
    ]
    if drawn:
        yield f'<h2>Over the run</h2>\n<div class="plots">{"".join(drawn)}</div>'


def _sections(report: RunReport) -> Iterator[str]:
    docs = words.Section("Where the docs are", report.docs)
    for section in (*words.sections(report), *([docs] if report.docs else [])):
        lines = "".join(f"<li>{_sentence(line)}</li>" for line in section.lines)
        more = f"<li>and {section.num_more:,} more</li>" if section.num_more else ""
        yield f'<h2>{_text(section.title)}</h2>\n<ul class="list">{lines}{more}</ul>'


def _tables(report: RunReport) -> Iterator[str]:
    tables = (("Answers of this run", words.answer_figures(report)), ("The engine", words.engine_figures(report)))
    for title, rows in tables:
        if rows:
            cells = "".join(f"<tr><td>{_text(one.name)}</td><td>{_text(one.value)}</td></tr>" for one in rows)
            yield f"<details><summary>{title}</summary><table>{cells}</table></details>"
