"""A proof that λmin < 0, for a few gradients: the direction is found on few samples, and proven on all.

A Rayleigh quotient is never below the smallest eigenvalue, so vᵀHv < 0 on the full data is a proof, wherever v came
from. v comes from Lanczos on a subsample; before the one full product is spent it is held against samples it has not
seen, and the subsample doubles until they bend downwards too (eight sequences alone failed six times of six, growing
subsamples never: a direction bends the loss of its own samples downwards by chance). What the true loss does along ±v
is scanned on those samples and compared, batch by batch, with what their own curvature predicts: so the scan speaks of
all data, whose curvature is known.

    found = negative_curvature(hessian)
    found.rayleigh, found.rounding, found.scan.bends_down
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.eigen import rounding, start
from unstuck.curvature.forward import pinned
from unstuck.curvature.product import Hessian
from unstuck.curvature.scan import Scan, scan
from unstuck.linalg.lanczos import Ritz, lanczos
from unstuck.linalg.moments import of

FIRST = 128
"""Samples of the first subsample, about."""
STEPS, MORE = 16, 5
"""Lanczos steps on the first subsample, at most, and on each larger one, which begins where the last one ended. (A
transformer, 100 sequences of 2 000: directions of 8 steps never held on fresh ones, of 16 five times of five.)"""
SCANNED = 3
"""Batches on which the true loss is compared with its curvature."""
CLEAR = 0.8
"""A Ritz pair whose residual is this share of its value is enough of a direction: the quotient counts, not the pair."""


@dataclass(frozen=True)
class Negative:
    """A direction v [n] of length one with vᵀHv = `rayleigh` < 0 on the full data.

    rounding   what of it arithmetic can have done        sampling   its standard error over batches
    residual   ‖Hv − ρv‖: within it of ρ lies an eigenvalue
    scan       the true loss along ±v, on samples that did not choose it where there are such; `even` speaks of all data
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


@pinned()
def negative_curvature(hessian: Hessian, seed: int = 0) -> Negative | None:
    """A proven direction of negative curvature, or the best that was found; None where every subsample up to all data
    bends upwards. Some 3 gradients where there is one; up to a dozen products on all data where there is none."""
    count = len(hessian.data.sizes)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    taken = max(1, min(count, round(FIRST / max(hessian.data.samples / count, 1))))
    begin, steps, found = start(hessian, seed), STEPS, None
    while True:
        part = hessian.part(order[:taken]) if taken < count else hessian
        ritz = lanczos(part, begin, _clear, steps)
        direction = ritz.vectors(0)[0]
        if float(ritz.values[0]) < 0:
            now = _held_against_all(hessian, ritz, direction, order, taken)
            if now is not None and (found is None or now.proven or now.rayleigh < found.rayleigh):
                found = now
        if taken >= count or (found is not None and found.proven):
            return found
        taken, begin, steps = min(2 * taken, count), direction, MORE


def _clear(ritz: Ritz) -> bool:
    return len(ritz.values) > 3 and float(ritz.residuals[0]) < -CLEAR * float(ritz.values[0])


def _held_against_all(
    hessian: Hessian, ritz: Ritz, direction: Tensor, order: list[int], taken: int
) -> Negative | None:
    """The proof, batch by batch, those first that did not choose the direction; None as soon as they bend upwards."""
    places, done = order[taken:] + order[:taken], 0
    fresh = min(len(order) - taken, taken + 2)
    fresh = fresh if fresh > 1 else 0
    product, quotients = torch.zeros_like(direction), torch.zeros(0, dtype=torch.float64)
    while done < len(places):
        some = places[done : max(2 * done, fresh) or len(places)]
        made, own = hessian.part(some).along(direction)
        product += sum(hessian.data.shares[place] for place in some) * made
        quotients, done = torch.cat([quotients, own]), done + len(some)
        if float(quotients.mean()) >= 0:
            return None
    rayleigh = float(direction @ product)
    return Negative(
        direction=direction,
        rayleigh=rayleigh,
        rounding=rounding(hessian) * max(ritz.scale, float(product.norm())),
        sampling=float(of(quotients).standard_error),
        residual=float((product - rayleigh * direction).norm()),
        scan=_scanned(hessian, direction, rayleigh, places[: min(fresh, SCANNED)], quotients),
        samples=sum(hessian.data.sizes[place] for place in order[:taken]),
    )


def _scanned(hessian: Hessian, direction: Tensor, rayleigh: float, fresh: list[int], quotients: Tensor) -> Scan:
    if not fresh:
        return scan(hessian, direction, rayleigh)
    part = hessian.part(fresh)
    # The quotients are of means; the losses of a sum are not those of its mean.
    own = quotients[: len(fresh)] * torch.tensor(part.data.shares) / torch.tensor(part.data.weights)
    return scan(part, direction, rayleigh, quotients=own)
