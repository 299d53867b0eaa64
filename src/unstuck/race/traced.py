"""A stack's forward and backward as a plain list of operations: what vmap and autograd cost in Python is paid once.

    traced = Traced(gradients)             # gradients(tensors) -> tensors, nested lists and tuples
    traced(tensors)                        # the same values

The first call with tensors of these shapes records the operations it makes (`make_fx`), every later one runs them: of a
small network's step about a third is saved. What depends on a tensor's content in Python (an `if`, an `.item()`) cannot
be recorded; what depends on anything else but the tensors would be replayed as it went the first time, so the first
`CHECKED` calls are made both ways, and where they differ nothing is recorded any more. To load what records takes a
second: not worth it for a short race.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

CHECKED = 3
"""Calls made both ways, for each shape."""


class Traced:
    """`function` of nested tensors, run from a record. Random numbers it draws it draws from torch's default generator:
    both ways draw the same."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.refused = ""
        self._records: dict[Hashable, Any] = {}
        self._left: dict[Hashable, int] = {}

    def __call__(self, inputs: Any) -> Any:
        """The function's value."""
        if self.refused:
            return self.function(inputs)
        leaves = pytree.tree_leaves(inputs)
        key = tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves)
        if not self._left.get(key, 1):
            with torch.no_grad():
                return self._records[key](inputs)
        return self._checked(key, inputs)

    def _checked(self, key: Hashable, inputs: Any) -> Any:
        """The function's value, made both ways."""
        state = torch.get_rng_state()
        if key not in self._records:
            self._record(key, inputs)
            torch.set_rng_state(state)
        right = self.function(inputs)
        if self.refused:
            return right
        torch.set_rng_state(state)
        with torch.no_grad():
            found = self._records[key](inputs)
        self._left[key] -= 1
        if not _same(found, right):
            self.refused = "what was recorded of one batch does not hold for another"
        return right

    def _record(self, key: Hashable, inputs: Any) -> None:
        from torch.fx.experimental.proxy_tensor import make_fx

        try:
            self._records[key], self._left[key] = make_fx(lambda given: self.function(given))(inputs), CHECKED
        except Exception as error:  # whatever cannot be recorded goes on as before
            self.refused = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"


def _same(found: Any, right: Any) -> bool:
    pairs = zip(pytree.tree_leaves(found), pytree.tree_leaves(right), strict=True)
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True) for a, b in pairs)
