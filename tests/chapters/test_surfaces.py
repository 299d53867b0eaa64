"""Charts of slices: what is drawn is what was measured."""

import math
from dataclasses import replace

import msgspec
import pytest

from unstuck.chapters.surfaces import DECADES, charts
from unstuck.probes.surface import Slice
from unstuck.records import Chart
from unstuck.report.figures import describe, figure

FOUND = Slice(
    "path", "1st", "2nd", (-1.0, 0.0, 2.0), (0.0, 1.0, 2.0),
    ((3.0, 1.0, 2.0), (4.0, 2.0, 5.0), (4.0, 4.0, 4.0)),
    ((-0.9, 0.8), (0.5, 0.1), (0.0, 0.0)), 0.87, "stacked", "", 512, 0.1,
)  # fmt: skip


def test_surface_and_path():
    (chart,) = charts([FOUND])
    assert (chart.surface.x, chart.surface.y, chart.surface.z) == (FOUND.x, FOUND.y, FOUND.z)
    assert (chart.x, chart.y) == ("1st", "2nd")
    assert chart.curves[0].x == (-0.9, 0.5, 0.0) and chart.curves[0].y == (0.8, 0.1, 0.0)
    assert "3 × 3 points, 512 samples" in chart.note and "87 % of the training's way" in chart.note
    assert msgspec.json.decode(msgspec.json.encode(chart), type=Chart) == chart
    assert "lowest 1, highest 5" in describe(chart)


def test_a_point_is_no_path():
    (chart,) = charts([replace(FOUND, path=((0.0, 0.0),), share=math.nan)])
    assert chart.curves == ()
    assert "way" not in chart.note


@pytest.mark.parametrize(
    ("lowest", "highest", "log"),
    [(1.0, DECADES, False), (1.0, 1.1 * DECADES, True), (0.0, 5.0, False), (-1.0, 1e6, False)],
)
def test_colours_by_powers_of_ten(lowest, highest, log):
    (chart,) = charts([replace(FOUND, z=((lowest, highest, math.inf), (lowest, math.nan, highest), (highest,) * 3))])
    assert chart.surface.log == log
    assert chart.surface.z[0][2] is None and chart.surface.z[1][1] is None
    assert figure(chart)["data"][0]["z"][1][1] is None


def test_nothing_finite():
    (chart,) = charts([replace(FOUND, z=((math.nan,) * 3,) * 3)])
    assert not chart.surface.log
    assert figure(chart)["data"]


def test_no_slices_no_charts():
    assert charts(()) == ()
