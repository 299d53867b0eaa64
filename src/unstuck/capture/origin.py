"""Where a batch came from, so that more can be drawn: a loader's data set, or rows and windows of the script's tensors.

The record of one step from its beginning shows how leaves were made: `x.view(len(x), -1)` of a loader's batch,
`X[idx]` of all the data. Those calls are run again on other samples. The rows found are believed only if the loss does
not change when a batch's samples are mixed (else a leaf's first dimension is not the batch).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from unstuck.capture.preparation import preparation, touches_loader
from unstuck.capture.seen import Form, Origin
from unstuck.capture.selections import samples_of
from unstuck.problem import Batch, Problem, batch_size, distinct
from unstuck.rows import Rows, most
from unstuck.tape import tensors_in

DRAW_BYTES = 192 * 2**20
DRAW_S = 4.0
REPEATED = 1.5
"""Recorded draws per distinct sample from which these count as (nearly) all that the script trains on: of N samples,
1.5·N draws in whole epochs have met every one, 1.5·N independent draws 78 %."""
PART = 0.7


def rows_of(problem: Problem, form: Form) -> tuple[Rows | None, str]:
    """As many rows as can be had within the bounds, or None and why. Draws nothing from the user's RNG streams."""
    size = _samples(form)
    ordered = _ordered(form)
    batches = _redrawn(form.origin, size) or distinct(problem.data)  # else a full batch would be held out of itself
    rows = _trained_on(Rows.of(list(problem.data), size, ordered), Rows.of(batches, size, ordered))
    if rows is None:
        return None, "the recorded batches have no common sample dimension"
    if not _mixes(problem, rows):
        return None, "samples of a batch cannot be exchanged without changing its loss"
    return rows, ""


def _trained_on(recorded: Rows | None, drawn: Rows | None) -> Rows | None:
    """The rows drawn; the distinct recorded ones where those repeat, and so show that the script trains on a part only
    of the tensor that it indexes (`x[train_index]`, the rest being for validation)."""
    if recorded is None or drawn is None:
        return drawn
    first = _distinct(recorded)
    if len(recorded) < REPEATED * len(first) or len(first) >= PART * len(_distinct(drawn)):
        return drawn
    return recorded.chosen(torch.tensor(sorted(first.values())))


def _distinct(rows: Rows) -> dict[bytes, int]:
    """The place where each sample first stands; equal ones are one."""
    first: dict[bytes, int] = {}
    for place, key in enumerate(rows.contents()):
        first.setdefault(key, place)
    return first


def _samples(form: Form) -> int:
    loader = form.origin.loader if form.origin else None
    size = getattr(loader, "batch_size", None)
    firsts = [leaf.shape[0] for leaf in form.leaves if isinstance(leaf, Tensor) and leaf.dim()]
    return size if size in firsts else batch_size(form.leaves)


def _ordered(form: Form) -> bool:
    """True if the script takes its samples in the order of the data set."""
    origin = form.origin
    if origin is None:
        return False
    if isinstance(origin.loader, DataLoader) and touches_loader(origin):
        return isinstance(getattr(origin.loader, "sampler", None), SequentialSampler)
    samples = samples_of(origin, _samples(form))
    return samples is not None and samples.ordered


def _redrawn(origin: Origin | None, size: int) -> list[Batch]:
    """Batches made by running the script's own preparation on other samples; empty where that is not possible."""
    if origin is None:
        return []
    try:
        if isinstance(origin.loader, DataLoader) and touches_loader(origin):
            return _from_loader(origin, size)
        return _from_tensors(origin, size)
    except Exception:  # the user's data set and collate function may raise anything
        return []


def _from_loader(origin: Origin, size: int) -> list[Batch]:
    ids = [id(t) for t in tensors_in(origin.batch)]
    sources = {n: ids.index(id(t)) for n, t in enumerate(origin.linked.tensors) if id(t) in ids}
    prepare = preparation(origin, sources)
    batches: list[Batch] = []
    start, used = time.perf_counter(), 0
    for batch in _fresh_loader(origin.loader, size):
        drawn = tensors_in(batch)
        if len(drawn) != len(ids):
            break
        leaves = prepare({n: drawn[place] for n, place in sources.items()})
        used += sum(t.numel() * t.element_size() for t in leaves)
        batches.append(leaves)
        if used > DRAW_BYTES or len(batches) * size >= most(size) or time.perf_counter() - start > DRAW_S:
            break
    return batches


def _fresh_loader(loader: DataLoader[Any], size: int) -> DataLoader[Any]:
    """A loader over a sample of the same data set, in its own order where the user's is sequential."""
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=size, collate_fn=loader.collate_fn)
    count = len(dataset)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(count, generator=generator)[: most(size)]
    if not isinstance(loader.sampler, RandomSampler):
        chosen = chosen.sort().values
    subset = Subset(dataset, chosen.tolist())
    return DataLoader(subset, batch_size=size, collate_fn=loader.collate_fn, drop_last=len(subset) > size)


def _from_tensors(origin: Origin, size: int) -> list[Batch]:
    samples = samples_of(origin, size)
    if samples is None:
        return []
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(samples), generator=generator)[: most(size)].sort().values
    prepare = preparation(origin, [cut.number for cut in samples.cuts])
    batches: list[Batch] = []
    start, used = time.perf_counter(), 0
    for chunk in order.split(size):
        if len(chunk) < size and batches:
            break
        leaves = prepare(samples.take(chunk))
        used += sum(t.numel() * t.element_size() for t in leaves)
        batches.append(leaves)
        if used > DRAW_BYTES or time.perf_counter() - start > DRAW_S:
            break
    return batches


def _mixes(problem: Problem, rows: Rows) -> bool:
    """True if mixing a batch's samples leaves its loss as it was (evaluation mode, one batch, two forward passes)."""
    model = problem.twin().eval()
    index = torch.arange(min(rows.batch, len(rows)))
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.manual_seed(0)
        plain = float(problem.value(model, rows.fetch(index)).float())
        torch.manual_seed(0)
        mixed = float(problem.value(model, rows.fetch(index[order])).float())
    return abs(plain - mixed) <= 1e-3 * max(abs(plain), 1e-6) or plain != plain
