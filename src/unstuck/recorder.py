"""The recorder of torch calls: each call with its arguments, what it gave, and the user's line that made it.

While a `Recorder` is active it keeps every torch call in order (`calls`); what makes no tensor is left out (`SILENT`).
A module call that is not looked into is one `Call` too, with the module as its function. `site` finds the line: the
nearest caller outside torch and this package, or, where a tape replays a step, the line the step was recorded at.

    with Recorder() as recorder:
        loss = F.mse_loss(F.relu(x), y)
    [name_of(call.function) for call in recorder.calls]      # relu, mse_loss

Costs one or two microseconds a torch call while recording, nothing when not.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

SILENT = frozenset(
    {"size", "dim", "numel", "stride", "item", "is_floating_point", "is_complex", "is_contiguous", "data_ptr", "shape",
     "ndim", "dtype", "device", "is_leaf", "is_cuda", "is_sparse", "requires_grad", "grad_fn", "__len__", "__bool__",
     "__float__", "__int__", "__format__", "__repr__"}
)  # fmt: skip
"""Calls that make no tensor; never recorded. All calls of a name are, or none: a call's key counts those before it."""


def name_of(function: Any) -> str:
    """The plain name of a torch function, method or property: `relu`, `cross_entropy`, `data`."""
    name = str(getattr(function, "__name__", None) or type(function).__name__)
    if name in {"__get__", "__set__"}:
        return str(getattr(getattr(function, "__self__", None), "__name__", name))
    return name


def site(depth: int = 2) -> str:
    """`file:line` of the nearest caller outside torch and this package ('' where there is none)."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        path, name = frame.f_code.co_filename, frame.f_code.co_name
        if not path.startswith(INTERNAL):
            return f"{path}:{frame.f_lineno}"
        if path == TAPE and name == "run":
            return str(frame.f_locals["self"].site)  # a replay: the line that the step was recorded at
        frame = frame.f_back
    return ""


INTERNAL = (torch.__path__[0], __file__.rsplit("/", 1)[0], "<frozen", "<string")
"""Files whose frames are not the user's: torch's and ours."""
TAPE = __file__.rsplit("/", 1)[0] + "/tape.py"
"""The file whose function `run` replays a step."""


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call: a torch function, or an opaque module call (then `function` is the module)."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    site: str = ""
    path: str = ""
    grad: bool = True
    """False where gradients were switched off (`torch.no_grad`)."""


class Recorder(TorchFunctionMode):
    """Keeps every torch call made while it is active, in order (`calls`)."""

    def __init__(self, limit: int = 20_000) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.limit = limit
        self.overflow = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the call and keep it."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if name_of(func) in SILENT or (func.__class__.__name__ == "method-wrapper" and not isinstance(output, Tensor)):
            return output
        if len(self.calls) < self.limit:
            self.calls.append(Call(func, args, kwargs, output, site(2), "", torch.is_grad_enabled()))
        else:
            self.overflow = True
        return output
