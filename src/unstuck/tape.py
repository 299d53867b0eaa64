"""A loss as a tape: the torch calls that made it, replayable on another copy of the model.

A `Recorder` has kept every torch call in order. `link` gives each tensor that passed through a number; `cut` keeps
what the loss descends from *and* what descends from a module call or a parameter. Everything else the loss needs
(inputs, targets, noise, indices) is a *leaf*: a constant of that batch. A `Tape` is then a function of a model and a
batch's leaves.

    with Recorder() as recorder:
        loss = F.mse_loss(model(x), y)
    tape, leaves = cut(recorder.calls, loss, owner={id(model): ""}, names={})
    tape(copy_of_model, leaves)      # the same loss, on the copy

A tape can be wrong where Python values taken from tensors (`.item()`, shapes) steer the computation: so it must
reproduce the recorded loss before it is believed (`capture.assemble`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from unstuck.errors import NotReplayable
from unstuck.recorder import Call, name_of

MUTATING = frozenset({"__setitem__", "copy_"})
"""Calls that change their first argument, whatever they return."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for the tensor with this number in a step's arguments."""

    number: int


@dataclass(frozen=True)
class Step:
    """One step of a tape: the function (or the dotted path of a module), arguments with slots, numbers written."""

    function: Callable[..., Any] | None
    module: str | None
    flat: tuple[Any, ...]
    spec: Any
    writes: tuple[int, ...]
    site: str = ""
    grad: bool = True

    @property
    def name(self) -> str:
        """The function's name, or the module's path."""
        return name_of(self.function) if self.module is None else f"module {self.module}"

    @property
    def reads(self) -> tuple[int, ...]:
        """Numbers of the tensors this step takes."""
        return tuple(item.number for item in self.flat if isinstance(item, Slot))

    def run(self, model: nn.Module, values: dict[int, Tensor]) -> None:
        """Execute on `values`, and write what comes out there."""
        flat = [values[item.number] if type(item) is Slot else item for item in self.flat]
        args, kwargs = pytree.tree_unflatten(flat, self.spec)
        function = self.function if self.module is None else model.get_submodule(self.module)
        if self.grad:
            output = function(*args, **kwargs)  # type: ignore[misc]
        else:
            with torch.no_grad():
                output = function(*args, **kwargs)  # type: ignore[misc]
        if self.module is None and name_of(self.function) in MUTATING:
            output = args[0]
        # Not strict: an object may have come to hold more tensors (a distribution's `probs`) after it was returned.
        for number, tensor in zip(self.writes, tensors_in(output), strict=False):
            values[number] = tensor


@dataclass(frozen=True)
class Tape:
    """The steps from a batch's leaves (numbers in `leaves`) to the loss; `parameters` are loose ones, by name."""

    steps: tuple[Step, ...]
    leaves: tuple[int, ...]
    parameters: tuple[tuple[int, str], ...]
    loss: int
    touched: frozenset[int] = frozenset()

    def __call__(self, model: nn.Module, leaves: Sequence[Tensor]) -> Tensor:
        """The loss of `model` on a batch given by its leaves."""
        return self.values(model, leaves)[self.loss]

    def values(self, model: nn.Module, leaves: Sequence[Tensor]) -> dict[int, Tensor]:
        """Every tensor of the replay, by number."""
        values = {
            number: leaf.clone() if number in self.touched else leaf
            for number, leaf in zip(self.leaves, leaves, strict=True)
        }
        for number, name in self.parameters:
            values[number] = _at(model, name)
        for step in self.steps:
            step.run(model, values)
        return values

    def same_form(self, other: Tape) -> bool:
        """True if both tapes run the same functions with the same wiring (constants may differ)."""
        return len(self.leaves) == len(other.leaves) and [(s.name, s.writes, s.reads) for s in self.steps] == [
            (s.name, s.writes, s.reads) for s in other.steps
        ]


