"""The gradient noise scale tr Σ / ‖G‖² from gradients of batches, with an interval (McCandlish et al. 2018).

G is the mean gradient, Σ the covariance of single samples' gradients. Of k gradients g_i over b samples each,

    ‖G‖²  ←  signal = Σ_{i≠j} g_i·g_j / k(k−1)            (no pair shares a sample: no bias)
    tr Σ  ←  noise = b (Σ ‖g_i‖² / k − signal)

    scale = noise / signal                                 in samples

About a batch of that size the noise of a gradient is as large as the gradient itself. Below it a batch twice as large
makes a step nearly twice as good, above it hardly better: after n updates over batches of B samples,

    updates needed  ∝ 1 + scale / B,        samples needed  ∝ 1 + B / scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.moments import Moments
from unstuck.linalg.ratio import Covariance, Ratio, quotient

CONFIDENCE = 0.95
FEWEST = 4
"""Gradients, or steps, below which nothing is said."""


@dataclass(frozen=True)
class NoiseScale:
    """Estimates of tr Σ (`noise`) and ‖G‖² (`signal`, may be negative: it is unbiased), with the covariance of the two
    and its degrees of freedom; `floor`: what noise alone adds to the squared norm of the mean gradient that was had."""

    noise: float
    signal: float
    covariance: Covariance
    freedom: int
    floor: float = math.inf

    @property
    def scale(self) -> Ratio:
        """tr Σ / ‖G‖² in samples, and its interval at 95 %; `high` is inf where the gradient may be zero for all that
        is known."""
        return self.at(CONFIDENCE)

    def at(self, confidence: float) -> Ratio:
        """The same at another confidence: Fieller's interval with Student's t, and two corrections for skewness.

        The variance of `signal` grows with ‖G‖² itself, as ‖G‖² + floor: the largest ‖G‖² that the data allow is
        solved for with the variance it would have (as Wilson does for a share). And a squared length scatters by a
        factor: the upper end is at least value · exp(t · standard error of the logarithm). On linear models with 10 to
        1000 inputs at least 93 % of intervals then hold the truth (`make bench-noise`); 91 % were seen where all noise
        has one direction.
        """
        t = float(stdtrit(self.freedom, 0.5 + confidence / 2)) if self.freedom > 0 else math.inf
        found = quotient(self.noise, self.signal, self.covariance, t)
        if not math.isfinite(t):
            return found
        (vaa, vab), (_, vbb) = self.covariance
        low = quotient(self.noise, self.signal, ((vaa, vab), (vab, vbb * self._growth(t))), t).low
        if not math.isfinite(found.high) or min(self.noise, self.signal) <= 0:
            return found._replace(low=low)
        a, b = self.noise, self.signal
        spread = math.sqrt(max(vaa / a**2 - 2 * vab / (a * b) + vbb / b**2, 0.0))
        return found._replace(low=low, high=max(found.high, found.value * math.exp(t * spread)))

    def _growth(self, t: float) -> float:
        """Variance of `signal` if ‖G‖² were the largest x allowed, over what it is: (x − signal)² = t² v (x + floor) /
        (signal₊ + floor)."""
        here = max(self.signal, 0.0) + self.floor
        if not 0 < here < math.inf:
            return 1.0
        f = t * t * self.covariance[1][1] / here
        middle = self.signal + f / 2
        largest = middle + math.sqrt(max(middle**2 - self.signal**2 + f * self.floor, 0.0))
        return max(1.0, (largest + self.floor) / here)


def of_gradients(gradients: Sequence[Tensor], size: int) -> NoiseScale:
    """The noise scale from k gradients [parameters] of batches of `size` samples that share none.

    The covariance is the jackknife's: each batch left out once. Where the gradient is all noise it is up to twice too
    large, so that intervals there are too wide, not too narrow. Sums in float64. Costs 3 k passes over [parameters].
    Raises BadArgument for fewer than four gradients, or a size below 1.

    >>> found = of_gradients([torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])] * 2, size=1)
    >>> round(found.signal, 3), round(found.noise, 3)
    (0.667, 1.333)
    """
    if not gradients:
        return of_products((), (), size)
    total = torch.zeros_like(gradients[0], dtype=torch.float64)
    for gradient in gradients:
        total += gradient
    squares, inner = [], []
    for gradient in gradients:  # one at a time in float64
        wide = gradient.double()
        squares.append(float(wide @ wide))
        inner.append(float(wide @ total))
    return of_products(squares, inner, size)


def of_products(squares: Sequence[float], inner: Sequence[float], size: int) -> NoiseScale:
    """The same from ‖g_i‖² and g_i·Σ_j g_j of each batch: all that ranks have to exchange once they have the sum."""
    k = len(squares)
    if k < FEWEST or size < 1:
        raise BadArgument(
            f"noise_scale: gradients of at least {FEWEST} batches of `size` ≥ 1 samples are needed, got {k} of {size}"
        )
    q = torch.tensor(squares, dtype=torch.float64)
    a = torch.tensor(inner, dtype=torch.float64)
    whole = a.sum()  # Σ_i g_i·Σ_j g_j = ‖Σ g‖²
    noise, signal = _estimates(q.sum(), whole, k, size)
    # Without batch i: ‖Σ g − g_i‖² = ‖Σ g‖² − 2 a_i + q_i.
    left = torch.stack(_estimates(q.sum() - q, whole - 2 * a + q, k - 1, size))
    apart = left - left.mean(1, keepdim=True)
    v = ((k - 1) / k * apart @ apart.T).tolist()
    covariance = ((v[0][0], v[0][1]), (v[1][0], v[1][1]))
    return NoiseScale(float(noise), float(signal), covariance, k - 1, float(noise) / (size * k))


def _estimates(squares: Tensor, whole: Tensor, k: int, size: int) -> tuple[Tensor, Tensor]:
    signal = (whole - squares) / (k * (k - 1))
    return size * (squares / k - signal), signal


def step(small: float, size: int, large: float, samples: int) -> Tensor:
    """One step's estimates [3] of tr Σ, ‖G‖² and their sum, from ‖g‖² over `size` and over `samples` of its samples.

        signal = (samples · large − size · small) / (samples − size)
        noise  = (small − large) / (1/size − 1/samples)

    Where gradients are accumulated, or averaged over ranks, both norms are there for nothing.
    Raises BadArgument unless 1 ≤ size < samples.

    >>> step(3.0, 1, 2.0, 2)
    tensor([2., 1., 3.], dtype=torch.float64)
    """
    if not 1 <= size < samples:
        raise BadArgument(f"noise_scale.step: `size` must be from 1 to below `samples`, got {size} and {samples}")
    signal = (samples * large - size * small) / (samples - size)
    noise = (small - large) / (1 / size - 1 / samples)
    return torch.tensor([noise, signal, noise + signal], dtype=torch.float64)


def of_steps(steps: Moments) -> NoiseScale:
    """The noise scale from moments of what `step` gave: sums that merge over steps and ranks in any order.

    The mean over the stretch of training that was seen; steps are taken for independent.
    Raises BadArgument for fewer than four steps.
    """
    if steps.mean.shape != (3,) or steps.count < FEWEST:
        raise BadArgument(
            f"noise_scale.of_steps: `steps` must be moments of at least {FEWEST} of `step`'s [3], "
            f"got {steps.count} of {list(steps.mean.shape)}"
        )
    a, b, both = (steps.standard_error.square()).tolist()
    cross = (both - a - b) / 2
    return NoiseScale(float(steps.mean[0]), float(steps.mean[1]), ((a, cross), (cross, b)), steps.count - 1)
