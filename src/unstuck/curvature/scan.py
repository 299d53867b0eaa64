"""The true loss along a line, beside its quadratic model: what a verdict on curvature has to stand up to.

    L(θ + α v)   against   L + α g·v + α²/2 vᵀHv

Automatic differentiation ignores the kinks of ReLU and max-pooling (curvatures 10 to 25 % off at the extremes, fivefold
along arbitrary directions, measured), and says nothing of how far a direction goes on. Losses are compared batch by
batch, so that what the batches differ among themselves cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.curvature.product import Hessian

REACH = 0.125
"""Longest step of a scan, in lengths of the parameter vector (one at least): a step as long as the parameters
themselves led uphill in every network tried."""

LENGTHS, SHRINK = 4, 8.0
"""So many lengths each way at most, each a `SHRINK`-th of the one before: on a transformer whose parameters have length
130 the loss followed its curvature of −0.06 up to a step of 0.3 only."""


@dataclass(frozen=True)
class Scan:
    """Change of the mean loss against the start, at `lengths` along a direction of length one.

    changes, errors   L(θ + αv) − L(θ), and its standard error over batches (NaN for a single one)
    even              of each positive length: (L(α) + L(−α)) / 2 − L(0), and its standard error; where the curvature of
                      each batch is known, what that has of the whole's is taken out (a control variate)
    slope, curvature  of the quadratic model, g·v and vᵀHv
    """

    lengths: tuple[float, ...]
    changes: tuple[float, ...]
    errors: tuple[float, ...]
    even: tuple[tuple[float, float], ...]
    slope: float
    curvature: float
    loss: float

    def model(self, length: float) -> float:
        """The change that the quadratic model predicts."""
        return length * self.slope + 0.5 * length**2 * self.curvature

    @property
    def best(self) -> int:
        """The place of the lowest loss."""
        finite = [change if math.isfinite(change) else math.inf for change in self.changes]
        return min(range(len(finite)), key=finite.__getitem__)

    @property
    def bends_down(self) -> bool:
        """True if somewhere the even part is below zero beyond twice its error, and beyond rounding: the loss itself,
        kinks and all, bends down along the line."""
        noise = 4 * torch.finfo(torch.float32).eps * abs(self.loss)
        return any(
            math.isfinite(change) and change + 2 * (error if error == error else 0.0) < -noise
            for change, error in self.even
        )


def scan(
    hessian: Hessian,
    direction: Tensor,
    curvature: float,
    reach: float | None = None,
    even: int | None = None,
    quotients: Tensor | None = None,
) -> Scan:
    """The loss along ±`direction` (length one), up to `reach`: at lengths that shrink until it bends down, or at `even`
    ones each way.

    `quotients`: vᵀH_b v of each batch [batches], where `curvature` is that of more data than these: the scan then says
    how the loss of all of it goes. Three to nine forward passes over the hessian's data, or 2 · `even` + 1.
    """
    far = REACH * max(1.0, float(hessian.flat.values().norm())) if reach is None else reach
    if even is not None:
        lengths = [far * k / even for k in range(-even, even + 1)]
        return of_losses(lengths, hessian.losses_at(direction, lengths), hessian.data.weights, curvature, quotients)
    known = [(0.0, hessian.losses_at(direction, [0.0])[0])]
    for k in range(LENGTHS):
        pair = [-far / SHRINK**k, far / SHRINK**k]
        known += zip(pair, hessian.losses_at(direction, pair), strict=True)
        known.sort(key=lambda one: one[0])
        line = of_losses(*_columns(known), hessian.data.weights, curvature, quotients)
        if line.bends_down:
            break
    return line


def _columns(known: Sequence[tuple[float, Tensor]]) -> tuple[list[float], Tensor]:
    """Lengths, and their losses [lengths, batches]."""
    return [length for length, _ in known], torch.stack([losses for _, losses in known])


def of_losses(
    lengths: Sequence[float],
    losses: Tensor,
    weights: Sequence[float],
    curvature: float,
    quotients: Tensor | None = None,
) -> Scan:
    """The scan of losses [lengths, batches], lengths ascending and symmetric about 0; the slope is that of the shortest
    two. `quotients`: the second derivative of each batch's loss."""
    share = torch.tensor(weights, dtype=torch.float64)
    middle = len(lengths) // 2
    apart = losses - losses[middle]
    means, errors = _over_batches(apart, share)
    bends = (apart[middle + 1 :] + apart[:middle].flip(0)) / 2
    if quotients is not None:
        squares = torch.tensor(lengths[middle + 1 :], dtype=torch.float64).square()
        bends = bends - torch.outer(squares / 2, quotients - curvature / share.sum())
    even = _over_batches(bends, share)
    return Scan(
        lengths=tuple(lengths),
        changes=tuple(means.tolist()),
        errors=tuple(errors.tolist()),
        even=tuple(zip(even[0].tolist(), even[1].tolist(), strict=True)),
        slope=float(means[middle + 1] - means[middle - 1]) / (2 * lengths[middle + 1]),
        curvature=curvature,
        loss=float(losses[middle] @ share),
    )


def _over_batches(table: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean of each row, and its standard error (NaN for a single batch)."""
    count, whole = len(share), share.sum()
    means = table @ share
    spread = (table - means.unsqueeze(1) / whole).square() @ share / whole
    errors = whole * (spread / (count - 1)).sqrt() if count > 1 else torch.full_like(means, math.nan)
    return means, errors
