from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from unstuck.records import Arrow, Chart, Curve, Report, Surface
from unstuck.report.figures import describe, figure
from unstuck.report.html import page

if TYPE_CHECKING:
    from conftest import Seen

AT = tuple(-2 + k / 2 for k in range(9))
HEIGHTS = tuple(tuple((1 - a * b) ** 2 for a in AT) for b in AT)
WAY = Curve("plain descent", (0.1, 0.5, 1.0), (0.2, 0.6, 1.0))


def saddle(log: bool = False, wide: float = 1.0) -> Chart:
    surface = Surface("loss", tuple(wide * a for a in AT), AT, HEIGHTS, log)
    return Chart("A saddle", "w1", "w2", (WAY,), surface=surface, arrows=(Arrow(0.0, 0.0, 0.7, 0.7, "u"),))


def test_a_surface_survives_json() -> None:
    report = Report(charts=(saddle(), saddle(log=True)))
    assert Report.from_json(report.to_json()) == report


def test_the_heights_are_drawn_where_they_were_measured() -> None:
    contour = figure(saddle())["data"][0]
    assert (contour["x"], contour["y"]) == (list(AT), list(AT))
    assert [list(row) for row in HEIGHTS] == contour["z"]


def test_a_logarithmic_surface_is_drawn_in_powers_of_ten_and_a_zero_of_it_stays_in_the_picture() -> None:
    contour = figure(saddle(log=True))["data"][0]
    known = [value for row in contour["z"] for value in row]
    assert max(known) == pytest.approx(math.log10(25)) and min(known) == pytest.approx(math.log10(25) - 8)


def test_the_bar_beside_the_heights_has_round_numbers() -> None:
    assert figure(saddle())["data"][0]["colorbar"]["ticktext"] == ["0", "5", "10", "15", "20", "25"]


def test_what_is_not_finite_is_left_blank() -> None:
    heights = ((1.0, math.inf), (math.nan, 2.0))
    contour = figure(Chart("t", "x", "y", surface=Surface("loss", (0.0, 1.0), (0.0, 1.0), heights)))["data"][0]
    assert contour["z"] == [[1.0, None], [None, 2.0]]


def test_right_angles_stay_right_where_the_axes_are_alike() -> None:
    assert figure(saddle())["layout"]["yaxis"]["scaleanchor"] == "x"
    assert "scaleanchor" not in figure(saddle(wide=100.0))["layout"]["yaxis"]


def test_a_path_is_named_and_its_ends_are_marked() -> None:
    _, edge, way, tips = figure(saddle())["data"]
    assert way["name"] == "plain descent" and not edge["showlegend"]
    assert (tips["x"], tips["y"]) == ([0.1, 1.0], [0.2, 1.0])


def test_an_arrow_points_from_its_foot_to_its_tip() -> None:
    arrow, name = figure(saddle())["layout"]["annotations"]
    assert (arrow["ax"], arrow["ay"], arrow["x"], arrow["y"]) == (0.0, 0.0, 0.7, 0.7)
    assert name["text"] == "u"


def test_a_surface_is_told_in_words() -> None:
    assert describe(saddle()).startswith("A saddle, w2 by w1: loss over the plane, lowest 0, highest 25; plain descent")


def test_a_browser_draws_surfaces(browse: Callable[[str], Seen]) -> None:
    seen = browse(page(Report(charts=(saddle(), saddle(log=True)))))
    assert seen.dom.count('class="contourlines"') == 2 and "plain descent" in seen.dom
    assert not seen.console
