"""The lecture's experiments as one HTML page that needs nothing but itself, and in short on a terminal."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from unstuck.claims import Claim, Experiment, Lecture
from unstuck.report import words
from unstuck.report.figures import describe, figure
from unstuck.report.html import Place, plotly, saved, template

WIDEST = 96


class Mark(NamedTuple):
    """How a claim's outcome is shown."""

    sign: str
    style: str
    name: str
    colour: str


MARKS = {
    "en": {
        True: Mark("✓", "healthy", "held", "green"),
        False: Mark("✗", "problem", "did not hold", "red"),
        None: Mark("?", "undecided", "undecided", "yellow"),
    },
    "zh": {
        True: Mark("✓", "healthy", "成立", "green"),
        False: Mark("✗", "problem", "不成立", "red"),
        None: Mark("?", "undecided", "未定", "yellow"),
    },
}


def outcome(lecture: Lecture) -> bool | None:
    """True if all claims held, False if one did not, None if one is undecided and none failed."""
    held = [claim.held for experiment in lecture.experiments for claim in experiment.claims]
    return False if False in held else None if None in held else True


def page(lecture: Lecture) -> str:
    """The whole page: contents, and for each experiment its text, claims, figures and charts."""
    numbers = count()
    placed = [
        (one, _html(one.text), [Place(next(numbers), chart, describe(chart)) for chart in one.charts])
        for one in lecture.experiments
    ]
    drawn = [figure(chart) for one in lecture.experiments for chart in one.charts]
    return template("lecture.html.jinja").render(
        language=lecture.language,
        experiments=placed,
        said=_said(lecture),
        standing=MARKS["en"][outcome(lecture)].style,
        marks=MARKS[lecture.language],
        targets=sorted({one.target for one in lecture.experiments if one.target}),
        words=words,
        figures=drawn,
        plotly=plotly() if drawn else "",
    )


def write(lecture: Lecture, folder: Path | str) -> tuple[Path, Path]:
    """Write `lecture.json` and `lecture.html` into the folder, made where it is missing; their paths."""
    return saved(Path(folder), "lecture", lecture.to_json(), page(lecture))


def render(lecture: Lecture, console: Console) -> None:
    """Each experiment's claims and what became of them; of a single one its text and figures too."""
    alone = len(lecture.experiments) == 1
    for experiment in lecture.experiments:
        console.print()
        console.print(Text(experiment.title, style="bold"), width=min(console.width, WIDEST))
        if alone:
            console.print()
            console.print(Padding(Markdown(experiment.text), (0, 0, 0, 1)), width=min(console.width, WIDEST))
        _results(experiment, lecture.language, console, alone)
    console.print()
    console.print(Text(_said(lecture)["count"]))


def _results(experiment: Experiment, language: str, console: Console, alone: bool) -> None:
    console.print()
    for note in experiment.notes:
        console.print(Padding(Text(words.clean(note)), (0, 0, 0, 1)), width=min(console.width, WIDEST))
    for claim in experiment.claims:
        mark = MARKS[language][claim.held]
        said = words.clean(claim.says), "\n", ("  " + measured(claim), "dim")
        told = Text.assemble((mark.sign, mark.colour), " ", *said)
        console.print(Padding(told, (0, 0, 0, 1)), width=min(console.width, WIDEST))
    for one in experiment.figures if alone else ():
        console.print(Padding(Text(f"{words.clean(one.name)}  {words.amount(one)}"), (0, 0, 0, 3)))


def measured(claim: Claim) -> str:
    """The two figures and the relation that was asked for."""
    left, right = (f"{words.clean(side.name)} {words.amount(side)}" for side in (claim.left, claim.right))
    return f"{left} {claim.relation} {right}"


def _html(markdown: str) -> Markup:
    return Markup(MarkdownIt("commonmark", {"html": False}).render(words.clean(markdown)))


def _said(lecture: Lecture) -> dict[str, str]:
    """The page's own words, in its language."""
    held = [claim.held for experiment in lecture.experiments for claim in experiment.claims]
    kept, seconds = held.count(True), sum(experiment.seconds for experiment in lecture.experiments)
    if lecture.language == "zh":
        return {
            "title": "神经网络训练不起来怎么办：课程实验",
            "count": f"{len(held)} 条论断中 {kept} 条成立" + (f"，{held.count(None)} 条未定" if None in held else ""),
            "contents": "目录", "claims": "论断",
            "footer": f"共用 {seconds:.0f} 秒。数值见同目录下的 lecture.json（{lecture.schema}）。",
        }  # fmt: skip
    return {
        "title": "What to do when a network does not train: the experiments",
        "count": f"{kept} of {len(held)} claims held" + (f", {held.count(None)} undecided" if None in held else ""),
        "contents": "Contents", "claims": "Claims",
        "footer": f"Made in {seconds:.0f} s. The same in numbers: lecture.json ({lecture.schema}), beside this page.",
    }  # fmt: skip
