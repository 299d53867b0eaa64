"""The report as one HTML page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from unstuck.records import Chapter, Chart, Report, Verdict
from unstuck.report import words
from unstuck.report.figures import describe, figure


class Bar(NamedTuple):
    """One of the two bars that show a verdict: its name, the number at its end, its length (1 is the whole width)."""

    name: str
    value: str
    length: float


class Place(NamedTuple):
    """Where a chart stands on the page: the number in its id, the chart, and what it shows in words."""

    number: int
    chart: Chart
    said: str


def page(report: Report) -> str:
    """The whole page; plotly's script stands in it once, and only where there is a chart to draw."""
    drawn = _every_chart(report)
    charts, chapters = _placed(report)
    return template("report.html.jinja").render(
        report=report,
        words=words,
        headline=words.headline(report),
        problems=words.problems(report),
        remarks=words.remarks(report),
        skipped=words.left_out(report),
        cost=words.price(report.cost),
        charts=charts,
        chapters=chapters,
        figures=[figure(chart) for chart in drawn],
        plotly=plotly() if drawn else "",
        bars=bars,
    )


def write(report: Report, folder: Path | str) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into the folder, made where it is missing; their paths."""
    return saved(Path(folder), "report", report.to_json(), page(report))


def saved(folder: Path, name: str, data: bytes, page: str) -> tuple[Path, Path]:
    """Write a record's JSON and its page into the folder, made where it is missing; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, html_path = folder / f"{name}.json", folder / f"{name}.html"
    json_path.write_bytes(data)
    html_path.write_text(page, encoding="utf-8", errors="replace")
    return json_path, html_path


def bars(verdict: Verdict) -> tuple[Bar, ...]:
    """The verdict as two bars on one scale (up to 1 for what looks like a share); none where that would mislead."""
    values = [words.finite(value) for value in (verdict.control, verdict.remedied)]
    known = [value for value in values if value is not None and value >= 0]
    if verdict.outcome == "not-tried" or len(known) < 2 or max(known) == 0:
        return ()
    whole = 1.0 if 0.1 < max(known) <= 1 else max(known)
    names = ("as it is", "with the remedy")
    said = words.alike(*known)
    return tuple(Bar(name, word, round(v / whole, 4)) for name, word, v in zip(names, said, known, strict=True))


def _every_chart(report: Report) -> list[Chart]:
    """The report's own charts, then those of its chapters: the page draws them in this order."""
    return [*report.charts, *(chart for chapter in report.chapters for chart in chapter.charts)]


def _placed(report: Report) -> tuple[list[Place], list[tuple[Chapter, list[Place]]]]:
    """The report's own charts in their places, and each chapter with its charts, numbered on."""
    places = (Place(number, chart, describe(chart)) for number, chart in enumerate(_every_chart(report)))
    own = list(islice(places, len(report.charts)))
    return own, [(chapter, list(islice(places, len(chapter.charts)))) for chapter in report.chapters]


@cache
def template(name: str) -> Template:
    """One of the templates beside this file, with everything escaped that is not markup of ours."""
    loader = PackageLoader("unstuck", "report")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    pages.filters["clean"] = words.clean
    return pages.get_template(name)


@cache
def plotly() -> Any:
    """Plotly's script, to stand in a page."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())
