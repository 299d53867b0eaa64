"""From a Problem to a Hessian that may be believed: the first way of making products that passes its check.

    hessian, checks = measurable(problem)
    hessian.rung, checks[-1].symmetry, checks[-1].agreement
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unstuck.curvature.check import Check, check, first_line
from unstuck.curvature.forward import pinned
from unstuck.curvature.product import DIFFERENCES, Hessian
from unstuck.errors import NotMeasurable, UnstuckError
from unstuck.problem import Batch, Problem

REPEATS = 1e-6
"""Two evaluations of one loss agree to rounding (relative)."""


@pinned()
def measurable(
    problem: Problem,
    batches: Iterable[Batch] | None = None,
    last: bool = True,
    double: bool = False,
    memory: int | None = None,
) -> tuple[Hessian, tuple[Check, ...]]:
    """A checked Hessian, and the checks made on the way there (the last one passed); arguments as of `Hessian`.

    Reverse over reverse, else differences, else differences in float64. Costs two forward passes and some ten gradients
    of a few rows. Raises NotMeasurable where nothing passes, where the loss is not finite or does not depend on a
    parameter, and where two evaluations of it differ.
    """
    first = Hessian(problem, batches, last, double, memory)
    _must_repeat(first)
    checks = [check(first)]
    if not checks[-1].why:
        return first, tuple(checks)
    for precise in (False, True) if not double else (True,):
        hessian = Hessian(problem, batches, last, precise, memory, way=DIFFERENCES)
        checks.append(check(hessian))
        if not checks[-1].why:
            return hessian, tuple(checks)
    raise NotMeasurable("second derivatives: " + "; ".join(f"{c.way}: {c.why}" for c in checks))


def _must_repeat(hessian: Hessian) -> None:
    """The loss twice: of one batch where the batches are at hand, of all where they are drawn anew each time."""
    at_hand = isinstance(hessian.data.batches, (tuple, list))
    try:
        pair = [hessian.losses(1 if at_hand else None, seed) for seed in range(2)]
        if len(pair[0]) != len(pair[1]):  # memory ran out in the first
            pair[0] = hessian.losses(1 if at_hand else None, 0)
    except UnstuckError:
        raise
    except Exception as error:
        raise NotMeasurable(f"the loss cannot be evaluated: {type(error).__name__}: {first_line(error)}") from error
    if not all(map(math.isfinite, pair[0] + pair[1])):
        raise NotMeasurable(f"the loss is not finite ({pair[0][0]}): there is no curvature to speak of")
    apart = [both for both in zip(*pair, strict=True) if abs(both[0] - both[1]) > REPEATS * max(map(abs, both))]
    if apart:
        losses = apart[0]
        cause = "the model or the loss draws random numbers that no seed of ours fixes" if at_hand else (
            "`batches` gives other data each time it is run through (shuffling into other batches, augmentation)"
        )  # fmt: skip
        raise NotMeasurable(
            f"two evaluations of the loss differ ({losses[0]:.6g}, {losses[1]:.6g}): {cause}; the Hessian of such a "
            "loss is not defined. Pass a list of batches, drawn once."
        )
