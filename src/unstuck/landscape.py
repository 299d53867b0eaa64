"""`unstuck critical`: what kind of point a training stands at, as a report with its figures and charts.

    report = critical(problem, budget_s=60)
    report.point.verdict, report.point.lambda_min
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.batches import merged
from unstuck.curvature.ends import Interval
from unstuck.curvature.escape import Escape, step_out
from unstuck.curvature.point import Point, checked_hessian, classify
from unstuck.curvature.product import Hessian
from unstuck.curvature.scan import Scan, scan
from unstuck.errors import BadArgument
from unstuck.linalg.spectrum import Index, Spectrum, counted, density, index, quadrature
from unstuck.linalg.trace import Trace, trace
from unstuck.problem import Problem
from unstuck.records import Chart, Cost, Curve, Figure, PointLine, Report, Skipped

POINT_SHARE, SPECTRUM_SHARE = 0.6, 0.25
"""Of the budget: for the verdict, and for the spectrum's density; the rest is for the charts."""

PROBES, DEPTH = 10, 60
"""Random starts of the spectrum's quadrature and products of each, at most."""

TRACE_PRODUCTS = 24
POINTS, WIDTH, SHOWN = 240, 0.01, 1e-6
"""Of the density's chart: points, smoothing over the spectrum's width, and the share of its peak at which it ends."""

LINE_POINTS = 10
"""Of a chart of the loss along a line, each way."""

CONFIDENCE = 0.95
SAID = {
    "saddle": "This point is a saddle",
    "minimum": "This point is a minimum",
    "maximum": "This point is a maximum",
    "flat": "The loss is flat here",
    "slope": "This is no critical point, the loss still falls",
    "undecided": "Undecided",
}

Tick = Callable[[str, float], None]


@dataclass(frozen=True)
class Whole:
    """The spectrum as a whole: shares of negative and positive eigenvalues, trace, and the quadratures (None where all
    eigenvalues are known)."""

    index: Index
    trace: Trace | None
    spectrum: Spectrum | None


def critical(
    problem: Problem, budget_s: float = 60.0, tolerance: float = 1e-2, failure: float = 0.01, last: bool = True,
    target: str = "", skipped: Sequence[Skipped] = (), tick: Tick = lambda what, share: None,
) -> Report:  # fmt: skip
    """The report on the point where the problem's training was left (or, `last=False`, where it began).

    Raises BadArgument for what is no Problem, NotMeasurable where the problem has no Hessian.
    """
    if not isinstance(problem, Problem):
        raise BadArgument(f"critical: `problem` must be an unstuck.Problem, got {type(problem).__name__}")
    began = time.perf_counter()
    problem = merged(problem)
    point = classify(problem, tolerance, failure, POINT_SHARE * budget_s, last, tick=tick)
    hessian, _ = checked_hessian(problem, last)
    tick("the spectrum's density", 0.97)
    whole = _whole(hessian, point, time.perf_counter() + SPECTRUM_SHARE * budget_s)
    tick("the loss along the gradient and the steepest direction", 0.98)
    lines = _lines(hessian, point)
    away = step_out(hessian, point.direction, point.scan) if point.verdict in {"saddle", "maximum"} else None
    return Report(
        headline=f"{SAID[point.verdict]}: {point.why}.",
        target=target,
        figures=_figures(point, whole, away),
        skipped=tuple(skipped),
        cost=Cost(None, time.perf_counter() - began, 0.0),
        charts=(*_spectrum_charts(point, whole), *(_line_chart(name, line) for name, line in lines)),
        unexplained=point.verdict == "undecided",
        point=_record(point, whole, away),
    )


def _whole(hessian: Hessian, point: Point, deadline: float) -> Whole:
    ends = point.ends
    if ends.eigenvalues is not None:
        return Whole(counted(torch.tensor(ends.eigenvalues, dtype=torch.float64), point.epsilon), None, None)

    def stop() -> bool:
        return time.perf_counter() > deadline

    depth = min(DEPTH, max(ends.ritz.products if ends.ritz is not None else DEPTH, 20))
    found = quadrature(hessian, hessian.size, PROBES, depth, 1, hessian.flat.dtype, hessian.flat.device, stop)
    total = trace(hessian, hessian.size, TRACE_PRODUCTS, 2, hessian.flat.dtype, hessian.flat.device)
    return Whole(index(found, point.epsilon, CONFIDENCE), total, found)


def _lines(hessian: Hessian, point: Point) -> list[tuple[str, Scan]]:
    """The true loss along the most negative, the steepest, and the gradient's direction."""
    gradient = hessian.slopes().gradient
    directions = [("the most negative curvature", point.direction), ("the steepest curvature", point.ends.highest)]
    if float(gradient.norm()) > 0:
        directions.append(("the gradient", gradient / gradient.norm()))
    return [(name, _along(hessian, direction, point.loss)) for name, direction in directions]


def _along(hessian: Hessian, direction: Tensor, loss: float) -> Scan:
    """The scan, as far out as the quadratic model changes by half of the loss."""
    curvature = float(direction @ hessian(direction))
    reach = math.sqrt(max(abs(loss), 1e-12) / abs(curvature)) if curvature else None
    return scan(hessian, direction, curvature, reach, even=LINE_POINTS)


