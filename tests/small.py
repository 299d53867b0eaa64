"""Small problems for the tests of what is achievable: labelled clouds, images of stripes, texts, autoencoders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from unstuck.criterion import prepared
from unstuck.probes.table import Table
from unstuck.problem import Problem
from unstuck.training import Training


def written(model: nn.Module, x: Tensor, y: Tensor, loss: nn.Module | None = None, size: int = 32, **fields) -> Problem:
    """A problem with Adam, its criterion found; the last quarter of the batches is held out."""
    data = list(zip(x.split(size), y.split(size), strict=True))
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    case = Problem(model, loss or nn.CrossEntropyLoss(), data, optimizer=adam)
    return replace(prepared(case), **fields)


def trained(case: Problem, steps: int) -> Problem:
    """The problem with the state after so many steps as its last, and states along the way."""
    run, snapshots = Training(case), []
    for check in range(1, 9):
        run.advance(steps * check // 8 - run.steps)
        snapshots.append((run.steps, {n: p.detach().clone() for n, p in run.model.named_parameters()}))
    loop = replace(case.loop, snapshots=tuple(snapshots[:-1]), steps=steps, losses=tuple(run.losses))
    return replace(case, last=snapshots[-1][1], loop=loop)


def clouds(rows: int = 800, classes: int = 4, columns: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes as directions in a few hidden factors that all columns share: correlated inputs, easy labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (rows,), generator=generator)
    centres = 3 * torch.randn(classes, 6, generator=torch.Generator().manual_seed(100))
    mixing = torch.randn(6, columns, generator=torch.Generator().manual_seed(101))
    factors = centres[y] + torch.randn(rows, 6, generator=generator)
    return factors @ mixing / 3 + 0.1 * torch.randn(rows, columns, generator=generator), y


def mlp(columns: int = 24, classes: int = 4, hidden: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(columns, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def table(x, y, kind: str = "rows", task: str = "classes", **fields) -> Table:
    """Inputs and targets as the table that a reference is fitted to."""
    return Table(np.asarray(x, float), np.asarray(y), task, kind, 2, (1,), len(y), **fields)
