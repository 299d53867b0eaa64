"""Mean and variance as sums that can be merged: whoever saw part of the data, whatever the order.

    merged = merge(of(first), of(second))       # the same as of(all of it)
    merged.mean, merged.standard_error

With δ = mean_b − mean_a and n = n_a + n_b (Chan, Golub & LeVeque 1983, the pairwise formula)

    mean = mean_a + δ n_b / n,        S = S_a + S_b + δ² n_a n_b / n

No square of a mean is taken, so that a variance of 1 around a mean of 1e8 survives. All in float64, for scalars or for
each element of tensors; several ranks are one merge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unstuck.errors import BadArgument


@dataclass(frozen=True)
class Moments:
    """The first two moments of `count` samples, each of shape [...].

    count        how many samples; 0: nothing was seen (the neutral element of `merge`)
    mean         [...], float64
    deviations   S [...], float64: the sum of squared distances from the mean
    """

    count: int
    mean: Tensor
    deviations: Tensor

    @property
    def variance(self) -> Tensor:
        """S / (n − 1) [...], without bias for independent samples; `inf` for fewer than two: nothing is known."""
        if self.count < 2:
            return torch.full_like(self.deviations, math.inf)
        return self.deviations / (self.count - 1)

    @property
    def standard_error(self) -> Tensor:
        """√(variance / n) [...]: how far the mean typically lies from the true one; `inf` for fewer than two samples.

        With few samples an interval takes Student's t with `count` − 1 degrees of freedom, not 1.96.
        """
        return (self.variance / max(self.count, 1)).sqrt()


def of(values: Tensor) -> Moments:
    """The moments of samples `values` [count, ...] along their first dimension.

    Exact to rounding of float64; not finite where a value is not. Costs two passes over the values.
    Raises BadArgument for a tensor without a dimension of samples.

    >>> of(torch.tensor([1.0, 2.0, 6.0])).variance
    tensor(7., dtype=torch.float64)
    """
    if values.dim() == 0:
        raise BadArgument("moments.of: `values` must be samples [count, ...], got a scalar; pass values.reshape(1)")
    wide = values.detach().to(torch.float64)
    if not len(wide):
        nothing = wide.new_zeros(wide.shape[1:])
        return Moments(0, nothing, nothing)
    mean = wide.mean(dim=0)
    return Moments(len(wide), mean, (wide - mean).square().sum(dim=0))


def merge(a: Moments, b: Moments) -> Moments:
    """The moments of both sets of samples together. Associative and commutative to rounding; costs three products.

    Raises BadArgument for samples of different shapes.

    >>> float(merge(of(torch.tensor([1.0, 2.0])), of(torch.tensor([6.0]))).mean)
    3.0
    """
    if a.mean.shape != b.mean.shape:
        raise BadArgument(
            f"moments.merge: `b` must hold samples of the shape of `a`, {tuple(a.mean.shape)}, "
            f"got {tuple(b.mean.shape)}; merge like with like"
        )
    if not a.count or not b.count:
        return a if a.count else b
    count = a.count + b.count
    step = b.mean - a.mean
    part = b.count / count
    return Moments(count, a.mean + step * part, a.deviations + b.deviations + step.square() * (a.count * part))