def _figures(point: Point, whole: Whole, away: Escape | None) -> tuple[Figure, ...]:
    least, most, n = point.ends.least, point.ends.most, point.samples
    noise = point.noise if math.isfinite(point.noise) else None
    shares = [("negative", whole.index.negative), ("positive (the minimum ratio)", whole.index.positive)]
    figures = [
        Figure("loss", point.loss, samples=n),
        Figure("gradient", point.gradient, error=noise, samples=n),
        Figure("decrease that the best step along it promises", _known(point.promise)),
        Figure("‖H∇L‖ / ‖H‖‖∇L‖", _known(point.flatness)),
        Figure(f"λmin, at least{_sure(least)}", least.low, samples=n),
        Figure("λmin, at most", least.high, samples=n),
        Figure("λmax, at least", most.low, samples=n),
        Figure(f"λmax, at most{_sure(most)}", most.high, samples=n),
        Figure("vᵀHv along the most negative direction", point.rayleigh, error=_known(point.sampling), samples=n),
        *(
            Figure(f"share of eigenvalues {name}, {share.low:.3g} to {share.high:.3g} at 95 %", share.estimate)
            for name, share in shares
        ),
    ]
    if whole.trace is not None:
        figures.append(Figure("trace", whole.trace.value, error=_known(whole.trace.error)))
    if away is not None and away.length:
        figures.append(Figure(f"loss after a step of {abs(away.length):.3g} along it", away.after, samples=n))
    figures.append(Figure("cost", point.gradients, unit="gradients of the data"))
    return tuple(figures)


def _sure(interval: Interval) -> str:
    return f" (probability {1 - interval.failure:.3g})" if interval.failure else " (exact)"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _record(point: Point, whole: Whole, away: Escape | None) -> PointLine:
    least, most = point.ends.least, point.ends.most
    last = point.checks[-1]
    return PointLine(
        verdict=point.verdict,
        why=point.why,
        loss=point.loss,
        gradient=point.gradient,
        gradient_error=_known(point.noise),
        promise=_known(point.promise),
        flatness=_known(point.flatness),
        lambda_min=(least.low, least.high),
        lambda_max=(most.low, most.high),
        failure=least.failure,
        epsilon=point.epsilon,
        rayleigh=point.rayleigh,
        rayleigh_error=_known(point.sampling),
        bends_down=point.scan.bends_down,
        negative=(whole.index.negative.low, whole.index.negative.high),
        positive=(whole.index.positive.low, whole.index.positive.high),
        escape_length=away.length if away is not None else None,
        escape_loss=away.after if away is not None else None,
        samples=point.samples,
        parameters=point.parameters,
        products=point.products,
        gradients=point.gradients,
        rung=point.rung,
        symmetry=_known(last.symmetry),
        agreement=_known(last.agreement),
        dropped=tuple(f"{check.way}: {check.why}" for check in point.checks[:-1]),
    )


def _spectrum_charts(point: Point, whole: Whole) -> tuple[Chart, ...]:
    least, most = point.ends.least.low, point.ends.most.high
    if point.ends.eigenvalues is not None:
        ordered = point.ends.eigenvalues
        curve = Curve("eigenvalue", tuple(float(i + 1) for i in range(len(ordered))), ordered)
        return (Chart("All eigenvalues of the Hessian", "number, ascending", "eigenvalue", (curve,)),)
    assert whole.spectrum is not None
    spread = max(most - least, 1e-12)
    at = torch.linspace(least - 0.05 * spread, most + 0.05 * spread, POINTS, dtype=torch.float64)
    found = density(whole.spectrum, at, WIDTH * spread)
    lowest = SHOWN * float(found.mean.max())
    heights = [max(float(v), lowest) for v in found.mean]
    curves = [Curve("density", tuple(at.tolist()), tuple(heights))]
    if point.ends.ritz is not None:
        curves.append(_stems(point.ends.ritz.values.tolist(), at.tolist(), heights, lowest))
    return (
        Chart(
            "Density of the Hessian's eigenvalues", "eigenvalue", "density", tuple(curves), log_y=True,
            note=f"{len(whole.spectrum.probes)} random starts, smoothed over {WIDTH * spread:.2g}; stems at the Ritz "
            "values of one more, whose outermost are eigenvalues as far as they have converged",
        ),
    )  # fmt: skip


def _stems(values: Sequence[float], at: Sequence[float], heights: Sequence[float], lowest: float) -> Curve:
    """A vertical line at each value, up to the density there."""
    tops = [heights[min(range(len(at)), key=lambda k: abs(at[k] - value))] for value in values]
    x = tuple(place for value in values for place in (value, value, None))
    y = tuple(place for top in tops for place in (lowest, max(top, 10 * lowest), None))
    return Curve("Ritz values", x, y)


def _line_chart(name: str, line: Scan) -> Chart:
    """The true loss along a line, with its error, beside the quadratic model as far as that stays in the picture."""
    highest = max(abs(change) for change in line.changes if math.isfinite(change)) or 1.0
    fine = [line.lengths[0] + (line.lengths[-1] - line.lengths[0]) * k / 80 for k in range(81)]
    model = [(x, line.loss + line.model(x)) for x in fine if abs(line.model(x)) <= 2 * highest]
    doubts = [2 * e if math.isfinite(e) else 0.0 for e in line.errors]
    losses = [line.loss + change for change in line.changes]
    true = Curve(
        "the loss", line.lengths, tuple(losses),
        tuple(y - d for y, d in zip(losses, doubts, strict=True)),
        tuple(y + d for y, d in zip(losses, doubts, strict=True)),
    )  # fmt: skip
    quadratic = Curve("quadratic model", tuple(x for x, _ in model), tuple(y for _, y in model))
    return Chart(f"The loss along {name}", "length of the step", "loss", (true, quadratic))
