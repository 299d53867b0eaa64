from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from unstuck.claims import Claim, Experiment, Lecture
from unstuck.records import Chart, Curve, Figure, Surface
from unstuck.report.lecture import outcome, page, render, write

if TYPE_CHECKING:
    from conftest import Seen

PLANE = Surface("loss", (0.0, 1.0, 2.0), (0.0, 1.0, 2.0), ((0.0, 1.0, 4.0), (1.0, 2.0, 5.0), (4.0, 5.0, 8.0)))
WAY = Curve("descent", (2.0, 1.0, 0.0), (2.0, 1.0, 0.0))


def claim(held: bool | None) -> Claim:
    return Claim("Downhill it goes.", Figure("end", 0.1, error=0.02), "<", Figure("start", 0.5), held)


def lecture(*held: bool | None, language: str = "en", text: str = "**What.** A hill.\n\n- one\n- two") -> Lecture:
    charts = (Chart("From above", "x", "y", (WAY,), surface=PLANE), Chart("Over time", "step", "loss", (WAY,)))
    made = tuple(
        Experiment(f"hill-{k}", f"Hill {k}", text, (claim(one),), (Figure("cost", 3.0),), charts, ("A note.",))
        for k, one in enumerate(held)
    )
    return Lecture(language=language, experiments=made)  # type: ignore[arg-type]


def told(made: Lecture) -> str:
    out = io.StringIO()
    render(made, Console(file=out, width=80, color_system=None))
    return out.getvalue()


def test_a_lecture_survives_json() -> None:
    made = lecture(True, False, None)
    assert Lecture.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("held", "whole"),
    [((True, True), True), ((True, None), None), ((True, False, None), False), ((), True)],
)
def test_a_lecture_holds_if_all_its_claims_do(held: tuple[bool | None, ...], whole: bool | None) -> None:
    assert outcome(lecture(*held)) is whole


def test_the_page_has_a_section_for_each_with_its_claims_and_a_way_to_it() -> None:
    written = page(lecture(True, False, None))
    for k in range(3):
        assert f'href="#hill-{k}"' in written and f'id="hill-{k}"' in written
    assert written.count("end 0.100 ± 0.020 &lt; start 0.5") == 3
    assert "1 of 3 claims held, 1 undecided" in written and "<li>one</li>" in written
    assert [f'id="chart-{k}"' in written for k in range(7)] == [True] * 6 + [False]


def test_the_page_speaks_the_readers_language() -> None:
    written = page(lecture(True, language="zh"))
    assert '<html lang="zh">' in written and "1 条论断中 1 条成立" in written
    assert 'title="成立"' in written and "claims held" not in written


def test_hostile_text_stays_text() -> None:
    written = page(lecture(True, text="<script>alert(1)</script> [x](javascript:alert(2))"))
    assert "<script>alert(1)" not in written and 'href="javascript:' not in written


def test_a_terminal_shows_claims_of_all_and_the_text_of_a_single_one() -> None:
    several, single = told(lecture(True, False)), told(lecture(None))
    assert "✓ Downhill it goes." in several and "✗ Downhill it goes." in several and "A hill." not in several
    assert "? Downhill it goes." in single and "A hill." in single and "cost  3" in single


def test_write_leaves_json_and_page_in_the_folder(tmp_path: Path) -> None:
    made = lecture(True)
    written, html = write(made, tmp_path / "new" / "folder")
    assert Lecture.from_json(written.read_bytes()) == made and html.read_text(encoding="utf-8") == page(made)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_browser_draws_it_and_complains_of_nothing(language: str, browse: Callable[[str], Seen]) -> None:
    seen = browse(page(lecture(True, False, language=language)))
    assert seen.dom.count('class="contourlines"') == 2 and seen.dom.count('class="main-svg"') >= 4
    assert not seen.console
