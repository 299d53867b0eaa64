"""The census of critical points: against the closed form of a linear autoencoder, and what the report says of it."""

from __future__ import annotations

import json
import math

import jsonschema
import msgspec
import pytest
import torch
from tests.curvature.test_search import autoencoder, closed_form, quadratic, surface
from torch import nn

import unstuck
from unstuck.census import correlation, critical_points, distinct
from unstuck.curvature.search import search
from unstuck.errors import BadArgument
from unstuck.records import Report, schema
from unstuck.report import words
from unstuck.report.html import page
from unstuck.report.terminal import text


@pytest.fixture(scope="module")
def census() -> Report:
    torch.manual_seed(0)
    return critical_points(autoencoder(3), 30, budget_s=100, target="here")


def test_what_it_finds_of_a_linear_autoencoder_is_known(census: Report) -> None:
    critical = [point for point in census.found if point.outcome == "critical"]
    table = set(closed_form(3).values())
    assert len(census.found) == 30 and len(critical) >= 25
    for point in critical:
        assert point.exact and any(
            point.index == index and point.loss == pytest.approx(loss, abs=1e-8) for loss, index in table
        )
        # of the autoencoder's minima each lies in a valley: hidden units may be mixed
        assert point.kind == ("saddle" if point.index else "degenerate")
        assert point.gradient <= 1e-6 and point.negative == (point.index / 36, point.index / 36)


def test_the_summary_counts_what_the_rows_hold(census: Report) -> None:
    rows = [point for point in census.found if point.outcome == "critical"]
    kinds = {(round(point.loss, 6), point.index) for point in rows}
    figures = {figure.name: figure.value for figure in census.figures}
    assert figures["searches"] == 30 and figures["critical"] == len(rows)
    assert figures["distinct critical points"] == len(kinds)
    assert figures["lowest loss of a critical point"] == min(point.loss for point in rows)
    assert census.headline.startswith(f"{len(rows)} of 30 searches ended at a critical point, {len(kinds)} distinct: ")
    assert "the index falls as the loss falls" in census.headline
    assert figures["rank correlation of index and loss"] > 0.8
    assert not census.unexplained and census.healthy and census.skipped == ()


def test_the_chart_has_a_dot_for_each_search(census: Report) -> None:
    (chart,) = census.charts
    dots = sorted((x, y) for curve in chart.curves for x, y in zip(curve.x, curve.y, strict=True))
    assert chart.dots and dots == sorted((p.loss, 100 * p.negative[0]) for p in census.found)


def test_it_survives_json_and_stands_on_terminal_and_page(census: Report) -> None:
    raw = census.to_json()
    jsonschema.validate(json.loads(raw), schema())
    assert msgspec.json.decode(raw, type=Report) == census
    said, shown = text(census), page(census)
    lowest = words.found(census)[-1]
    assert "15 of 30; all are in the report" in said and f"{census.found[-1].loss:.5g}" in said
    assert all(f'<td class="value">{entry}</td>' in shown for entry in lowest)
    assert shown.count("<tr>") >= 30 and '"mode": "markers"' in shown


def test_the_same_seed_finds_the_same() -> None:
    case = autoencoder(2)
    first, again = (critical_points(case, 3, seed=5) for _ in range(2))
    assert first.found == again.found
    assert first.found != critical_points(case, 3, seed=6).found


def test_where_no_point_is_critical_that_is_said() -> None:
    report = critical_points(surface(lambda w: w[0] + w[1] ** 2), 2)
    assert report.headline == (
        "No critical point was found by 2 searches: 2 ended where the gradient lies in the Hessian's kernel "
        "(gradient-flat, no critical points)."
    )
    assert report.unexplained and {point.kind for point in report.found} == {"none"}


def test_a_large_model_gets_an_interval_for_its_index() -> None:
    values = torch.ones(2001, dtype=torch.float64)
    values[::2] = -2.0
    report = critical_points(surface(quadratic(values, 0 * values), 2001), 1)
    (point,) = report.found
    assert point.kind == "saddle" and point.index is None and not point.exact
    assert point.negative[0] < 1001 / 2001 < point.negative[1]
    assert words.found(report)[0][2].endswith(" %") and " to " in words.found(report)[0][2]


def test_the_budget_ends_it() -> None:
    report = critical_points(autoencoder(3), 500, budget_s=0.3)
    assert 1 <= len(report.found) < 500
    assert report.skipped[0].probe == f"{500 - len(report.found)} searches" and "0.3 s" in report.skipped[0].why
    assert report.cost.examine_s < 3


def test_a_start_where_the_loss_is_not_finite_is_left_out() -> None:
    report = critical_points(surface(lambda w: (w.log() - w).sum(), 2, torch.full((2,), 0.5)), 30)
    assert 0 < len(report.found) < 30 and "not finite" in report.skipped[0].why


def test_equal_points_count_once_and_a_relation_needs_five() -> None:
    case = surface(lambda w: w.cos().sum())
    found = tuple(
        sorted((search(case, torch.tensor([a, b])) for a in (0.1, 3.2, 6.2) for b in (0.2, 3.0)), key=lambda p: p.loss)
    )
    apart = distinct(found)
    assert [(p.index, p.kind) for p in apart] == [(0, "minimum"), (1, "saddle"), (2, "maximum")]
    assert correlation(apart) is None
    assert correlation(found) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-6))
    assert correlation(found[:1] * 6) is None


def test_it_is_a_name_of_the_package() -> None:
    assert unstuck.critical_points is critical_points


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "`count` must be at least 1"),
        ({"budget_s": 0.0}, "`budget_s` must be positive, got 0.0"),
        ({"budget_s": math.nan}, "`budget_s` must be positive"),
        ({"method": "newton"}, "`method` must be one of newton-mr, descent, got 'newton'"),
    ],
)
def test_bad_input_is_named(options, says: str) -> None:
    with pytest.raises(BadArgument, match=says):
        critical_points(surface(lambda w: w.square().sum()), **options)


def test_a_problem_it_must_be() -> None:
    with pytest.raises(BadArgument, match=r"critical_points: `problem` must be an unstuck\.Problem, got Linear"):
        critical_points(nn.Linear(2, 1))
