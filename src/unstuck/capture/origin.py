"""Where a batch came from, so that more can be drawn: a loader's data set, or rows of a tensor the script indexes.

The record of one step from its beginning shows how leaves were made: `x.view(len(x), -1)` of a loader's batch,
`X[idx]` of all the data. Those calls are run again on other samples. The rows found are believed only if the loss does
not change when a batch's samples are mixed (else a leaf's first dimension is not the batch).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset

from unstuck.capture.seen import Form, Origin
from unstuck.problem import Batch, Problem, batch_size, distinct
from unstuck.recorder import name_of
from unstuck.rows import Rows, most
from unstuck.tape import Linked, Step, tensors_in

DRAW_BYTES = 192 * 2**20
DRAW_S = 4.0
REPEATED = 1.5
"""Recorded draws per distinct sample from which these count as (nearly) all that the script trains on: of N samples,
1.5·N draws in whole epochs have met every one, 1.5·N independent draws 78 %."""
PART = 0.7
SELECTIONS = {"__getitem__", "index_select"}


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
    if isinstance(origin.loader, DataLoader) and _touches_loader(origin):
        return isinstance(getattr(origin.loader, "sampler", None), SequentialSampler)
    size = _samples(form)
    picked = [entry for entry in _selections(origin) if len(origin.linked.tensors[entry[0]]) == size]
    return bool(picked) and _together(picked) and _consecutive(picked[0][2])


def _consecutive(pick: Any) -> bool:
    if isinstance(pick, slice):
        return True
    index = torch.as_tensor(pick) if not isinstance(pick, Tensor) else pick
    return index.numel() > 1 and bool((index.diff() == 1).all())


def _redrawn(origin: Origin | None, size: int) -> list[Batch]:
    """Batches made by running the script's own preparation on other samples; empty where that is not possible."""
    if origin is None:
        return []
    try:
        if isinstance(origin.loader, DataLoader) and _touches_loader(origin):
            return _from_loader(origin, size)
        return _from_tensors(origin, size)
    except Exception:  # the user's data set and collate function may raise anything
        return []


def _touches_loader(origin: Origin) -> bool:
    numbers = {origin.linked.number(t) for t in tensors_in(origin.batch)}
    ids = {id(t) for t in tensors_in(origin.batch)}
    return any(n in numbers or id(origin.linked.tensors[n]) in ids for n in _upstream(origin.linked, origin.numbers))


def _upstream(linked: Linked, numbers: tuple[int, ...]) -> set[int]:
    found, open_ = set(numbers), list(numbers)
    while open_:
        index = linked.producer.get(open_.pop())
        for number in linked.reads(index) if index is not None else ():
            if number not in found:
                found.add(number)
                open_.append(number)
    return found


def _from_loader(origin: Origin, size: int) -> list[Batch]:
    ids = [id(t) for t in tensors_in(origin.batch)]
    sources = {n: ids.index(id(t)) for n, t in enumerate(origin.linked.tensors) if id(t) in ids}
    prepare = _preparation(origin, sources)
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


def _selections(origin: Origin) -> list[tuple[int, Tensor, Any]]:
    """Row selections `base[pick]` upstream of the leaves: number of what was selected, base, and pick."""
    linked, found, open_, known = origin.linked, [], list(origin.numbers), set(origin.numbers)
    while open_:
        number = open_.pop()
        index = linked.producer.get(number)
        if index is None:
            continue
        call = linked.calls[index]
        if name_of(call.function) in SELECTIONS:
            base, pick = call.args[0], call.args[-1]
            if _selects_rows(base, pick, call.output):
                found.append((number, base, pick))
                continue
        for read in linked.reads(index):
            if read not in known:
                known.add(read)
                open_.append(read)
    return found


def _together(picked: Sequence[tuple[int, Tensor, Any]]) -> bool:
    """True if the same rows were selected of every tensor: windows of a text, cut out one by one, are no rows."""
    first = picked[0][2] if picked else None
    return all(_same_rows(pick, first) for _, _, pick in picked)


def _same_rows(pick: Any, other: Any) -> bool:
    if isinstance(pick, slice) or isinstance(other, slice):
        return type(pick) is type(other) and bool(pick == other)
    one, two = torch.as_tensor(pick), torch.as_tensor(other)
    return one.shape == two.shape and bool((one == two).all())


def _selects_rows(base: Any, pick: Any, output: Any) -> bool:
    if not isinstance(base, Tensor) or not isinstance(output, Tensor) or base.dim() == 0 or output.dim() != base.dim():
        return False
    if isinstance(pick, Tensor):
        return pick.dim() == 1 and pick.dtype in (torch.int64, torch.int32) and output.shape[0] == len(pick)
    return isinstance(pick, (slice, list, np.ndarray))


def _from_tensors(origin: Origin, size: int) -> list[Batch]:
    picked = _selections(origin)
    counts = {len(base) for _, base, _ in picked}
    if len(counts) != 1 or any(origin.linked.tensors[n].shape[0] != size for n, _, _ in picked):
        return []
    if not _together(picked):
        return []
    count = counts.pop()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(count, generator=generator)[: most(size)].sort().values
    prepare = _preparation(origin, {n: 0 for n, _, _ in picked})
    batches: list[Batch] = []
    used = 0
    for chunk in order.split(size):
        if len(chunk) < size and batches:
            break
        leaves = prepare({n: base[chunk].detach() for n, base, _ in picked})
        used += sum(t.numel() * t.element_size() for t in leaves)
        batches.append(leaves)
        if used > DRAW_BYTES:
            break
    return batches


def _preparation(origin: Origin, sources: Mapping[int, int]) -> Callable[[Mapping[int, Tensor]], Batch]:
    """The calls from the sources to the leaves, as a function of the sources; leaves that do not descend are held.

    Raises ValueError where none descends, or where one with a row for each sample is of unknown making: it would
    be held beside other samples, labels beside other inputs.
    """
    linked = origin.linked
    moving = set(sources)
    for index in range(len(linked.calls)):
        if moving.intersection(linked.reads(index)) and not set(linked.writes[index]) & set(sources):
            moving.update(linked.writes[index])
    wanted = {n for n in _upstream(linked, origin.numbers) if n in moving and n not in sources}
    steps = [
        Step(call.function, None, linked.flats[i], linked.specs[i], linked.writes[i])
        for i, call in enumerate(linked.calls)
        if wanted.intersection(linked.writes[i]) and not isinstance(call.function, nn.Module)
    ]
    if not moving.intersection(origin.numbers):
        raise ValueError("no leaf descends from the source")
    sizes = {linked.tensors[n].shape[:1] for n in sources}
    held = _upstream(linked, tuple(n for n in origin.numbers if n not in moving))
    if any(n not in linked.producer and linked.tensors[n].shape[:1] in sizes for n in held):
        raise ValueError("a leaf with a row for each sample is of unknown making")
    fixed = dict(enumerate(linked.tensors))

    def prepare(values: Mapping[int, Tensor]) -> Batch:
        held = {**fixed, **values}
        for step in steps:
            step.run(nn.Identity(), held)
        return tuple(held[n].detach().clone() for n in origin.numbers)

    return prepare


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
