"""The report on a point: its figures and charts say what the point does, and survive JSON there and back."""

from __future__ import annotations

import json
import math
import time

import jsonschema
import msgspec
import pytest
import torch
from tests.curvature.test_point import quadratic, solved
from tests.curvature.test_saddle import deep_linear
from tests.curvature.test_scan import normal, of_function
from torch import nn

import unstuck
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.landscape import critical
from unstuck.problem import Problem
from unstuck.records import Report, schema

F64 = torch.float64
VALUES = torch.linspace(4, 0.4, 40, dtype=F64)


def back(report: Report) -> Report:
    raw = report.to_json()
    jsonschema.validate(json.loads(raw), schema())
    return msgspec.json.decode(raw, type=Report)


def figure(report: Report, beginning: str) -> float:
    return next(found.value for found in report.figures if found.name.startswith(beginning))


def test_a_saddle_exactly():
    report = critical(quadratic([2.0, 1.0, 1.0, -0.5]))
    point = report.point
    assert point.verdict == "saddle" and report.headline == f"This point is a saddle: {point.why}."
    assert back(report) == report
    assert point.failure == 0 and point.lambda_min == pytest.approx((-0.5, -0.5))
    assert point.lambda_max == pytest.approx((2, 2)) and point.epsilon == pytest.approx(0.02)
    assert point.negative == pytest.approx((0.25, 0.25)) and point.positive == pytest.approx((0.75, 0.75))
    assert point.rayleigh == pytest.approx(-0.5) and point.bends_down
    assert point.escape_loss == pytest.approx(1 - 0.25 * point.escape_length**2)
    assert point.symmetry < 1e-9 and point.agreement < 1e-6 and point.dropped == ()
    assert not report.unexplained and report.healthy and report.findings == ()


def test_the_same_figures_in_words_and_numbers():
    report = critical(quadratic([2.0, 1.0, 1.0, -0.5]), target="somewhere")
    assert report.target == "somewhere"
    assert figure(report, "loss") == 1.0 and figure(report, "gradient") == 0.0
    assert figure(report, "share of eigenvalues negative") == 0.25
    assert figure(report, "share of eigenvalues positive (the minimum ratio)") == 0.75
    assert figure(report, "loss after a step of") == pytest.approx(report.point.escape_loss)
    assert figure(report, "cost") > 0
    assert report.cost.examine_s > 0


def test_charts_of_a_small_model_show_all_eigenvalues_and_the_loss_along_lines():
    report = critical(quadratic([2.0, 1.0, 1.0, -0.5], slope=1.0))
    titles = [chart.title for chart in report.charts]
    assert titles == [
        "All eigenvalues of the Hessian", "The loss along the most negative curvature",
        "The loss along the steepest curvature", "The loss along the gradient",
    ]  # fmt: skip
    assert report.charts[0].curves[0].y == pytest.approx((-0.5, 1, 1, 2))
    for chart in report.charts[1:]:
        true, model = chart.curves
        exact = dict(zip(true.x, true.y, strict=True))
        assert exact[0.0] == 1.0
        for length, value in zip(model.x, model.y, strict=True):
            if length in exact:
                assert value == pytest.approx(exact[length])
    assert [chart.title for chart in critical(quadratic([2.0, 1.0])).charts][-1] != "The loss along the gradient"


def test_a_large_model_has_a_density_and_shares_with_intervals():
    report = critical(deep_linear(40, 5, VALUES), budget_s=10)
    point = report.point
    assert back(report) == report
    assert point.verdict == "saddle" and point.failure == 0.01
    least = -2 * float(VALUES[5]) / 40
    assert point.lambda_min[0] <= least <= point.lambda_min[1]
    assert 0 <= point.negative[0] < point.negative[1] <= 1
    # of 4800 directions: for each pair of unused ones a hidden direction bends down, if by more than epsilon
    sizes = 2 * VALUES[5:] / 40
    share = 35 * int((sizes > point.epsilon).sum()) / 4800
    assert point.negative[0] <= share <= point.negative[1]
    assert report.charts[0].title == "Density of the Hessian's eigenvalues" and report.charts[0].log_y
    density = report.charts[0].curves[0]
    width = (density.x[-1] - density.x[0]) / (len(density.x) - 1)
    assert sum(density.y) * width == pytest.approx(1, abs=0.1)
    stems = report.charts[0].curves[1]
    assert stems.name == "Ritz values" and len(stems.x) == len(stems.y)
    trace = next(found for found in report.figures if found.name == "trace")
    # the layers' own blocks: Σ over them of 2/width · (‖left‖² ‖right‖²)
    used = float(VALUES[:5].sum())
    assert abs(trace.value - 2 / 40 * (2 * 40 * used + used**2)) <= 6 * trace.error


def test_other_kinds_of_points():
    minimum, _ = solved(6, 2)
    for problem, verdict, said in (
        (minimum, "minimum", "This point is a minimum: λmin ≥ "),
        (quadratic([-1.0, -2.0]), "maximum", "This point is a maximum: "),
        (quadratic([1e-5]), "flat", "The loss is flat here: "),
        (quadratic([1.0], slope=2.0), "slope", "This is no critical point, the loss still falls: "),
    ):
        report = critical(problem)
        assert report.point.verdict == verdict and report.headline.startswith(said)
        assert back(report) == report
        assert (report.point.escape_length is not None) == (verdict == "maximum")


def test_undecided_is_unexplained():
    value = lambda w, x: 1 + w[0].abs() - 0.5 * w[0] ** 2 + 2 * w[1] ** 2 + 0 * x[:, 0]  # noqa: E731
    report = critical(of_function(value, torch.zeros(2, dtype=F64), normal(16, 2)))
    assert report.point.verdict == "undecided" and report.unexplained
    assert report.headline.startswith("Undecided: ")


def test_figures_that_are_not_finite_are_left_open():
    report = critical(quadratic([-2.0, 1.0], slope=3.0))
    assert report.point.promise is None and back(report) == report
    one = Problem(nn.Linear(2, 1), nn.MSELoss(), [(torch.randn(1, 2), torch.randn(1, 1))])
    assert critical(one).point.gradient_error is None


def test_the_budget_is_kept_to_by_all_parts_together():
    problem = deep_linear(40, 5, VALUES, rows=1024)
    critical(problem, budget_s=0.1)
    began = time.process_time()
    report = critical(problem, budget_s=1.0)
    assert time.process_time() - began < 4
    assert report.charts and back(report) == report


def test_it_is_a_name_of_the_package():
    assert unstuck.critical is critical


def test_what_is_refused():
    with pytest.raises(BadArgument, match=r"critical: `problem` must be an unstuck\.Problem, got Linear"):
        critical(nn.Linear(2, 1))
    with pytest.raises(BadArgument, match="classify: `tolerance` must be between 0 and 1"):
        critical(quadratic([1.0]), tolerance=math.inf)
    with pytest.raises(NotMeasurable, match="no trainable parameter"):
        critical(Problem(nn.Linear(2, 1).requires_grad_(False), nn.MSELoss(), [(torch.randn(4, 2), torch.randn(4, 1))]))
