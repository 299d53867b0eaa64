"""More of the script's own data: the same samples drawn again, and what it validates on.

Drawn again, in another order, a sample shows what is random about it: noise and augmentation in its input, or a label
that depends on the batch it stands in. Validation batches come from a loader that fed no backward pass, or from
evaluation-mode calls as they were recorded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset

from unstuck.capture.preparation import preparation, touches_loader
from unstuck.capture.seen import Form, Origin, Seen
from unstuck.capture.selections import samples_of
from unstuck.problem import Batch
from unstuck.recorder import Call, name_of
from unstuck.rows import Rows
from unstuck.tape import Linked, Tape, cut, tensors_in

SAMPLES = 1024
DRAWS = 16
DRAW_S = 4.0
VALIDATION_SAMPLES = 1000
VALIDATION_S = 2.0


def redraws(form: Form, size: int) -> tuple[tuple[Batch, ...], ...]:
    """The same samples up to `DRAWS` times, batches of the same rows in the same order; () if nothing is random."""
    origin = form.origin
    if origin is None or size < 1:
        return ()
    try:
        source = _loaded if isinstance(origin.loader, DataLoader) and touches_loader(origin) else _indexed
        first, start = source(origin, size, 0), time.perf_counter()
        second = source(origin, size, 1)
        cost = time.perf_counter() - start
        if not first or _same(first, second):
            return ()
        more = max(1, min(DRAWS - 2, int(DRAW_S / max(cost, 1e-3))))
        return (first, second, *(source(origin, size, draw) for draw in range(2, 2 + more)))
    except Exception:  # the user's data set and collate function may raise anything
        return ()


def _same(first: tuple[Batch, ...], second: tuple[Batch, ...]) -> bool:
    return all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def _loaded(origin: Origin, size: int, draw: int) -> tuple[Batch, ...]:
    """One draw of the first samples of a fixed random choice, fetched in an order of its own, put back in place."""
    dataset = origin.loader.dataset
    if isinstance(dataset, IterableDataset):
        return ()
    count = min(SAMPLES, len(dataset)) // size * size
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    order = _order(count, draw)
    prepared = list(_prepared(origin, Subset(dataset, chosen[order].tolist()), size, SAMPLES, DRAW_S))
    return _in_place(prepared, order, size)


def _indexed(origin: Origin, size: int, draw: int) -> tuple[Batch, ...]:
    samples = samples_of(origin, size)
    if samples is None:
        return ()
    count = min(SAMPLES, len(samples)) // size * size
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:count]
    order = _order(count, draw)
    prepare = preparation(origin, [cut.number for cut in samples.cuts])
    batches = [prepare(samples.take(chunk)) for chunk in chosen[order].split(size)]
    return _in_place(batches, order, size)


def _order(count: int, draw: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(draw)) if draw else torch.arange(count)


def _in_place(batches: list[Batch], order: Tensor, size: int) -> tuple[Batch, ...]:
    rows = Rows.of(batches, size) if batches else None
    if rows is None or len(rows) != len(order):
        return ()
    return rows.batches(order.argsort())


def _prepared(origin: Origin, dataset: Any, size: int, samples: int, seconds: float) -> Iterator[Batch]:
    """Batches of a data set, made as the script makes its training batches."""
    ids = [id(t) for t in tensors_in(origin.batch)]
    sources = {n: ids.index(id(t)) for n, t in enumerate(origin.linked.tensors) if id(t) in ids}
    prepare = preparation(origin, sources)
    start, count = time.perf_counter(), 0
    for batch in DataLoader(dataset, batch_size=size, collate_fn=origin.loader.collate_fn, drop_last=True):
        drawn = tensors_in(batch)
        if len(drawn) != len(ids):
            return
        yield prepare({n: drawn[place] for n, place in sources.items()})
        count += size
        if count >= samples or time.perf_counter() - start > seconds:
            return


def validation(seen: Seen, form: Form, size: int) -> tuple[Batch, ...]:
    """Batches that the script validates on; () where none were seen."""
    try:
        return _held_loader(seen, form, size) or _distinct(_recorded(seen, form))
    except Exception:  # the user's data set and collate function may raise anything
        return ()


def _distinct(batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """Each batch once: every recorded pass over the same validation data brings it again."""
    found: list[Batch] = []
    for batch in batches:
        if not any(all(map(torch.equal, batch, known)) for known in found):
            found.append(batch)
    return tuple(found)


def _held_loader(seen: Seen, form: Form, size: int) -> tuple[Batch, ...]:
    origin = form.origin
    if origin is None or not isinstance(origin.loader, DataLoader) or not touches_loader(origin):
        return ()
    trained = {id(loader.dataset) for key, (loader, _) in seen.loaders.items() if key in seen.train_loaders}
    for key, (loader, _) in seen.loaders.items():
        if key in seen.train_loaders or id(loader.dataset) in trained or isinstance(loader.dataset, IterableDataset):
            continue
        count = len(loader.dataset)
        chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:VALIDATION_SAMPLES]
        subset = Subset(loader.dataset, chosen.tolist())
        found = tuple(_prepared(origin, subset, min(size, count), VALIDATION_SAMPLES, VALIDATION_S))
        if found:
            return found
    return ()


def _recorded(seen: Seen, form: Form) -> tuple[Batch, ...]:
    """From evaluations as recorded: the loss's leaves where it is the training's loss, else input and labels."""
    found: list[Batch] = []
    for calls in seen.validation:
        found += _by_loss(calls, seen, form) or _by_labels(calls, form)
    return tuple(found)


def _by_loss(calls: list[Call], seen: Seen, form: Form) -> list[Batch]:
    found = []
    owner = {id(m): str(id(m)) for m in form.roots}
    names = {i: str(i) for i, (t, _) in seen.initial.items() if isinstance(t, nn.Parameter)}
    shape, places = _canonical(form.tape)
    for index, call in enumerate(calls):
        value = call.output
        if not isinstance(value, Tensor) or value.numel() != 1 or value.requires_grad or not value.is_floating_point():
            continue
        if isinstance(call.function, nn.Module) or name_of(call.function) != form.tape.steps[-1].name:
            continue
        tape, _, linked = cut(calls[: index + 1], value, owner, names)
        other, theirs = _canonical(tape)
        if other == shape:
            found.append(_leaves(form, places, theirs, linked))
    return found


def _canonical(tape: Tape) -> tuple[list[tuple[Any, ...]], dict[int, int]]:
    """The steps with tensors numbered by first appearance (records that begin elsewhere agree), and that numbering."""
    numbers: dict[int, int] = {}
    steps = []
    for step in tape.steps:
        entry = [numbers.setdefault(n, len(numbers)) for n in (*step.reads, *step.writes)]
        steps.append((step.name, *entry))
    return steps, numbers


def _leaves(form: Form, places: dict[int, int], theirs: dict[int, int], linked: Linked) -> Batch:
    back = {place: number for number, place in theirs.items()}
    return tuple(linked.tensors[back[places[n]]].detach().clone() for n in form.tape.leaves)


def _by_labels(calls: list[Call], form: Form) -> list[Batch]:
    """Input of each evaluation call of the model, with the integers its prediction was compared to (`==`)."""
    found: list[Batch] = []
    entered: Tensor | None = None
    for call in calls:
        if isinstance(call.function, nn.Module):
            inputs = tensors_in((call.args, call.kwargs))
            entered = inputs[0] if len(inputs) == 1 else None
        elif entered is not None and name_of(call.function) in {"eq", "__eq__"}:
            labels = [t for t in tensors_in(call.args) if not t.is_floating_point() and len(t) == len(entered)]
            batch = _matched(form, entered, labels[-1]) if labels else None
            if batch is not None:
                found.append(batch)
            entered = None
    return found


def _matched(form: Form, entered: Tensor, labels: Tensor) -> Batch | None:
    """A batch where exactly one leaf looks like the input and one like the labels."""
    given, wanted = (
        [
            i
            for i, leaf in enumerate(form.leaves)
            if leaf.dtype == t.dtype and leaf.dim() and leaf.shape[1:] == t.shape[1:]
        ]
        for t in (entered, labels)
    )
    if len(form.leaves) != 2 or len(given) != 1 or len(wanted) != 1 or given == wanted:
        return None
    pair = {given[0]: entered, wanted[0]: labels}
    return tuple(pair[i].detach().clone() for i in range(2))
