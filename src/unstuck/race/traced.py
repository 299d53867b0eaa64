"""A stack's forward and backward as a plain list of operations: what vmap and autograd cost in Python is paid once.

    traced = Traced(gradients)             # gradients(tensors) -> tensors, nested lists, tuples and dicts
    traced(tensors)                        # the same values

The first call with tensors of these shapes records the operations it makes, every later one runs them: of a small
network's step two thirds are saved. What depends on a tensor's content in Python (an `if`, an `.item()`) cannot be
recorded; what depends on anything else but the tensors would be replayed as it went the first time, so the first
`CHECKED` calls are made both ways, and where they differ nothing is recorded any more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from unstuck.race.record import leaves, recorded

CHECKED = 3
"""Calls made both ways, for each shape."""


class _Record:
    """A replay, how often it is still to be checked, and the form of what it gives."""

    def __init__(self, function: Callable[[Any], Any], inputs: Any) -> None:
        self.replay, self.left, self.form = recorded(function, inputs), CHECKED, pytree.tree_structure(None)

    def __call__(self, flat: list[Any]) -> Any:
        with torch.no_grad():
            return pytree.tree_unflatten(self.replay(flat), self.form)


class Traced:
    """`function` of nested tensors, run from a record. Random numbers it draws it draws from torch's default generator:
    both ways draw the same."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.refused = ""
        self._records: dict[Hashable, _Record] = {}

    def __call__(self, inputs: Any) -> Any:
        """The function's value."""
        if self.refused:
            return self.function(inputs)
        flat = leaves(inputs)
        key = tuple((t.shape, t.stride(), t.dtype) if isinstance(t, Tensor) else repr(t) for t in flat)
        record = self._records.get(key)
        return record(flat) if record is not None and not record.left else self._checked(key, inputs, flat)

    def _checked(self, key: Hashable, inputs: Any, flat: list[Any]) -> Any:
        """The function's value, made both ways."""
        state = torch.get_rng_state()
        if key not in self._records:
            self._record(key, inputs)
            torch.set_rng_state(state)
        right = self.function(inputs)
        if self.refused:
            return right
        record, after = self._records[key], torch.get_rng_state()
        record.form = pytree.tree_structure(right)
        torch.set_rng_state(state)
        record.left -= 1
        try:
            held = _same(record(flat), right)
        except Exception:  # another batch's content may not even fit the operations
            held = False
        if not held:
            self.refused = "what was recorded of one batch does not hold for another"
            torch.set_rng_state(after)
        return right

    def _record(self, key: Hashable, inputs: Any) -> None:
        try:
            self._records[key] = _Record(self.function, inputs)
        except Exception as error:  # whatever cannot be recorded goes on as before
            self.refused = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"


def _same(found: Any, right: Any) -> bool:
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(right), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs)
