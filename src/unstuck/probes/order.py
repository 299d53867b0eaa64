"""Whether batches are mixtures: how much of the targets' variance lies between the batches, against mixed samples.

    η² = Σ_b n_b |m_b − m|² / Σ_i |t_i − m|²        (m_b: mean target of batch b; classes as indicator vectors)

is 1 where every batch holds one class, and about 1/batch size where samples were drawn at random. The same figure for
permutations of the samples over the batches says what chance gives. Measured on batches as the loop drew them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unstuck.errors import NotApplicable
from unstuck.problem import Batch, Problem, batch_size
from unstuck.sandbox import sandbox

BATCHES = 32
FEWEST = 6
PERMUTATIONS = 200


@dataclass(frozen=True)
class Order:
    """`between`: η² of the batches as drawn; `chance`, `largest`: its mean and maximum over permutations."""

    batches: int
    samples: int
    between: float
    chance: float
    largest: float
    sequential: bool

    @property
    def excess(self) -> float:
        """Share of the targets' variance between batches beyond chance: 0 for mixed samples, 1 for sorted ones."""
        return (self.between - self.chance) / max(1 - self.chance, 1e-9)


def measure(problem: Problem) -> Order:
    """One forward pass a recorded batch. Raises UnstuckError where targets are unknown or too few batches were seen."""
    sequential = problem.rows is not None and problem.rows.ordered
    drawn = [batch for _, batch in problem.recorded]
    if len(drawn) < FEWEST and sequential:
        drawn = list(problem.data)
    with sandbox(0):
        rows = _targets(problem, drawn[:: max(1, len(drawn) // BATCHES)])
    if len(rows) < FEWEST:
        raise NotApplicable(f"the targets of {len(rows)} batches are known; their order needs {FEWEST}")
    together = torch.cat(rows)
    sizes = [len(r) for r in rows]
    generator = torch.Generator().manual_seed(0)
    mixed = [between(together[torch.randperm(len(together), generator=generator)], sizes) for _ in range(PERMUTATIONS)]
    mean = sum(mixed) / len(mixed)
    return Order(len(rows), len(together), between(together, sizes), mean, max(mixed), sequential)


def between(rows: Tensor, sizes: Sequence[int]) -> float:
    """η²: share of the rows' variance that lies between consecutive groups of these sizes."""
    centred = rows - rows.mean(0)
    total = float(centred.square().sum())
    if total <= 0:
        return 0.0
    return sum(float(part.sum(0).square().sum()) / len(part) for part in centred.split(list(sizes))) / total


def _targets(problem: Problem, batches: Sequence[Batch]) -> list[Tensor]:
    """One row a sample and batch: its target's indicator vector (a mean over its tokens), or its values."""
    model = problem.twin().eval()
    found: list[Tensor] = []
    with torch.no_grad():
        for batch in batches:
            target = problem.evaluate(model, batch).target
            size = batch_size(batch)
            if isinstance(target, Tensor) and target.dim() and size > 1 and target.shape[0] % size == 0:
                found.append(target.detach().reshape(size, -1))
    if problem.criterion.task == "classes" and found:
        classes = int(max(t.max() for t in found)) + 1
        return [F.one_hot(t.clamp_min(0).long(), classes).double().mean(1) for t in found]
    return [t.double() for t in found]
