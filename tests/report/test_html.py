from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from unstuck.records import Chapter, Figure, RemedyLine, Report, Verdict
from unstuck.report.figures import describe, figure
from unstuck.report.html import bars, page, write

if TYPE_CHECKING:
    from conftest import Seen

HOSTILE = (
    '"\'><script>document.title = "taken"</script></script><img src=x onerror="document.title=1">'
    '<a href="https://example.com">x</a>&amp;{{ 7 * 7 }}$%{x}'
)
PLOTLY_BYTES = 1_000_000


class Skeleton(HTMLParser):
    """The tags of a page and their attributes' names, without any text; and the addresses it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def hostile(report: Report) -> Report:
    """The report with every text of a person's replaced by one that tries to break out."""
    kept = {"schema", "outcome", "severity", "id"}

    def spoilt(value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {name: spoilt(item, name) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return tuple(spoilt(item, key) for item in value)
        return HOSTILE if isinstance(value, str) and value and key not in kept else value

    return msgspec.convert(spoilt(msgspec.to_builtins(report)), Report)


def without_charts(report: Report) -> Report:
    return msgspec.structs.replace(report, charts=())


def test_the_page_tells_what_the_report_tells(sick: Report) -> None:
    said = page(without_charts(sick))
    for part in (
        sick.headline,
        "softmax-applied-twice",
        "5 (Softmax), loss at train.py:31",
        "1.753 ± 0.004",
        "Left out",
    ):
        assert part in said
    assert "model = nn.Sequential(*list(model)[:-1])" in said
    assert "0.31 as it is, 0.94 with the remedy (difference 0.60 to 0.66 at 95\u00a0%), 3 seeds" in said


def test_a_chapter_is_a_section_of_its_own(lecture: Report) -> None:
    said = page(lecture)
    sections = re.findall(r'<section aria-labelledby="chapter-(\w+)">(.*?)</section>', said, re.DOTALL)
    assert [id for id, _ in sections] == ["steps", "batches"]
    for chapter, (_, section) in zip(lecture.chapters, sections, strict=True):
        assert f">{chapter.title}</h2>" in section
        assert all(f"<p>{sentence}</p>" in section.replace("\u00a0", " ") for sentence in chapter.sentences)
        assert section.count("<figure") == len(chapter.charts)
        assert section.count("<pre") == section.count("Advice.") == (chapter.advice is not None)
        assert section.count("<table>") == bool(chapter.figures)


def test_every_chart_has_a_figure_and_an_id_of_its_own(sick: Report, lecture: Report) -> None:
    """The report's charts come first; those of the chapters are numbered on."""
    both = msgspec.structs.replace(sick, chapters=lecture.chapters)
    charts = [*both.charts, *(chart for chapter in both.chapters for chart in chapter.charts)]
    said = page(both)
    assert re.findall(r'<div class="chart" id="(.*?)"', said) == [f"chart-{i}" for i in range(len(charts))]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", said) == [chart.title for chart in charts]
    assert drawn(said) == json.loads(json.dumps([figure(chart) for chart in charts]))


def drawn(said: str) -> object:
    """The figures that a page's script draws."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', said, re.DOTALL)
    return found and json.loads(found[1])


def test_plotly_is_there_for_the_charts_of_chapters_alone(lecture: Report) -> None:
    assert len(re.findall(r"plotly\.js v\d", page(lecture))) == 1
    bare = tuple(msgspec.structs.replace(chapter, charts=()) for chapter in lecture.chapters)
    assert "<script" not in page(msgspec.structs.replace(lecture, chapters=bare))


def test_control_characters_of_a_chapter_are_cleaned() -> None:
    bad = "a\x1b[2Jb\u202ec"
    said = page(Report(chapters=(Chapter("steps", bad, (bad,), (Figure(bad, 1.0),), (), RemedyLine("r", bad, bad)),)))
    assert "\x1b" not in said
    assert said.count("a�[2Jb�c") == 5


def test_hostile_text_in_a_chapter_stays_text(lecture: Report) -> None:
    assert Skeleton(page(hostile(lecture))).tags == Skeleton(page(lecture)).tags


def test_plotly_is_inlined_once_and_only_for_charts(sick: Report) -> None:
    assert len(page(without_charts(sick))) < 50_000
    assert "<script" not in page(without_charts(sick))
    assert len(page(sick)) > PLOTLY_BYTES
    assert len(re.findall(r"plotly\.js v\d", page(sick))) == 1


def test_the_page_refers_to_nothing_outside_itself(sick: Report, healthy: Report) -> None:
    for report in (sick, healthy, hostile(sick)):
        assert Skeleton(page(report)).addresses == ["data:,"]
    assert "default-src 'none'" in page(sick)


def test_hostile_text_stays_text(sick: Report) -> None:
    """Whatever the strings of a report hold, the page has the elements that it has for harmless ones."""
    assert Skeleton(page(hostile(sick))).tags == Skeleton(page(harmless(sick))).tags


def harmless(report: Report) -> Report:
    """The same report through the same mill: skipped parts that share a reason share a line in both."""
    alike = tuple(msgspec.structs.replace(part, why="w") for part in report.skipped)
    return msgspec.structs.replace(report, skipped=alike)


def test_plotly_gets_no_markup_of_the_report(sick: Report) -> None:
    for chart in hostile(sick).charts:
        drawn = str(figure(chart))
        assert "<script" not in drawn
        assert "<a" not in drawn
        assert "<img" not in drawn


def test_a_chart_is_told_in_words(sick: Report) -> None:
    loss, layers, *_ = sick.charts
    assert describe(loss) == (
        "Training loss, loss by step: loss from 2.3 to 1.09, lowest 1.09, highest 2.3; "
        "reference: chance predicts 2.3; reference: always the mean 2.3."
    )
    assert "0 (Linear) 0; 2 (Linear) 0.00032; 4 (Linear) 0.041" in describe(layers)


def test_labels_of_levels_do_not_cover_each_other(sick: Report) -> None:
    heights = sorted(label["yshift"] for label in figure(sick.charts[0])["layout"]["annotations"])
    assert heights[1] - heights[0] >= 15


def test_few_values_on_a_logarithmic_axis_are_its_ticks(lecture: Report) -> None:
    """Batch sizes from 16 to 64 hold no power of ten; rates over many are marked by them."""
    rates, _, sizes = (figure(chart)["layout"] for chapter in lecture.chapters for chart in chapter.charts)
    assert sizes["xaxis"]["ticktext"] == ["16", "32", "64"]
    assert rates["xaxis"]["dtick"] == 1


def test_a_band_ends_where_a_logarithmic_axis_does(lecture: Report) -> None:
    drawn = figure(lecture.chapters[0].charts[0])
    band, axis = drawn["data"][0], drawn["layout"]["yaxis"]
    assert min(band["y"]) == pytest.approx(10 ** axis["range"][0])


def test_lying_bars_with_numbers_for_names_say_of_what(lecture: Report) -> None:
    axis = figure(lecture.chapters[0].charts[1])["layout"]["yaxis"]
    assert (axis["title"]["text"], axis["ticktext"]) == ("momentum β", ["0.9", "0.99"])


def test_a_bar_that_cannot_be_drawn_is_said(sick: Report) -> None:
    """On a logarithmic axis a gradient of exactly zero has no bar, and is the most telling of all."""
    drawn = figure(sick.charts[1])
    assert drawn["data"][0]["x"][0] is None
    assert drawn["layout"]["annotations"][0]["text"] == "0"


@pytest.mark.parametrize("outcome", ["cured", "not-tried"])
@pytest.mark.parametrize("remedied", [0.94, -0.2, None, float("nan")])
def test_two_bars_are_drawn_only_where_they_tell_the_truth(outcome: str, remedied: float | None) -> None:
    verdict = msgspec.convert({"outcome": outcome, "metric": "R²", "control": 0.1, "remedied": remedied}, Verdict)
    drawn = [(bar.value, bar.length) for bar in bars(verdict)]
    assert drawn == ([("0.10", 0.1), ("0.94", 0.94)] if outcome == "cured" and remedied == 0.94 else [])


def test_write_leaves_json_and_page_in_the_folder(sick: Report, tmp_path: Path) -> None:
    json_path, html_path = write(sick, tmp_path / "a" / "b")
    assert (json_path, html_path) == (tmp_path / "a/b/report.json", tmp_path / "a/b/report.html")
    assert Report.from_json(json_path.read_bytes()) == sick
    assert html_path.read_text(encoding="utf-8") == page(sick)


def test_a_browser_draws_every_chart_and_complains_of_nothing(sick: Report, browse: Callable[[str], Seen]) -> None:
    seen = browse(page(sick))
    assert seen.console == []
    assert len(re.findall(r'<div class="chart js-plotly-plot"', seen.dom)) == len(sick.charts)
    assert "without the second" in seen.dom


def test_a_browser_draws_the_charts_of_chapters(lecture: Report, browse: Callable[[str], Seen]) -> None:
    seen = browse(page(lecture))
    assert seen.console == []
    assert len(re.findall(r'<div class="chart js-plotly-plot"', seen.dom)) == 3


def test_a_browser_opens_a_healthy_report(healthy: Report, browse: Callable[[str], Seen]) -> None:
    seen = browse(page(healthy))
    assert seen.console == []
    assert healthy.headline in seen.dom


def test_a_browser_runs_nothing_of_a_hostile_report(sick: Report, browse: Callable[[str], Seen]) -> None:
    seen = browse(page(hostile(sick)))
    assert seen.console == []
    assert "<title>taken" not in seen.dom
    made = {tag for tag, *_ in Skeleton(seen.dom).tags}
    assert "svg" in made
    assert made.isdisjoint({"a", "img"})


def test_a_page_that_asks_for_something_outside_is_noticed(healthy: Report, browse: Callable[[str], Seen]) -> None:
    """The control of the tests above: the page's own policy refuses the request, and the console says so."""
    seen = browse(page(healthy).replace("</main>", '<img src="https://example.com/x.png" alt=""></main>'))
    assert any("Content Security Policy" in line for line in seen.console)


def test_the_chip_says_how_the_training_stands(healthy: Report, sick: Report) -> None:
    undecided = msgspec.structs.replace(healthy, unexplained=True)
    said = [page(without_charts(r)) for r in (healthy, undecided, sick)]
    chips = ["healthy", "undecided", "does not train as it should"]
    assert all(f">{chip}</span>" in page_ for chip, page_ in zip(chips, said, strict=True))
