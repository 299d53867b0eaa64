"""A proof that λmin < 0, for a few gradients: the direction is found on few samples, and proven on all.

A Rayleigh quotient is never below the smallest eigenvalue, so vᵀHv < 0 on the full data is a proof, wherever v came
from. v comes from Lanczos on a subsample; before the one full product is spent it is held against samples it has not
seen, and the subsample doubles until it holds (eight sequences alone failed six times of six, growing subsamples never:
a direction bends the loss of its own samples downwards by chance). What the true loss does along ±v is scanned.

    found = negative_curvature(hessian)
    found.rayleigh, found.rounding, found.scan.bends_down
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.eigen import rounding, start
from unstuck.curvature.product import Hessian
from unstuck.curvature.scan import Scan, scan
from unstuck.linalg.lanczos import Ritz, lanczos

FIRST = 128
"""Samples of the first subsample, about."""
STEPS, MORE = 10, 5
"""Lanczos steps on the first subsample, at most, and on each larger one, which begins where the last one ended."""
CLEAR = 0.5
"""A Ritz pair whose residual is this share of its value is enough of a direction: the quotient counts, not the pair."""


@dataclass(frozen=True)
class Negative:
    """A direction v [n] of length one with vᵀHv = `rayleigh` < 0 on the full data.

    rounding   what of it arithmetic can have done        sampling   its standard error over batches
    residual   ‖Hv − ρv‖: within it of ρ lies an eigenvalue
    scan       the true loss along ±v, on samples that did not choose it where there are such
    samples    of the subsample that gave the direction
    """

    direction: Tensor
    rayleigh: float
    rounding: float
    sampling: float
    residual: float
    scan: Scan
    samples: int

    @property
    def proven(self) -> bool:
        """True if λmin < 0 beyond rounding, and the loss itself bends down along the line."""
        return self.rayleigh + self.rounding < 0 and self.scan.bends_down


def negative_curvature(hessian: Hessian, seed: int = 0) -> Negative | None:
    """A proven direction of negative curvature, or the best that was found; None where every subsample up to all data
    bends upwards. Some 3 gradients where there is one; up to a dozen products on all data where there is none."""
    count = len(hessian.data.sizes)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    taken = max(1, min(count, round(FIRST / max(hessian.data.samples / count, 1))))
    begin, steps = start(hessian, seed), STEPS
    while True:
        own, fresh = order[:taken], order[taken : 2 * taken + 2]
        part = hessian.part(own) if taken < count else hessian
        ritz = lanczos(part, begin, _clear, steps)
        if float(ritz.values[0]) < 0:
            direction = ritz.vectors(0)[0]
            held = hessian.part(fresh).along(direction) if len(fresh) > 1 else None
            if held is None or _negative(held[1]):
                return _proven(hessian, ritz, direction, fresh, held, part.data.samples)
        if taken >= count:
            return None
        taken, begin, steps = min(2 * taken, count), ritz.vectors(0)[0], MORE


def _clear(ritz: Ritz) -> bool:
    return len(ritz.values) > 3 and float(ritz.residuals[0]) < -CLEAR * float(ritz.values[0])


def _negative(quotients: Tensor) -> bool:
    """True if vᵀHv < 0 on samples that did not choose v, beyond twice its standard error."""
    mean, error = mean_and_error(quotients)
    return mean + 2 * error < 0


def _proven(
    hessian: Hessian,
    ritz: Ritz,
    direction: Tensor,
    fresh: list[int],
    held: tuple[Tensor, Tensor] | None,
    samples: int,
) -> Negative:
    """The proof on all data: what was multiplied on `fresh` batches (`held`) counts towards the full product."""
    shares = hessian.data.shares
    rest = [place for place in range(len(shares)) if held is None or place not in fresh]
    product, quotients = hessian.part(rest).along(direction)
    if held is not None:
        share = sum(shares[place] for place in rest)
        product, quotients = share * product + (1 - share) * held[0], torch.cat([quotients, held[1]])
    rayleigh = float(direction @ product)
    return Negative(
        direction=direction,
        rayleigh=rayleigh,
        rounding=rounding(hessian) * max(ritz.scale, float(product.norm())),
        sampling=mean_and_error(quotients)[1],
        residual=float((product - rayleigh * direction).norm()),
        scan=scan(hessian.part(fresh) if held is not None else hessian, direction, rayleigh),
        samples=samples,
    )


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of the batches' values, and its standard error (NaN for a single one)."""
    count = len(values)
    return float(values.mean()), float(values.std()) / math.sqrt(count) if count > 1 else math.nan
