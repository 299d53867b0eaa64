"""How an operator's eigenvalues are spread, from products: stochastic Lanczos quadrature with honest intervals.

A start v, uniform on the sphere, weighs the eigenvalues: μ(−∞, t) = Σ γⱼ² [λⱼ < t], and on average μ(−∞, t) is the
share of eigenvalues below t (Ubaru, Chen & Saad 2017). Lanczos from v gives Gauss' quadrature of μ (Golub & Welsch
1969). Two things stand between its weights and the share, and both are bounded:

1.  μ is known by 2m + 1 moments only. Of all measures that share them, the one with a node at t (Gauss–Radau, m + 1
    nodes) is extremal (Chebyshev–Markov–Stieltjes; Szegő 1939, §3.41):
        Σ weights of the nodes < t   ≤   μ(−∞, t)   ≤   μ(−∞, t]   ≤   Σ weights of the nodes ≤ t
2.  μ(−∞, t) of a random v is not its mean. But its law is known: with k of n eigenvalues below t it is exactly
    Beta(k/2, (n − k)/2). And for normal starts gᵢ of length rᵢ, Σ rᵢ² μᵢ / Σ rᵢ² over p starts is
    Beta(pk/2, p(n − k)/2). So k/n is bounded like a binomial share (Clopper & Pearson 1934), at any p, one included,
    and without Student's t, whose 90 % intervals failed 15 to 18 % of the time where one or two of 60 eigenvalues lie
    below t (a skewed law).

    spectrum = quadrature(matvec, size, probes=8, most=50, seed=0)
    index(spectrum, tolerance=1e-4).negative.low        # with 95 %, at least this share of directions leads downhill
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import betainc, betaincc
from torch import Tensor

from unstuck.errors import BadArgument
from unstuck.linalg.lanczos import Matvec, lanczos
from unstuck.linalg.moments import Moments, of

ROUNDING = 10.0
"""Units of rounding of the products: nearer eigenvalues (against the largest) and smaller weights are not seen."""

STEEPEST = 1e4
"""Last entry of a Gauss–Radau matrix against the others: above, rounding would drown its smaller eigenvalues."""

CLOSE = 1e-11
"""Against the largest entry: how exactly the eigenvalues of a Gauss–Radau matrix are computed, in float64."""

ASYMMETRY = 1e-4
"""Entries of a matrix against those of its transpose, and its largest: rounding of float32 is below."""


@dataclass(frozen=True)
class Probe:
    """What m products from one start know of its measure, each [m] in float64, nodes ascending.

    nodes       Ritz values θ: the nodes of Gauss' quadrature
    weights     its weights, of sum one
    residuals   β s_last, with the sign of s_first: what the next product would couple each node to
    length      r²: the squared length of the normal draw
    """

    nodes: Tensor
    weights: Tensor
    residuals: Tensor
    length: float


@dataclass(frozen=True)
class Spectrum:
    """The quadratures of several starts. `rounding`: of their weights, and of the nodes against the largest one."""

    probes: tuple[Probe, ...]
    size: int
    products: int
    rounding: float

    @property
    def resolution(self) -> float:
        """Eigenvalues closer than this are not told apart."""
        return self.rounding * max(float(probe.nodes.abs().max()) for probe in self.probes)


@dataclass(frozen=True)
class Share:
    """A share of `size` eigenvalues: in [low, high] with probability `confidence`; `estimate` is one number for it."""

    low: float
    estimate: float
    high: float
    size: int
    confidence: float

    @property
    def count(self) -> int:
        """The estimate as a number of eigenvalues; certain only where low == high."""
        return round(self.estimate * self.size)


@dataclass(frozen=True)
class Index:
    """Shares of eigenvalues λ < −tolerance, |λ| ≤ tolerance, and λ > tolerance; each with its own confidence."""

    negative: Share
    zero: Share
    positive: Share
    tolerance: float


def quadrature(
    matvec: Matvec,
    size: int,
    probes: int,
    most: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Spectrum:
    """Lanczos of `most` products `[size] → [size]` from each of `probes` normal starts.

    `stop` is asked between probes, so that a clock may end it early; the first is always made, and
    `len(spectrum.probes)` tells how many were. A `stop` that looks at results voids the intervals.
    Costs `probes` · `most` products (fewer where a start's space is exhausted) and the memory of `most` vectors.
    Raises BadArgument for a `size`, `probes` or `most` below 1, a `dtype` of integers, and whatever `lanczos` raises.
    """
    for name, number in (("size", size), ("probes", probes), ("most", most)):
        if number < 1:
            raise BadArgument(f"quadrature: `{name}` must be at least 1, got {number}")
    if not dtype.is_floating_point:
        raise BadArgument(f"quadrature: `dtype` must be floating point, got {dtype}; take that of the parameters")
    generator = torch.Generator(device=device).manual_seed(seed)
    done: list[Probe] = []
    while len(done) < probes and not (done and stop()):
        start = torch.randn(size, generator=generator, dtype=dtype, device=device)
        done.append(_probe(matvec, start, most))
    return Spectrum(tuple(done), size, sum(len(p.nodes) for p in done), ROUNDING * torch.finfo(dtype).eps)


def share_below(spectrum: Spectrum, t: float, confidence: float = 0.95) -> Share:
    """Share of eigenvalues < t.

    The true share is in [low, high] with probability `confidence` at least, whatever the spectrum and the number of
    probes (module docstring); eigenvalues within `resolution` of t count as either. Costs no product.
    Raises BadArgument for a `t` that is not finite, or a `confidence` outside of (0, 1).

    >>> matrix = torch.diag(torch.tensor([-1.0] * 30 + [2.0] * 70, dtype=torch.float64))
    >>> found = share_below(quadrature(lambda v: matrix @ v, 100, probes=50, most=3, seed=0), 0.0)
    >>> found.low < 0.3 < found.high, found.high - found.low < 0.04
    (True, True)
    """
    _check("share_below", "t", t, confidence)
    low, high = _averaged(spectrum, t)
    return _share(spectrum, low, high, confidence)


def index(spectrum: Spectrum, tolerance: float, confidence: float = 0.95) -> Index:
    """Shares of eigenvalues beyond −`tolerance`, within it, and beyond `tolerance`, each with its interval.

    Each interval holds with probability `confidence` by itself, all three with 1 − 3 (1 − confidence) at least.
    Take a `tolerance` above the error of the products: below it signs mean nothing. Costs no product.
    Raises BadArgument for a `tolerance` that is negative or not finite, or a `confidence` outside of (0, 1).
    """
    _check("index", "tolerance", tolerance, confidence, least=0.0)
    below = _averaged(spectrum, -tolerance)
    up_to = _averaged(spectrum, tolerance)
    return Index(
        _share(spectrum, *below, confidence),
        _share(spectrum, up_to[0] - below[1], up_to[1] - below[0], confidence),
        _share(spectrum, 1 - up_to[1], 1 - up_to[0], confidence),
        tolerance,
    )


def exact(matrix: Tensor, tolerance: float) -> Index:
    """The same three shares of a dense symmetric `matrix` [n, n], counted from its eigenvalues in float64.

    Costs O(n³). Raises BadArgument for a matrix that is not square, finite and symmetric, or a negative `tolerance`.

    >>> exact(torch.diag(torch.tensor([-1.0, 0.0, 0.0, 3.0])), tolerance=0.1).zero.count
    2
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.numel():
        raise BadArgument(f"exact: `matrix` must be square [n, n], got {list(matrix.shape)}")
    _check("exact", "tolerance", tolerance, least=0.0)
    wide = matrix.detach().to("cpu", torch.float64)
    apart = float((wide - wide.T).abs().max() / wide.abs().max().clamp(min=1e-300))
    if not apart <= ASYMMETRY:  # nan: not finite
        raise BadArgument(f"exact: `matrix` must be finite and symmetric, got differences of {apart:.3g} (relative)")
    return counted(torch.linalg.eigvalsh((wide + wide.T) / 2), tolerance)


def counted(eigenvalues: Tensor, tolerance: float) -> Index:
    """The three shares of eigenvalues [n] that are all known."""
    size = len(eigenvalues)
    sides = eigenvalues < -tolerance, eigenvalues.abs() <= tolerance, eigenvalues > tolerance
    negative, zero, positive = (Share(k, k, k, size, 1.0) for k in (int(side.sum()) / size for side in sides))
    return Index(negative, zero, positive, tolerance)


def density(spectrum: Spectrum, points: Tensor, width: float) -> Moments:
    """The spectral density smoothed with a Gaussian of standard deviation `width`, at `points` [k]: for drawing.

        φ(x) = 1/p Σᵢ Σ_k wᵢₖ N(x; θᵢₖ, width²)

    The moments [k] are those over the probes: `mean`, and `standard_error` (`inf` for one probe). That m nodes stand
    for n eigenvalues is not in the error: details narrower than about (range of the spectrum) / m may be the nodes.
    Costs no product. Raises BadArgument for a `width` that is not positive.
    """
    if not width > 0 or not math.isfinite(width):
        raise BadArgument(f"density: `width` must be positive, got {width!r}; try a hundredth of the spectrum's range")
    at = points.detach().to("cpu", torch.float64).unsqueeze(-1)
    normal = 1 / (width * math.sqrt(2 * math.pi))
    bells = [torch.exp(-(((at - p.nodes) / width) ** 2) / 2) @ p.weights * normal for p in spectrum.probes]
    return of(torch.stack(bells))


def bracket(probe: Probe, t: float, resolution: float) -> tuple[float, float]:
    """Bounds on μ(−∞, t) and μ(−∞, t] of this start: certain, up to eigenvalues within `resolution` of t.

    Two sources, the better counts. Gauss: with K nodes below t, the first K − 1 weights ≤ μ ≤ the first K + 1.
    Gauss–Radau: T gets a row with β and a last entry that makes t an eigenvalue. That entry has a pole at every node,
    and is cut off there: the eigenvalue then lies beside t, and bounds μ from one side only.
    """
    nodes, m = probe.nodes, len(probe.nodes)
    scale = max(float(nodes.abs().max()), float(probe.residuals.abs().max()), abs(t))
    slack, gauss = max(resolution, CLOSE * scale), probe.weights.cumsum(0)
    inside, outside = int((nodes < t - slack).sum()), int((nodes <= t + slack).sum())
    if not bool(probe.residuals.any()):  # all of the space: the nodes are eigenvalues, the weights their shares
        return _first(gauss, inside), _first(gauss, outside)
    low, high = _first(gauss, inside - 1), _first(gauss, outside + 1)
    gaps = (t - nodes).where(nodes != t, torch.full_like(nodes, 1e-300))
    entry = t - float((probe.residuals.square() / gaps).sum())
    # In the basis of the Ritz vectors the extended matrix is an arrow: nodes on the diagonal, residuals at its edge.
    arrow = torch.diag(torch.cat([nodes, nodes.new_tensor([min(max(entry, -STEEPEST * scale), STEEPEST * scale)])]))
    arrow[m, :m] = arrow[:m, m] = probe.residuals
    values, vectors = torch.linalg.eigh(arrow)
    radau = (probe.weights.sqrt() @ vectors[:m]).square().cumsum(0)
    near = float(values[int((nodes <= t).sum())])  # by interlacing as many eigenvalues are below it as nodes below t
    if near <= t + slack:
        low = max(low, _first(radau, int((values < near - slack).sum())))
    if near >= t - slack:
        high = min(high, _first(radau, int((values <= near + slack).sum())))
    return low, max(low, high)


def _probe(matvec: Matvec, start: Tensor, most: int) -> Probe:
    ritz = lanczos(matvec, start, enough=lambda _: False, most=most)
    nodes, vectors = torch.linalg.eigh(ritz.projection)
    # What left the space is not known better than to rounding: 0 is certain only of a space that is everything.
    unseen = ROUNDING * torch.finfo(start.dtype).eps * float(ritz.projection.abs().sum(dim=1).max())
    left = max(float(ritz.leaves), unseen) if len(nodes) < ritz.size else 0.0
    sign = torch.where(vectors[0] < 0, -1.0, 1.0)
    length = float(torch.linalg.vector_norm(start, dtype=torch.float64)) ** 2
    return Probe(nodes, vectors[0].square(), left * vectors[-1] * sign, length)


def _first(cumulative: Tensor, count: int) -> float:
    """The sum of the first `count` weights."""
    return 0.0 if count < 1 else min(float(cumulative[min(count, len(cumulative)) - 1]), 1.0)


def _averaged(spectrum: Spectrum, t: float) -> tuple[float, float]:
    """Bounds on Σ rᵢ² μᵢ(−∞, t) / Σ rᵢ²."""
    total = sum(probe.length for probe in spectrum.probes)
    brackets = [bracket(probe, t, spectrum.resolution) for probe in spectrum.probes]
    low, high = (sum(p.length * b[i] for p, b in zip(spectrum.probes, brackets, strict=True)) / total for i in (0, 1))
    return low, high


def _share(spectrum: Spectrum, low: float, high: float, confidence: float) -> Share:
    """From bounds on the averaged measure to an interval of the share: where the Beta law's tails are too thin."""
    low, high = low - spectrum.rounding, high + spectrum.rounding
    numbers = spectrum.size * len(spectrum.probes) / 2
    tail = (1 - confidence) / 2
    least = 0.0 if low <= 0 else _end(lambda s: betaincc(s * numbers, (1 - s) * numbers, low) < tail)
    most = 1.0 if high >= 1 else _end(lambda s: betainc(s * numbers, (1 - s) * numbers, high) > tail)
    return Share(least, min(max((low + high) / 2, least), most), most, spectrum.size, confidence)


def _end(holds: Callable[[float], bool]) -> float:
    """The share in (0, 1) up to which it holds."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high


def _check(call: str, name: str, number: float, confidence: float = 0.5, least: float = -math.inf) -> None:
    if not math.isfinite(number) or number < least:
        raise BadArgument(f"{call}: `{name}` must be finite{' and not negative' * (least == 0)}, got {number!r}")
    if not 0 < confidence < 1:
        raise BadArgument(f"{call}: `confidence` must be between 0 and 1, got {confidence!r}")
