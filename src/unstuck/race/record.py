"""What a function of tensors does, written down once as a list of operations and run from there.

    replay = recorded(function, tensors)   # tensors: nested lists, tuples and dicts of tensors
    replay(leaves(tensors))                # the leaves of what the function gives

A mode of torch's dispatcher sees the operations below autograd and vmap, on plain tensors. They become the lines of a
Python function, each tensor a local name that is let go after its last use: no `Module`, no graph, no batching rule is
met again. (`make_fx` records the same, but in ten times the time: it keeps a graph that can be rewritten.)

What cannot be written down raises RuntimeError. That a function did something else than operations on tensors is not
seen here: `traced` compares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from unstuck.race.kernels import called

Call = tuple[Any, tuple[Any, ...], dict[str, Any], Any]
READS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"}
"""Operations that give a tensor's content to Python."""


def leaves(nested: Any) -> list[Any]:
    """What the lists, tuples and dicts hold, in order (a tenth of the time that torch's `tree_leaves` takes)."""
    if isinstance(nested, (list, tuple)):
        return [leaf for part in nested for leaf in leaves(part)]
    return leaves(list(nested.values())) if isinstance(nested, dict) else [nested]


class _Listening(TorchDispatchMode):
    """Notes every operation with what it was given and what it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not isinstance(func, OpOverload):
            raise RuntimeError(f"{func} is no operation of torch's")
        if func._schema.name in READS:
            raise RuntimeError(f"{func._schema.name} depends on a tensor's content")
        given = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, given))
        return given


def recorded(function: Callable[[Any], Any], inputs: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """The function's operations on these inputs as a function of their leaves. Raises RuntimeError, or what the
    function raises."""
    listening = _Listening()
    with listening:
        found = function(inputs)
    return _Script(leaves(inputs), listening.calls, leaves(found)).compiled()


class _Script:
    """The source of a replay. Tensors are known by identity: `calls` keeps them all alive meanwhile."""

    def __init__(self, inputs: Sequence[Any], calls: Sequence[Call], outputs: Sequence[Any]) -> None:
        self.space: dict[str, Any] = {}
        self.names: dict[int, str] = {}
        self.storages = {_storage(t) for t in inputs if isinstance(t, Tensor)}
        for place, tensor in enumerate(inputs):
            if isinstance(tensor, Tensor):
                self.names.setdefault(id(tensor), f"i{place}")
        self.lines = [line for call in calls for line in self._line(call)]
        if not all(isinstance(t, Tensor) and id(t) in self.names for t in outputs):
            raise RuntimeError("no operation made what it gives")
        self.result = [self.names[id(tensor)] for tensor in outputs]
        self.taken = [f"i{place}" for place in range(len(inputs))]

    def compiled(self) -> Callable[[Sequence[Any]], list[Any]]:
        """The function: leaves of the inputs → leaves of what it gives."""
        body = "".join(f"    {line}\n" for line in self._living())
        head = f"    {', '.join(self.taken)}, = leaves\n" if self.taken else ""
        exec(f"def replay(leaves):\n{head}{body}    return [{', '.join(self.result)}]\n", self.space)
        return self.space["replay"]  # type: ignore[no-any-return]

    def _line(self, call: Call) -> Iterator[tuple[list[str], list[str], str, bool]]:
        """(names made, names used, source, whether it acts on what it is given) of one call; none for a view that is
        the whole."""
        func, args, kwargs, given = call
        acts = func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags
        if not acts and isinstance(given, Tensor) and self._alike(given, args):
            return
        used: list[str] = []
        said = [self._said(arg, used) for arg in args] + [f"{k}={self._said(v, used)}" for k, v in kwargs.items()]
        made = [self._made(tensor) for tensor in (given if isinstance(given, (list, tuple)) else [given])]
        left = f"{', '.join(made)}{',' if isinstance(given, (list, tuple)) else ''} = " if given is not None else ""
        yield made, used, f"{left}{self._constant(called(func, args))}({', '.join(said)})", acts

    def _alike(self, given: Tensor, args: Sequence[Any]) -> bool:
        """True if the first operand is the same piece of memory, seen in the same way: its name serves."""
        if not args or not isinstance(args[0], Tensor) or id(args[0]) not in self.names or not given.numel():
            return False
        first, seen = args[0], (given.data_ptr(), given.shape, given.stride(), given.dtype, given.is_conj())
        if seen != (first.data_ptr(), first.shape, first.stride(), first.dtype, first.is_conj()):
            return False
        self.names.setdefault(id(given), self.names[id(first)])
        return True

    def _made(self, tensor: Any) -> str:
        if not isinstance(tensor, Tensor):
            return "_"
        self.storages.add(_storage(tensor))
        return self.names.setdefault(id(tensor), f"t{len(self.names)}")

    def _said(self, value: Any, used: list[str]) -> str:
        """An argument in Python."""
        if isinstance(value, Tensor) and id(value) in self.names:
            used.append(self.names[id(value)])
            return used[-1]
        if isinstance(value, (list, tuple)):
            return f"[{', '.join(self._said(part, used) for part in value)}]"
        if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return repr(value)
        if isinstance(value, Tensor) and _storage(value) in self.storages:
            raise RuntimeError("no operation made one of its tensors")
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        name = f"c{len(self.space)}"
        self.space[name] = value
        return name

    def _living(self) -> list[str]:
        """The lines that anything depends on, each followed by the end of what is not used after it."""
        needed, body = set(self.result), []
        for made, used, source, acts in reversed(self.lines):
            if not acts and not needed & set(made):
                continue
            ended = sorted({*made, *used} - needed - set(self.taken) - {"_"})
            needed |= {*made, *used}
            body += [f"del {', '.join(ended)}"] if ended else []
            body.append(source)
        return body[::-1]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
