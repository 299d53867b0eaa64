"""`unstuck critical --find N`: the critical points around a training, and how their index depends on their loss.

    report = critical_points(problem, 50, budget_s=120)
    for point in report.found:
        print(point.kind, point.loss, point.index)

At a critical point of high loss nearly all directions that matter lead down as often as up, at one of low loss few are
left that lead down: the index falls with the loss (Dauphin et al. 2014; Pennington & Bahri 2017). Whether it does here
is the rank correlation of index and loss over the distinct critical points found.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from scipy.stats import spearmanr
from torch import Tensor

from unstuck.curvature.found import CRITICAL, FLAT, RAN_OUT, Found
from unstuck.curvature.measure import measurable
from unstuck.curvature.product import Hessian
from unstuck.curvature.search import Method, search_from
from unstuck.curvature.starts import starts
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.problem import Problem
from unstuck.records import Chart, Cost, Curve, Figure, FoundLine, Report, Skipped

GOAL, TOLERANCE = 1e-8, 1e-6
"""‖∇L‖ at which a search ends, and up to which what it ends at counts as critical."""

STEPS = {"newton-mr": 100, "descent": 5000}

SAME = 1e-5
"""Losses this close, against the largest, are one point seen twice if the index may be the same: units may be permuted,
signs flipped."""

FEWEST, CLEAR, LEAST = 5, 0.05, 1e-4
"""Distinct points below which no correlation is stated, the p-value from which it is clear, and below which p is not
said more exactly."""

ALSO = {
    FLAT: "where the gradient lies in the Hessian's kernel (gradient-flat, no critical points)",
    RAN_OUT: "on the way, the gradient still falling",
}

Tick = Callable[[str, float], None]


def critical_points(
    problem: Problem, count: int = 50, budget_s: float = 60.0, method: Method = "newton-mr", seed: int = 0,
    target: str = "", skipped: Sequence[Skipped] = (), tick: Tick = lambda what, share: None,
) -> Report:  # fmt: skip
    """The report on `count` searches for critical points, from places near the way the training went.

    Each search is for ‖∇L‖ ≤ 1e-8, in float64; up to 1e-6 the point it ends at counts as critical. Where the budget is
    used up, no further search begins and the one at work ends. Costs n products a step up to 200 parameters and some
    hundred above: the record of each search says how many. Without weight decay in the loss many critical points lie
    at infinity, or in valleys: such searches run out of steps.

    Raises BadArgument for what is no Problem, a `count` or budget that is not positive, or another `method`;
    NotMeasurable where the problem has no Hessian.
    """
    if not isinstance(problem, Problem):
        raise BadArgument(f"critical_points: `problem` must be an unstuck.Problem, got {type(problem).__name__}")
    if not budget_s > 0:
        raise BadArgument(f"critical_points: `budget_s` must be positive, got {budget_s}")
    if method not in STEPS:
        raise BadArgument(f"critical_points: `method` must be one of {', '.join(STEPS)}, got {method!r}")
    began = time.perf_counter()
    found = searched(problem, count, budget_s, method, seed, tick)
    apart = distinct(found)
    return Report(
        headline=_headline(found, apart),
        target=target,
        figures=_figures(found, apart),
        skipped=(*skipped, *_not_begun(count - len(found), budget_s)),
        cost=Cost(None, time.perf_counter() - began, 0.0),
        charts=(_chart(found),),
        unexplained=not apart,
        found=tuple(map(_line, found)),
    )


def searched(
    problem: Problem, count: int, budget_s: float, method: Method = "newton-mr", seed: int = 0,
    tick: Tick = lambda what, share: None,
) -> tuple[Found, ...]:  # fmt: skip
    """Where each of `count` searches ended, by loss; fewer where the budget was used up. Arguments and cost as of
    `critical_points`. Raises BadArgument for a `count` below 1, NotMeasurable where the problem has no Hessian."""
    began = time.perf_counter()
    places = starts(problem, count, seed)
    hessian, _ = measurable(problem, double=True)
    made: list[Found] = []
    for point in _searches(hessian, places, method, began + budget_s):
        made.append(point)
        tick(f"search {len(made)} of {count}", max(len(made) / count, (time.perf_counter() - began) / budget_s))
    return tuple(sorted(made, key=lambda point: point.loss))


def _searches(hessian: Hessian, places: Tensor, method: Method, deadline: float) -> Iterator[Found]:
    """One search after another, the first in any case. A start where the loss is not finite is no start."""

    def late() -> bool:
        return time.perf_counter() > deadline

    for number, place in enumerate(places):
        if number and late():
            return
        try:
            point = search_from(hessian, place, STEPS[method], GOAL, method=method, stop=late)
        except NotMeasurable:
            continue
        yield replace(point, outcome=CRITICAL) if point.gradient <= TOLERANCE else point


def distinct(found: Sequence[Found]) -> tuple[Found, ...]:
    """Of the critical points among `found`, sorted by loss, one of each."""
    critical, kept = [point for point in found if point.outcome == CRITICAL], list[Found]()
    near = SAME * max((abs(point.loss) for point in critical), default=0.0)
    for point in critical:
        if not any(point.loss - other.loss <= near and _alike(point, other) for other in kept):
            kept.append(point)
    return tuple(kept)


def _alike(point: Found, other: Found) -> bool:
    """True if both may have the same index: what is negative in one may be too small to tell from zero in the other."""
    (low, high), (least, most) = (
        (p.shares.negative.low, p.shares.negative.high + p.shares.zero.high) for p in (point, other)
    )
    return low <= most and least <= high


def correlation(points: Sequence[Found]) -> tuple[float, float] | None:
    """Spearman's rank correlation of index and loss with its two-sided p-value, or None where it has no meaning."""
    losses, shares = [p.loss for p in points], [p.share for p in points]
    if len(points) < FEWEST or len(set(losses)) == 1 or len(set(shares)) == 1:
        return None
    found = spearmanr(losses, shares)
    return float(found.statistic), float(found.pvalue)


