"""From what a script draws to what its loss takes: the calls between, recorded once, run again on other samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from torch import Tensor, nn

from unstuck.capture.seen import Origin
from unstuck.problem import Batch
from unstuck.tape import Linked, Step, tensors_in


def preparation(origin: Origin, sources: Collection[int]) -> Callable[[Mapping[int, Tensor]], Batch]:
    """The calls from the sources to the leaves, as a function of the sources; leaves that do not descend are held.

    Raises ValueError where none descends, or where one with a row for each sample is of unknown making: it would
    be held beside other samples, labels beside other inputs.
    """
    linked = origin.linked
    moving = set(sources)
    for index in range(len(linked.calls)):
        if moving.intersection(linked.reads(index)) and not set(linked.writes[index]) & set(sources):
            moving.update(linked.writes[index])
    wanted = {n for n in linked.upstream(origin.numbers) if n in moving and n not in sources}
    steps = [
        Step(call.function, None, linked.flats[i], linked.specs[i], linked.writes[i])
        for i, call in enumerate(linked.calls)
        if wanted.intersection(linked.writes[i]) and not isinstance(call.function, nn.Module)
    ]
    if not moving.intersection(origin.numbers):
        raise ValueError("no leaf descends from the source")
    if any(_of_unknown_samples(linked, n, sources) for n in origin.numbers if n not in moving):
        raise ValueError("a leaf with a row for each sample is of unknown making")
    fixed = dict(enumerate(linked.tensors))

    def prepare(values: Mapping[int, Tensor]) -> Batch:
        held = {**fixed, **values}
        for step in steps:
            step.run(nn.Identity(), held)
        return tuple(held[n].detach().clone() for n in origin.numbers)

    return prepare


def _of_unknown_samples(linked: Linked, leaf: int, sources: Collection[int]) -> bool:
    """True if the leaf, or what it was made of, has a row for each sample and comes from outside of the record."""
    sizes = {linked.tensors[n].shape[:1] for n in sources}
    outside = [n for n in linked.upstream((leaf,)) if n not in linked.producer]
    one_each = linked.tensors[leaf].shape[:1] in sizes
    return bool(outside) and (one_each or any(linked.tensors[n].shape[:1] in sizes for n in outside))


def touches_loader(origin: Origin) -> bool:
    """True if a leaf descends from the batch that the loader drew last."""
    numbers = {origin.linked.number(t) for t in tensors_in(origin.batch)}
    ids = {id(t) for t in tensors_in(origin.batch)}
    return any(n in numbers or id(origin.linked.tensors[n]) in ids for n in origin.linked.upstream(origin.numbers))