def _at(model: nn.Module, name: str) -> Tensor:
    """The parameter of this name, or what stands in its place while `functional_call` swaps it."""
    return functools.reduce(getattr, name.split("."), model)  # type: ignore[arg-type, return-value]


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists, dicts and registered containers, in order, and those that plain objects in
    them (a distribution) hold as attributes."""
    if isinstance(tree, Tensor):
        return [tree]
    return [tensor for leaf in pytree.tree_leaves(tree) for tensor in _held(leaf, DEPTH)]


def _held(leaf: Any, depth: int) -> list[Tensor]:
    if isinstance(leaf, Tensor):
        return [leaf]
    if type(leaf) in ATOMS or isinstance(leaf, OPAQUE) or not depth or not hasattr(leaf, "__dict__"):
        return []
    return [tensor for value in vars(leaf).values() for tensor in _held(value, depth - 1)]


DEPTH = 3
OPAQUE = (nn.Module, type, FunctionType, ModuleType, torch.optim.Optimizer)
"""Objects whose tensors are their own affair."""


def _flatten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any]:
    """`pytree.tree_flatten((args, kwargs))`; fourteen times faster where nothing is nested, as in most calls."""
    if all(type(item) in ATOMS for item in args) and all(type(item) in ATOMS for item in kwargs.values()):
        return [*args, *kwargs.values()], _unnested(len(args), tuple(kwargs))
    return pytree.tree_flatten((args, kwargs))


@functools.cache
def _unnested(count: int, keys: tuple[str, ...]) -> Any:
    return pytree.tree_structure(((0,) * count, dict.fromkeys(keys, 0)))


ATOMS = frozenset({Tensor, nn.Parameter, int, float, bool, str, type(None), slice, torch.dtype, torch.device})
"""Types of which pytree makes no container."""


@dataclass(frozen=True)
class Linked:
    """Recorded calls with numbers for tensors: `reads[i]`, `writes[i]` of call i; `first[n]` the tensor numbered n."""

    calls: tuple[Call, ...]
    flats: tuple[tuple[Any, ...], ...]
    specs: tuple[Any, ...]
    writes: tuple[tuple[int, ...], ...]
    tensors: tuple[Tensor, ...]
    producer: Mapping[int, int]
    final: Mapping[int, int]

    def reads(self, index: int) -> tuple[int, ...]:
        """Numbers of the tensors that call `index` takes."""
        return tuple(item.number for item in self.flats[index] if isinstance(item, Slot))

    def number(self, tensor: Tensor) -> int | None:
        """The number of a tensor after the last call that wrote it; None if no call saw it."""
        return self.final.get(id(tensor))

    def upstream(self, numbers: Iterable[int]) -> set[int]:
        """These tensors and all that they were made of."""
        open_ = list(numbers)
        found = set(open_)
        while open_:
            index = self.producer.get(open_.pop())
            for number in self.reads(index) if index is not None else ():
                if number not in found:
                    found.add(number)
                    open_.append(number)
        return found


def link(calls: Iterable[Call]) -> Linked:
    """Number every tensor that passed through `calls`; a tensor changed in place gets a new number."""
    calls = tuple(calls)
    current: dict[int, int] = {}
    tensors: list[Tensor] = []
    producer: dict[int, int] = {}
    flats, specs, writes = [], [], []

    def new(tensor: Tensor) -> int:
        tensors.append(tensor)
        current[id(tensor)] = len(tensors) - 1
        return len(tensors) - 1

    for index, call in enumerate(calls):
        flat, spec = _flatten(call.args, call.kwargs)
        numbers = tuple(
            Slot(current[id(item)] if id(item) in current else new(item)) if isinstance(item, Tensor) else item
            for item in flat
        )
        output = call.args[0] if name_of(call.function) in MUTATING else call.output
        wrote = tuple(new(tensor) for tensor in tensors_in(output))
        producer.update(dict.fromkeys(wrote, index))
        flats.append(numbers)
        specs.append(spec)
        writes.append(wrote)
    return Linked(calls, tuple(flats), tuple(specs), tuple(writes), tuple(tensors), producer, current)


def cut(
    calls: Iterable[Call], loss: Tensor, owner: Mapping[int, str], names: Mapping[int, str]
) -> tuple[Tape, tuple[int, ...], Linked]:
    """The tape of `loss`; `owner`: id of each opaque module → its path, `names`: id of each parameter → its name.

    Returns the tape, the numbers of its leaves, and the linked record (whose `tensors[number]` are the leaves).
    Raises NotReplayable where the loss does not descend from a module or parameter that is known, or where a tensor
    with a graph of its own came from outside the record (a custom autograd function called outside of modules).
    """
    linked = link(calls)
    target = linked.number(loss)
    if target is None:
        raise NotReplayable("the loss was not made by a recorded torch call")
    alive = descends(linked, names)
    if target not in alive:
        raise NotReplayable("the loss does not descend from a call of the model")
    steps, leaves, parameters = _collect(linked, target, alive, owner, names)
    touched = frozenset(n for step in steps if _in_place(step) for n in step.reads[:1] if n in leaves)
    tape = Tape(tuple(steps), tuple(leaves), tuple(parameters.items()), target, touched)
    return tape, tuple(leaves), linked


def descends(linked: Linked, names: Mapping[int, str]) -> set[int]:
    """Numbers of the tensors that descend from a module call or a named parameter."""
    alive: set[int] = set()
    for index, call in enumerate(linked.calls):
        reads = linked.reads(index)
        born = isinstance(call.function, nn.Module) or any(id(linked.tensors[n]) in names for n in reads)
        if born or any(n in alive for n in reads):
            alive.update(linked.writes[index])
    return alive


def _collect(
    linked: Linked, target: int, alive: set[int], owner: Mapping[int, str], names: Mapping[int, str]
) -> tuple[list[Step], list[int], dict[int, str]]:
    needed, leaves, parameters, steps = {target}, [], {}, []
    for index in reversed(range(len(linked.calls))):
        if not needed.intersection(linked.writes[index]):
            continue
        for number in linked.reads(index):
            tensor = linked.tensors[number]
            if number in alive or _made_here_and_changed(linked, number):
                needed.add(number)
            elif id(tensor) in names:
                parameters[number] = names[id(tensor)]
            elif number not in leaves:
                _refuse_foreign_graph(tensor)
                leaves.append(number)
        steps.append(_step(linked, index, owner))
    return steps[::-1], sorted(leaves), parameters


def _made_here_and_changed(linked: Linked, number: int) -> bool:
    """A tensor such as `total = torch.zeros(2)` that is added to in place: its first value must be made again."""
    return number in linked.producer and linked.final[id(linked.tensors[number])] != number


def _step(linked: Linked, index: int, owner: Mapping[int, str]) -> Step:
    call = linked.calls[index]
    module = None
    if isinstance(call.function, nn.Module):
        if id(call.function) not in owner:
            raise NotReplayable(f"the module {type(call.function).__name__} could not be found in the copy")
        module = owner[id(call.function)]
    function = None if module is not None else call.function
    return Step(function, module, linked.flats[index], linked.specs[index], linked.writes[index], call.site, call.grad)


def _refuse_foreign_graph(tensor: Tensor) -> None:
    if tensor.grad_fn is not None:
        raise NotReplayable(
            f"a tensor made by {type(tensor.grad_fn).__name__} outside of recorded calls takes part in the loss"
        )


def _in_place(step: Step) -> bool:
    name = step.name
    return name in MUTATING or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
