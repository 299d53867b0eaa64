from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from unstuck.records import Chapter, Figure, Finding, RemedyLine, Report, Verdict
from unstuck.report import words
from unstuck.report.terminal import render, text


def shown(report: Report, **console: object) -> str:
    page = io.StringIO()
    render(report, Console(file=page, width=80, **console))  # type: ignore[arg-type]
    return page.getvalue()


def test_a_finding_says_cause_place_evidence_remedy_and_proof(sick: Report) -> None:
    page = " ".join(text(sick).split())
    for said in (
        "✗ The network cannot learn: its softmax is applied twice, so the loss stays above 1.46.",
        "1 softmax-applied-twice 5 (Softmax), loss at train.py:31",
        "loss now 1.753 ± 0.004 640 samples",
        "gradient lost at the output 87.2 ± 1.3 % 640 samples",
        "→ Leave out the softmax. model = nn.Sequential(*list(model)[:-1])",
        "✓ cured: train accuracy after 400 steps: 0.31 as it is, 0.94 with the remedy "
        "(difference 0.60 to 0.66 at 95 %), 3 seeds",
        "· not tried: the budget of 60 s was used",
        "! unscaled-inputs input The inputs run from 0 to 16.",
        "Left out: range of learning rates, linear reference (no time left)",
        "Cost: watching 1.3 % of the training, examination 21 s, race 33 s.",
    ):
        assert said in page


def test_at_most_four_figures_of_evidence_are_shown(sick: Report) -> None:
    assert "a fifth figure" not in text(sick)


def test_a_healthy_training_gets_one_sentence_and_its_figures(healthy: Report) -> None:
    assert text(healthy).splitlines() == [
        "",
        " ✓ This training is healthy: the loss falls steadily.",
        "   digits.py",
        "",
        "   train accuracy          0.971 ± 0.004  1797 samples",
        "   a linear model reaches  0.953",
        "",
        "   Cost: watching 0.4 % of the training, examination 12 s.",
        "",
    ]


def test_names_of_figures_without_samples_are_not_wrapped() -> None:
    figures = (Figure("present rate", 0.001), Figure("best rate", 0.3))
    assert text(Report(figures=figures)).splitlines()[3:5] == ["   present rate  0.001", "   best rate     0.3"]


def test_three_findings_fit_a_screen_of_80_columns(sick: Report) -> None:
    lines = text(sick).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40


def test_code_is_never_broken(sick: Report) -> None:
    code = "optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, betas=(0.9, 0.999), eps=1e-08)\nx = 1"
    long = Finding("c", "problem", 1.0, "w", "s", remedy=RemedyLine("r", "Do", code))
    page = text(msgspec.structs.replace(sick, findings=(long,)))
    assert all(line in map(str.strip, page.splitlines()) for line in code.splitlines())
    assert code.splitlines()[0] in shown(Report(findings=(long,)), force_terminal=True, no_color=True)


def test_a_chapter_says_title_sentences_figures_and_advice(lecture: Report) -> None:
    page = " ".join(text(lecture).split())
    for chapter in lecture.chapters:
        assert chapter.title in page
        assert all(sentence in page for sentence in chapter.sentences)
    assert "loss after 200 updates at it 1.710 ± 0.020 3 samples" in page
    assert "→ train with lr=0.32, 320 times the present rate optimizer = torch.optim.SGD(" in page


def test_chapters_come_after_the_findings_and_before_the_cost(sick: Report, lecture: Report) -> None:
    page = text(msgspec.structs.replace(sick, chapters=lecture.chapters))
    order = ["softmax-applied-twice", "unscaled-inputs", *(c.title for c in lecture.chapters), "Cost: "]
    assert [page.index(part) for part in order] == sorted(page.index(part) for part in order)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_only_code_of_a_chapter_is_wider_than_the_terminal(lecture: Report, width: int) -> None:
    assert lecture.chapters[0].advice is not None
    code = lecture.chapters[0].advice.code
    assert [line.strip() for line in text(lecture, width).splitlines() if len(line) > width] == [code]


def test_sentences_are_paragraphs_and_titles_bold(lecture: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert f"\x1b[1m{lecture.chapters[0].title}" in shown(lecture, force_terminal=True)
    lines = text(Report(chapters=(Chapter("steps", "Steps", ("One.", "Two.")),))).splitlines()
    assert lines[lines.index(" Steps") :] == [" Steps", "", "   One.", "", "   Two.", ""]


def test_piped_text_is_plain(sick: Report) -> None:
    assert shown(sick) == text(sick)
    assert "\x1b" not in text(sick)


def test_a_terminal_gets_colour_and_no_color_takes_it_away(sick: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31m" in shown(sick, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in shown(sick, force_terminal=True)


def test_a_terminal_without_these_characters_gets_others(sick: Report) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    render(sick, Console(file=file, width=80))
    file.flush()
    assert b"+ cured: train accuracy" in raw.getvalue()
    assert b"1.753 +- 0.004" in raw.getvalue()


def test_strings_of_the_report_are_neither_markup_nor_control_codes() -> None:
    page = text(Report(headline="[bold red]\x1b[2Jgone[/] :smile:", target="a\u202eb"))
    assert "[bold red]�[2Jgone[/] :smile:" in page
    assert "a�b" in page


def test_no_string_of_a_chapter_steers_the_terminal() -> None:
    bad = "[bold]\x1b[2J"
    page = text(Report(chapters=(Chapter("steps", bad, (bad,), (Figure(bad, 1.0),), (), RemedyLine("r", bad, bad)),)))
    assert "\x1b" not in page
    assert page.count("[bold]�[2J") == 5


def test_what_could_not_be_measured_is_said() -> None:
    verdict = Verdict("undecided", "train loss", float("inf"), None, (float("nan"), 1.0), 1, 1)
    finding = Finding("c", "problem", 1.0, "", "s", (Figure("loss", float("nan"), error=0.1),), verdict=verdict)
    page = " ".join(text(Report(healthy=False, findings=(finding,))).split())
    assert "This training has a problem: c." in page
    assert "loss not finite" in page
    assert "train loss after 1 step: not finite as it is, not finite with the remedy, 1 seed" in page


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0"), (1.0, "1"), (1797.0, "1797"), (123456.0, "123456"), (1.5e9, "1.5e9"), (-3.2e-7, "-3.2e-7")],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert words.number(value) == said


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (0.9312, 0.021, "0.931 ± 0.021"),
        (0.9312, 0.04, "0.93 ± 0.04"),
        (1797.3, 12.0, "1797 ± 12"),
        (5.0, 0.0, "5"),
        (1.0, 1e-9, "1 ± 1e-9"),
        (2e9, 1e8, "2e9 ± 1e8"),
    ],
)
def test_an_error_decides_how_many_decimals_stand(value: float, error: float, said: str) -> None:
    assert words.spread(value, error) == said


def test_an_unexplained_training_is_not_marked_healthy(healthy: Report) -> None:
    assert text(healthy).lstrip().startswith("✓")
    assert text(msgspec.structs.replace(healthy, unexplained=True)).lstrip().startswith("?")