def _headline(found: Sequence[Found], apart: Sequence[Found]) -> str:
    ends = Counter(point.outcome for point in found)
    rest = "; ".join(f"{ends[how]} ended {where}" for how, where in ALSO.items() if ends[how])
    if not apart:
        return f"No critical point was found by {_number(len(found), 'search')}: {rest or 'none could begin'}."
    kinds = Counter(point.kind for point in apart)
    said = ", ".join(_number(kinds[kind], kind) for kind in sorted(kinds, key=lambda k: -kinds[k]))
    return (
        f"{ends[CRITICAL]} of {_number(len(found), 'search')} ended at a critical point, {len(apart)} distinct: "
        f"{said}{_course(correlation(apart))}."
    )


def _course(found: tuple[float, float] | None) -> str:
    if found is None:
        return ""
    rho, chance = found
    if chance > CLEAR:
        return f"; no clear relation of index and loss (rank correlation {rho:.2f}, p = {chance:.2g})"
    falls = "falls" if rho > 0 else "rises"
    sure = f"p = {chance:.1g}" if chance > LEAST else f"p < {LEAST:g}"
    return f"; the index {falls} as the loss falls (rank correlation {rho:.2f}, {sure})"


def _figures(found: Sequence[Found], apart: Sequence[Found]) -> tuple[Figure, ...]:
    ends, kinds = Counter(p.outcome for p in found), Counter(p.kind for p in apart)
    figures = [
        Figure("searches", len(found)),
        *(Figure(how, ends[how]) for how in (CRITICAL, FLAT, RAN_OUT)),
        Figure("distinct critical points", len(apart)),
        *(Figure(f"of these, {kind}", kinds[kind]) for kind in sorted(kinds)),
    ]  # fmt: skip
    if (found_relation := correlation(apart)) is not None:
        figures.append(Figure("rank correlation of index and loss", found_relation[0], samples=len(apart)))
    if apart:
        figures += [Figure("lowest loss of a critical point", apart[0].loss), Figure("highest", apart[-1].loss)]
    if found:
        cost = statistics.median(point.products + point.gradients for point in found)
        figures.append(Figure("median cost of a search", cost, "products and gradients"))
    return tuple(figures)


def _not_begun(missing: int, budget_s: float) -> tuple[Skipped, ...]:
    if not missing:
        return ()
    why = f"the budget of {budget_s:g} s was used up, or the loss was not finite where they should have begun"
    return (Skipped(_number(missing, "search"), why),)


def _chart(found: Sequence[Found]) -> Chart:
    """Index against loss, a dot for each search, coloured by how it ended."""
    curves = []
    for how in (CRITICAL, FLAT, RAN_OUT):
        points = [p for p in found if p.outcome == how]
        if points:
            curves.append(Curve(how, tuple(p.loss for p in points), tuple(100 * p.share for p in points)))
    return Chart(
        "Index against loss of the points found", "loss", "negative eigenvalues, %", tuple(curves), dots=True,
        note="Each dot is where one search ended. Only those called critical have a vanishing gradient.",
    )  # fmt: skip


def _line(point: Found) -> FoundLine:
    negative, zero = point.shares.negative, point.shares.zero
    return FoundLine(
        outcome=point.outcome,
        kind=point.kind if point.outcome == CRITICAL else "none",
        loss=point.loss,
        gradient=point.gradient,
        index=point.index,
        negative=(negative.low, negative.high),
        zero=(zero.low, zero.high),
        lambda_min=point.ends[0],
        lambda_max=point.ends[1],
        exact=point.eigenvalues is not None,
        residual=point.relative if math.isfinite(point.relative) else None,
        flatness=point.flatness if math.isfinite(point.flatness) else None,
        steps=point.steps,
        products=point.products,
        gradients=point.gradients,
    )


def _number(how_many: int, what: str) -> str:
    plural = {"minimum": "minima", "maximum": "maxima", "search": "searches", "saddle": "saddles"}.get(what, what)
    return f"{how_many} {what if how_many == 1 else plural}"
