"""One evaluation of the loss, every torch call inside it seen: what ran, in which module, on what, giving what.

    seen = trace(problem, problem.twin(last=True), problem.data[0])
    [call.name for call in seen.calls]        # ['linear', 'relu', 'linear', 'softmax', 'cross_entropy']

Costs one forward pass plus a few microseconds a call, on a copy. Calls inside one fused function (an LSTM's cell,
`multi_head_attention_forward`) are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from unstuck.problem import Batch, Problem
from unstuck.recorder import Call, Recorder, name_of
from unstuck.rewriting import CallKey
from unstuck.tape import Linked, link, tensors_in


@dataclass(frozen=True)
class Seen:
    """One torch call of a forward pass: its key (name, ordinal), the module it ran in, arguments and result."""

    index: int
    key: CallKey
    path: str
    module: str
    site: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def name(self) -> str:
        """The torch function's plain name."""
        return self.key[0]

    @property
    def where(self) -> str:
        """The module's path and class (`fc1 (Linear)`), or the line of the script."""
        if self.path:
            return f"{self.path} ({self.module})"
        return self.site.rsplit("/", 1)[-1] or self.name


@dataclass(frozen=True)
class Trace:
    """The calls of one forward pass in order, their wiring, and the loss they gave."""

    calls: tuple[Seen, ...]
    linked: Linked
    loss: Tensor
    parameters: frozenset[int]

    @cached_property
    def alive(self) -> frozenset[int]:
        """Numbers of the tensors that descend from a parameter (through any call, detach included)."""
        alive: set[int] = set()
        for call in self.calls:
            reads, writes = self.linked.reads(call.index), self.linked.writes[call.index]
            born = [n in alive or id(self.linked.tensors[n]) in self.parameters for n in reads]
            if call.name == "broadcast_tensors":  # one result for each argument, none of the other's blood
                alive.update(n for n, lives in zip(writes, born, strict=False) if lives)
            elif any(born):
                alive.update(writes)
        return frozenset(alive)

    @cached_property
    def ancestors(self) -> tuple[Seen, ...]:
        """Calls that the loss descends from, in order."""
        number = self.linked.number(self.loss)
        return self.above(number) if number is not None else ()

    def above(self, number: int) -> tuple[Seen, ...]:
        """Calls that the tensor numbered `number` descends from, in order."""
        wanted, found = {number}, []
        for call in reversed(self.calls):
            if wanted.intersection(self.linked.writes[call.index]):
                found.append(call)
                wanted.update(self.linked.reads(call.index))
        return tuple(reversed(found))

    def maker(self, tensor: Any) -> Seen | None:
        """The last call that made this tensor; None for a leaf."""
        number = self.linked.number(tensor) if isinstance(tensor, Tensor) else None
        index = self.linked.producer.get(number) if number is not None else None
        return self.calls[index] if index is not None else None

    def below(self, call: Seen, tensor: Any) -> Seen | None:
        """The call that made this argument as `call` took it; None for a leaf.

        Unlike `maker` it goes strictly backwards where calls hand on the very tensor they got (`x.contiguous()`).
        """
        reads = self.linked.reads(call.index)
        number = next((n for n in reads if self.linked.tensors[n] is tensor), None)
        index = self.linked.producer.get(number) if number is not None else None
        return self.calls[index] if index is not None else None

    def lives(self, tensor: Any) -> bool:
        """True if the tensor descends from a parameter."""
        return isinstance(tensor, Tensor) and self.linked.number(tensor) in self.alive

    def readers(self, call: Seen) -> tuple[Seen, ...]:
        """Calls that take what `call` made."""
        found = {index for number in self.linked.writes[call.index] for index in self._taken.get(number, ())}
        return tuple(self.calls[index] for index in sorted(found))

    @cached_property
    def _taken(self) -> dict[int, list[int]]:
        """Of each tensor's number the calls that take it."""
        taken: dict[int, list[int]] = {}
        for call in self.calls:
            for number in self.linked.reads(call.index):
                taken.setdefault(number, []).append(call.index)
        return taken


def trace(problem: Problem, model: nn.Module, batch: Batch) -> Trace:
    """Evaluate the loss of `model` on `batch` with every torch call recorded. One forward pass."""
    with _stack(model) as path:
        recorder = _Placing(path)
        with recorder:
            loss = problem.value(model, batch)
    return _traced(recorder.calls, loss, model)


def _traced(calls: list[Call], loss: Tensor, model: nn.Module) -> Trace:
    counts: dict[str, int] = {}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    seen = []
    for index, call in enumerate(calls):
        name = name_of(call.function)
        key = (name, counts.get(name, 0))
        counts[name] = key[1] + 1
        kind = kinds.get(call.path, "")
        seen.append(Seen(index, key, call.path, kind, call.site, call.args, call.kwargs, call.output))
    return Trace(tuple(seen), link(calls), loss, frozenset(id(p) for p in model.parameters()))


class _Placing(Recorder):
    """A recorder that also keeps in which module each call ran."""

    def __init__(self, path: list[str]) -> None:
        super().__init__()
        self.stack = path

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.calls)
        output = super().__torch_function__(func, types, args, kwargs)
        if len(self.calls) > before:
            call = self.calls[-1]
            self.calls[-1] = Call(call.function, call.args, call.kwargs, output, call.site, self.stack[-1], call.grad)
        return output


@contextmanager
def _stack(model: nn.Module) -> Iterator[list[str]]:
    path = [""]
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda m, a, name=name: path.append(name)))
        handles.append(module.register_forward_hook(lambda m, a, o: (path.pop(), None)[1], always_call=True))
    try:
        yield path
    finally:
        for handle in handles:
            handle.remove()


def figures_of(tensor: Any) -> Tensor | None:
    """The first floating tensor in a call's output, detached; None where there is none."""
    floating = [t for t in tensors_in(tensor) if t.is_floating_point()]
    return floating[0].detach() if floating else None
