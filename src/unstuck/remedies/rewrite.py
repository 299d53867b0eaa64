"""Changes to single torch calls of the loss: leave one out, or put another in its place.

A call is named by its key (function, ordinal), as a trace shows it. Works wherever the call stands: in the loop, in a
module's forward, or as a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.rewriting import CallKey, Rewrite


def leave_out(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call's first argument, unchanged."""
    return args[0] if args else kwargs["input"]


def instead(other: Callable[[Tensor], Any]) -> Rewrite:
    """A rewrite that calls `other` on the first argument."""
    return lambda function, args, kwargs: other(leave_out(function, args, kwargs))


def rewritten(problem: Problem, rewrites: Mapping[CallKey, Rewrite]) -> Problem:
    """The problem with these calls replaced (on top of those already replaced)."""
    return replace(problem, rewrites={**problem.rewrites, **rewrites})


def drop_call(key: CallKey, id: str, text: str, code: str) -> Remedy:
    """A remedy that leaves one call out."""
    return Remedy(id, text, code, lambda problem: rewritten(problem, {key: leave_out}))
