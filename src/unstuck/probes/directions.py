"""Directions in parameter space to look along: vectors [n] in the order of `curvature.flat.Flat`.

    random       normal, every filter as long as the parameter's own (Li et al. 2018, "Visualizing the Loss Landscape of
                 Neural Nets"): scaling a layer and the next one back leaves the picture as it is
    orthonormal  of gradient and extreme eigenvectors
    principal    of the states that a training went through

    d1, d2 = filter_normalised(flat, torch.Generator().manual_seed(0), 2)
    coordinates(torch.stack([d1, d2]), states - start)      # [states, 2]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from unstuck.curvature.flat import Flat
from unstuck.errors import NotMeasurable
from unstuck.loop import State
from unstuck.problem import Problem

APART = 1e-3
"""Sine of the angle below which two directions are one: what is left of a float32 vector, the other taken out, is then
right to 1e-4."""


def filter_normalised(flat: Flat, generator: torch.Generator, count: int) -> Tensor:
    """Random directions [count, n]: each row (slice along the first dimension) of a weight as long as the parameter's.
    Biases and parameters of normalization layers, of one dimension, stay.

    Raises NotMeasurable where all parameters are of that kind, or 0.
    """
    found = torch.stack([flat.movable(_filters(flat, generator)) for _ in range(count)])
    if not bool(found.any(dim=1).all()):
        raise NotMeasurable("no weight of two or more dimensions is there, or all are 0: filters have no length")
    return found


def _filters(flat: Flat, generator: torch.Generator) -> Tensor:
    parts = []
    for parameter in flat.parameters:
        part = torch.zeros(parameter.shape)
        if parameter.dim() > 1:
            part = torch.randn(parameter.shape, generator=generator)
            own, drawn = (t.detach().float().cpu().flatten(1).norm(dim=1) for t in (parameter, part))
            part *= (own / drawn).view(-1, *[1] * (parameter.dim() - 1))
        parts.append(part)
    return flat.join(parts)


def orthonormal(candidates: Sequence[Tensor]) -> tuple[Tensor, tuple[int, int]]:
    """The first two of the candidates that are not 0 and not alike: [2, n] of length one, the second with the first
    taken out of it; and their places. Raises NotMeasurable where there are no two."""
    kept: list[tuple[int, Tensor]] = []
    for place, candidate in enumerate(candidates):
        length = float(candidate.norm())
        if not length:
            continue
        rest = candidate / length
        for _ in range(2):  # once more, for what rounding left
            for _, other in kept:
                rest = rest - (rest @ other) * other
        if float(rest.norm()) > APART:
            kept.append((place, rest / rest.norm()))
        if len(kept) == 2:
            return torch.stack([vector for _, vector in kept]), (kept[0][0], kept[1][0])
    raise NotMeasurable("gradient and extreme eigenvectors do not span a plane")


def principal(states: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """The first two principal components [2, n] of states [k, n], of length one, and the share of the states' variance
    that each explains. The first state lies on the negative side of both.

    Raises NotMeasurable for fewer than three states, and for states on a line.
    """
    if len(states) < 3:
        raise NotMeasurable(f"{len(states)} states of the training are known that differ, three are needed")
    centred = states - states.mean(dim=0)
    _, sizes, components = torch.linalg.svd(centred, full_matrices=False)
    if float(sizes[1]) <= torch.finfo(states.dtype).eps * float(states.norm()):
        raise NotMeasurable("the training went along a straight line: its states span no plane")
    components = components[:2]
    signs = torch.where(components @ centred[0] > 0, -1.0, 1.0).to(components)
    shares = (sizes.double().square() / sizes.double().square().sum())[:2].tolist()
    return components * signs[:, None], (shares[0], shares[1])


def coordinates(directions: Tensor, vectors: Tensor) -> Tensor:
    """Where vectors [k, n] come to lie in the plane of two directions [2, n]: least squares, float64 [k, 2].

    Raises NotMeasurable where the directions are one.
    """
    lengths = directions.norm(dim=1, keepdim=True)
    units = directions / lengths
    cosine = float(units[0] @ units[1])
    if not 1 - cosine**2 > APART**2:
        raise NotMeasurable("the two directions are one, or 0: they span no plane")
    gram = torch.tensor([[1.0, cosine], [cosine, 1.0]], dtype=torch.float64)
    onto = (vectors @ units.T).double().cpu()
    found: Tensor = torch.linalg.solve(gram, onto.T).T / lengths.T.double().cpu()
    return found


def states(problem: Problem, flat: Flat) -> Tensor:
    """The states that a training went through, first to last, as rows [k, n]: without repetitions in a row."""
    initial = dict(problem.model.named_parameters())
    known = [initial, *(state for _, state in sorted(problem.loop.snapshots, key=lambda pair: pair[0])), problem.last]
    rows = [_vector(flat, state) for state in known]
    fresh = [rows[0], *(row for before, row in pairwise(rows) if not torch.equal(before, row))]
    return torch.stack(fresh)


def _vector(flat: Flat, state: State) -> Tensor:
    """A state as a vector; what it does not know, or knows in another shape, is as in the flat."""
    pairs = zip(flat.names, flat.parameters, strict=True)
    return flat.join([state[n] if n in state and state[n].shape == p.shape else p for n, p in pairs])
