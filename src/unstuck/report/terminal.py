"""The report on a terminal: a headline, each finding with its evidence, remedy and proof, the rest in short."""

from __future__ import annotations

import io
from textwrap import shorten

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unstuck.records import Chapter, Figure, Finding, RemedyLine, Report, Verdict
from unstuck.report import words

WIDEST = 96
FIGURES = 4
ROWS = 16
LONGEST_REASON = 140
MARKS = {"problem": ("✗", "red"), "warning": ("!", "yellow"), "note": ("·", "blue")}
OUTCOMES = {
    "cured": ("✓", "green"),
    "helped": ("✓", "green"),
    "no-effect": ("=", "yellow"),
    "worse": ("✗", "red"),
    "undecided": ("?", "yellow"),
    "not-tried": ("·", "dim"),
}
ASCII = str.maketrans({"✗": "x", "✓": "+", "·": "-", "→": ">", "±": "+-", "λ": "lambda", "×": "x", "−": "-"})


def render(report: Report, console: Console) -> None:
    """Write the report to the console: coloured on a terminal (NO_COLOR: not), plain text when piped."""
    if console.is_terminal and console.encoding.lower().startswith("utf"):
        _page(report, console)
    else:
        console.out(_spellable(text(report, console.width), console.encoding), end="", highlight=False)


def text(report: Report, width: int = 80) -> str:
    """The same as plain text; only code may be wider than `width`."""
    page = io.StringIO()
    _page(report, Console(file=page, width=width, force_terminal=False, color_system=None, legacy_windows=False))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n"


def _page(report: Report, console: Console) -> None:
    _opening(report, console)
    for rank, finding in enumerate(words.problems(report), start=1):
        _finding(rank, finding, console)
    for finding in words.remarks(report):
        _remark(finding, console)
    for chapter in report.chapters:
        _chapter(chapter, console)
    _closing(report, console)


def _opening(report: Report, console: Console) -> None:
    mark, colour = ("✓", "green") if report.healthy else MARKS["problem"]
    if report.unexplained:
        mark, colour = OUTCOMES["undecided"]
    if (report.point is not None or report.found or report.race) and not report.unexplained:
        mark, colour = MARKS["note"]
    console.print()
    _put(console, _marked(mark, colour, Text(words.headline(report), style="bold")))
    if report.target:
        _put(console, Text(words.clean(report.target), style="dim"), indent=3)
    if report.healthy and report.figures:
        console.print()
        _put(console, _figures(report.figures), indent=3)
    if report.found:
        rows = words.found(report)
        _rows(words.FOUND, rows[:: -(-len(rows) // ROWS)], len(rows), console)
    if report.race:
        _rows(words.RACE, words.race(report)[:ROWS], len(report.race), console)
    if report.best is not None:
        console.print()
        _remedy(report.best, console)


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]], of: int, console: Console) -> None:
    """Some rows of a table; all of them are in the JSON and on the page."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in head:
        table.add_column(no_wrap=True)
    table.add_row(*(Text(name, style="dim") for name in head))
    for row in rows:
        table.add_row(*map(Text, row))
    console.print()
    _put(console, table, indent=3)
    if len(rows) < of:
        _put(console, Text(f"{len(rows)} of {of}; all are in the report", style="dim"), indent=3)


def _finding(rank: int, finding: Finding, console: Console) -> None:
    console.print()
    _put(console, _marked(str(rank), "bold red", _title(finding, "bold red")))
    _put(console, Text(words.clean(finding.summary)), indent=3)
    if finding.evidence:
        console.print()
        _put(console, _figures(finding.evidence[:FIGURES]), indent=3)
    if finding.remedy or words.measured(finding.verdict):
        console.print()
    if finding.remedy:
        _remedy(finding.remedy, console)
    _verdict(finding.verdict, console)


def _remark(finding: Finding, console: Console) -> None:
    mark, colour = MARKS[finding.severity]
    console.print()
    _put(console, _marked(mark, colour, _title(finding, colour)))
    _put(console, Text(words.clean(finding.summary)), indent=3)
    if finding.remedy:
        _code(finding.remedy.code, console)
    if finding.verdict.outcome != "not-tried":
        _verdict(finding.verdict, console)


def _chapter(chapter: Chapter, console: Console) -> None:
    """Its charts are on the page only."""
    console.print()
    _put(console, Text(words.clean(chapter.title), style="bold"))
    for sentence in chapter.sentences:
        console.print()
        _put(console, Text(words.clean(sentence)), indent=3)
    if chapter.figures:
        console.print()
        _put(console, _figures(chapter.figures), indent=3)
    if chapter.advice is not None:
        console.print()
        _remedy(chapter.advice, console)


def _closing(report: Report, console: Console) -> None:
    notes = [f"Left out: {parts} ({shorten(why, LONGEST_REASON)})" for parts, why in words.left_out(report)]
    notes += [words.clean(note) for note in report.notes]
    notes += [words.price(report.cost)] if words.price(report.cost) else []
    if notes:
        console.print()
    for note in notes:
        _put(console, Text(note, style="dim"), indent=3)
    console.print()


def _remedy(remedy: RemedyLine, console: Console) -> None:
    if remedy.text:
        _put(console, _marked("→", "cyan", Text(words.clean(remedy.text))))
    _code(remedy.code, console)


def _code(code: str, console: Console) -> None:
    """Code is never wrapped by us: what is copied from the terminal must run."""
    for line in words.clean(code).splitlines():
        console.print(Text.assemble("     ", (line, "cyan")), soft_wrap=True)


def _verdict(verdict: Verdict, console: Console) -> None:
    mark, colour = OUTCOMES[verdict.outcome]
    if said := words.measured(verdict):
        outcome = Text.assemble((words.OUTCOMES[verdict.outcome], colour), ": ", said)
        _put(console, _marked(mark, colour, outcome))


def _title(finding: Finding, style: str) -> Text:
    title = Text(words.clean(finding.cause), style=style)
    return Text.assemble(title, ("  " + words.clean(finding.where), "dim")) if finding.where else title


def _figures(figures: tuple[Figure, ...]) -> Table:
    """Name, value and samples; the last where there are any, as rich takes room for an empty column from the first."""
    rows = [(words.clean(figure.name), words.amount(figure), words.samples(figure)) for figure in figures]
    styles = ("", "bold", "dim") if any(samples for *_, samples in rows) else ("", "bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    for style in styles:
        table.add_column(style=style)
    for row in rows:
        table.add_row(*map(Text, row[: len(styles)]))
    return table


def _marked(mark: str, style: str, body: Text) -> Table:
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(Text(mark, style=style), body)
    return row


def _put(console: Console, body: RenderableType, indent: int = 1) -> None:
    console.print(Padding(body, (0, 0, 0, indent), expand=False), width=min(console.width, WIDEST))


def _spellable(plain: str, encoding: str) -> str:
    """The text in the characters that the console's encoding has."""
    if encoding.lower().startswith("utf"):
        return plain
    return plain.translate(ASCII).encode(encoding, "replace").decode(encoding)
