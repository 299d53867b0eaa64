"""Calls of the loss, found again by key and replaced.

A loss makes the same torch calls in the same order at every evaluation. So a call is named by its function and its
ordinal among the calls of that name (`CallKey`): that finds it in a trace, shows what the criterion is given, and lets
a remedy put something else in its place, without a change to the user's code.

    with Rewriting({("mse_loss", 0): lambda f, args, kwargs: F.l1_loss(*args)}, watch=("mse_loss", 0)) as mode:
        value = loss(model, batch)
    output, target = mode.seen
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

from unstuck.recorder import name_of

CallKey = tuple[str, int]
"""A torch call of the loss: its function's name and its ordinal among the calls of that name."""
Rewrite = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""What to do instead of a call: receives the function, its arguments and keyword arguments."""


class Rewriting(TorchFunctionMode):
    """Replaces calls by key, and keeps the first two arguments of the call `watch` (`seen`)."""

    def __init__(self, rewrites: Mapping[CallKey, Rewrite], watch: CallKey | None = None) -> None:
        super().__init__()
        self.rewrites, self.watch = rewrites, watch
        self.seen: tuple[Any, Any] | None = None
        self._count: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call, or what stands in its place."""
        kwargs = kwargs or {}
        name = name_of(func)
        key = (name, self._count.get(name, 0))
        self._count[name] = key[1] + 1
        if key == self.watch:
            # A rewrite that changes the scale of what is compared says itself what a score should see.
            shown = getattr(self.rewrites.get(key), "operands", None)
            self.seen = shown(args, kwargs) if shown is not None else operands(args, kwargs, name)
        if key in self.rewrites:
            return self.rewrites[key](func, args, kwargs)
        return func(*args, **kwargs)


def operands(args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str = "") -> tuple[Any, Any]:
    """What a criterion compares: its first two arguments, by position or by name; of an indexing, base and index."""
    if name == "gather":
        return args[0], (args[2] if len(args) > 2 else kwargs.get("index"))
    if name == "__getitem__":
        index = args[1]
        return args[0], index[-1] if isinstance(index, tuple) else index
    first = args[0] if args else kwargs.get("input")
    second = args[1] if len(args) > 1 else kwargs.get("target", kwargs.get("other"))
    return first, second
