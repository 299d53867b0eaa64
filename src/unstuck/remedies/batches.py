"""Other batches of the same samples: mixed, or larger. Made from training batches alone, never held-out ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from unstuck.errors import BadArgument
from unstuck.problem import Problem, samples_a_batch, script_batch, training_rows
from unstuck.remedies.remedy import Remedy


def shuffle() -> Remedy:
    """The samples are mixed, and batches come in random order."""
    return Remedy(
        "shuffle",
        "mix the samples before batches are made",
        "DataLoader(dataset, batch_size=…, shuffle=True)  # or indices from torch.randperm(len(x))",
        lambda p: rebatched(p, samples_a_batch(p)),
    )


def larger_batch(problem: Problem, size: int) -> Remedy:
    """Batches of `size` samples."""
    return Remedy(
        "larger-batch",
        f"train on batches of {size} samples (now {script_batch(problem)})",
        f"batch_size={size}",
        lambda p: rebatched(p, size),
    )


def smaller_batch(problem: Problem, size: int) -> Remedy:
    """Batches of `size` samples; in a race as many samples, and so the more updates."""
    present, own = samples_a_batch(problem), script_batch(problem)
    return Remedy(
        "smaller-batch",
        f"train on batches of {size} samples (now {own}): {own / size:.3g} updates for each one now",
        f"batch_size={size}",
        lambda p: rebatched(p, size),
        pace=present / size,
    )


def rebatched(problem: Problem, size: int) -> Problem:
    """The problem with its training samples mixed and in batches of `size`. Raises BadArgument where it has no rows."""
    rows = training_rows(problem)
    if rows is None or len(rows) < 2 * size:
        raise BadArgument(f"rebatched: there are not {2 * size} samples that could be batched anew")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))
    kept = replace(problem.rows, ordered=False, batch=size) if problem.rows is not None else None
    loop = replace(problem.loop, batch_size=size)
    return replace(problem, data=rows.batches(order, size), rows=kept, loop=loop)
