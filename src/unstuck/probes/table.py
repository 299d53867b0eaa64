"""The data as a table: what reaches the model, row by row, and what the criterion compares the output with.

    table = tabulate(problem, problem.data, limit=2000)
    table.inputs, table.targets          # [rows, columns], [rows] (classes) or [rows, values] (regression)

`kind` says what a row is: a sample (`rows`), a time step of a labelled sequence (`steps`), a position of a text
(`tokens`: the inputs are the ids up to it, oldest first), or a sample that is its own target (`autoencoder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unstuck.criterion import hot_labels
from unstuck.errors import UnstuckError
from unstuck.problem import Batch, Problem
from unstuck.sandbox import sandbox
from unstuck.tape import tensors_in

Array = np.ndarray[Any, np.dtype[Any]]

CONTEXT = 3
"""Tokens before a position that an n-gram table may look at."""

WIDEST = 20_000
"""Columns beyond which a table is no reference a laptop fits in a second or two."""

ALIKE = 0.5
"""Correlation of target and input, entry by entry, above which the target is the input again (an autoencoder; a
denoising one at a signal-to-noise ratio of 1 has 0.7)."""


@dataclass(frozen=True)
class Table:
    """Inputs [rows, columns] and targets; `narrowest`: entries a sample of the narrowest layer has; `shape`: of one
    sample as it reaches the model (several inputs: the first); `samples`: how many the rows come from; `balanced`:
    classes are scored by the mean of their recalls; `widths`: columns that each input made."""

    inputs: Array
    targets: Array
    task: str
    kind: str
    narrowest: int
    shape: tuple[int, ...]
    samples: int
    balanced: bool = False
    widths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, rows: slice) -> Table:
        """Only these rows."""
        return replace(self, inputs=self.inputs[rows], targets=self.targets[rows])

    @property
    def classes(self) -> bool:
        """True if the targets are classes."""
        return self.task == "classes"


def tabulate(problem: Problem, batches: Sequence[Batch], limit: int, widths: tuple[int, ...] = ()) -> Table:
    """The rows of up to `limit` samples. One forward pass a batch on a copy, in evaluation mode.

    `widths`: of another table that this one must have the columns of (ids that it does not know are left out).
    Raises UnstuckError where there is no target, or inputs and targets do not go together row by row.
    """
    model = problem.twin().eval()
    inputs, targets, narrowest, seen = [], [], 10**9, 0
    with sandbox(0):
        for batch in batches:
            with _arriving(model) as arrived:
                result = problem.evaluate(model, batch)
            if result.target is None or result.output is None:
                raise UnstuckError("the loss compares the output with no target that is known")
            samples = len(batch[0]) if not arrived.inputs else arrived.inputs[0].shape[0]
            inputs.append([t.detach().cpu() for t in arrived.inputs])
            targets.append(result.target.detach().cpu())
            narrowest, seen = min(narrowest, arrived.narrowest), seen + samples
            if seen >= limit:
                break
    if not inputs or not inputs[0]:
        raise UnstuckError("the model was called without a tensor")
    columns = [_joined([i[k] for i in inputs if len(i) == len(inputs[0])]) for k in range(len(inputs[0]))]
    widths = widths or tuple(map(_width, columns))
    table = _table(problem.criterion.task, columns, _joined(targets), narrowest, limit, widths)
    return replace(table, balanced=problem.criterion.balanced, widths=widths)


def _joined(parts: list[Tensor]) -> Tensor:
    same = [p for p in parts if p.dim() and p.shape[1:] == parts[0].shape[1:]]
    if not same:
        raise UnstuckError("inputs or targets are single numbers")
    return torch.cat(same)


def _table(
    task: str, columns: list[Tensor], target: Tensor, narrowest: int, limit: int, widths: tuple[int, ...]
) -> Table:
    first, shape = columns[0], tuple(columns[0].shape[1:])
    samples = first.shape[0]
    if any(c.shape[0] != samples for c in columns):
        raise UnstuckError("the model's inputs have no common number of samples")
    if len(columns) != len(widths):
        raise UnstuckError(f"the model has {len(columns)} inputs here, {len(widths)} in the table to be like")
    y, classes = _labels(task, target)
    if first.dim() == 2 and not first.is_floating_point() and y.numel() > samples and classes:
        return _tokens(first, y.reshape(-1), narrowest)
    if first.dim() == 2 and not first.is_floating_point() and classes and y.numel() == samples and _continues(first, y):
        return _next_token(first, y.reshape(-1), narrowest)
    if y.shape[0] != samples and y.numel() % samples == 0:
        y = y.reshape(samples, -1)
    if y.shape[0] != samples:
        raise UnstuckError("inputs and targets do not have the same number of rows")
    x = torch.cat([_numbers(c, width) for c, width in zip(columns, widths, strict=True)], 1)
    keep = slice(0, limit)
    if not classes:
        values = y.reshape(samples, -1)[keep].double().numpy()
        again = first.is_floating_point() and _again(first.reshape(samples, -1)[keep].double().numpy(), values)
        return Table(
            _narrow(x[keep]), values, "regression", "autoencoder" if again else "rows", narrowest, shape, samples
        )
    if y.dim() > 1 and y[0].numel() == 1:
        y = y.reshape(samples)
    if y.dim() == 1:
        return Table(_narrow(x[keep]), y[keep].numpy(), "classes", "rows", narrowest, shape, samples)
    if len(columns) == 1 and first.dim() == 3 and y.shape[1] == first.shape[1]:
        steps = first.reshape(-1, first.shape[2])
        return Table(
            _narrow(steps[:limit]), y.reshape(-1)[:limit].numpy(), "classes", "steps", narrowest, shape, samples
        )
    raise UnstuckError("there are several labels a sample: no table of rows and labels")


def _labels(task: str, target: Tensor) -> tuple[Tensor, bool]:
    """Targets as class numbers where they are classes, else as they are."""
    if task == "classes":
        return target.long(), True
    if task == "onehot":
        return hot_labels(target, target), True
    if task == "binary":
        return (target > 0.5).long(), True
    if task in {"regression", "multilabel"}:
        return target.float(), False
    raise UnstuckError("the task is not known")


def _width(column: Tensor) -> int:
    """Columns that one input makes: of ids that are counted one for each up to the largest, else −entries."""
    size = 0 if column.is_floating_point() or column.min() < 0 else int(column.max()) + 1
    return size if 0 < size <= WIDEST else -column[0].numel()


def _numbers(column: Tensor, width: int) -> Tensor:
    """[N, columns]: floats flattened; token ids counted (a bag of words)."""
    flat = column.reshape(column.shape[0], -1)
    if width < 0:
        return flat.float()
    ids = flat.long()
    known = (ids >= 0) & (ids < width)
    return torch.zeros(len(ids), width).scatter_add_(1, ids.clamp(0, width - 1), known.float())


def _narrow(x: Tensor) -> Array:
    if x.shape[1] > WIDEST:
        raise UnstuckError(f"a row has {x.shape[1]} numbers: too wide for a reference model")
    if not bool(torch.isfinite(x).all()):
        raise UnstuckError("the inputs are not all finite")
    return x.double().numpy()


def _tokens(ids: Tensor, y: Tensor, narrowest: int) -> Table:
    """Each position with the ids up to it; a target one shorter than the input is the input without its first id."""
    samples, length = ids.shape[0], y.numel() // ids.shape[0]
    if y.numel() % samples or not 0 <= ids.shape[1] - length <= 1:
        raise UnstuckError("token ids and targets do not go together position by position")
    ids = ids[:, :length].long()
    padded = torch.cat([torch.full((samples, CONTEXT - 1), -1), ids], 1)
    contexts = padded.unfold(1, CONTEXT, 1).reshape(-1, CONTEXT)
    keep = y >= 0
    return Table(contexts[keep].numpy(), y[keep].numpy(), "classes", "tokens", narrowest, (length,), samples)


def _continues(ids: Tensor, y: Tensor) -> bool:
    """True if the labels are tokens of the same alphabet: one for each text, the next one."""
    alphabet, wanted = set(ids.unique().tolist()), set(y.unique().tolist())
    return len(wanted) > 2 and len(wanted - alphabet) <= 0.1 * len(wanted) and 2 * len(wanted) >= len(alphabet)


def _next_token(ids: Tensor, y: Tensor, narrowest: int) -> Table:
    """One row a text: its last ids, and the token that follows."""
    contexts = ids[:, -CONTEXT:].long()
    if contexts.shape[1] < CONTEXT:
        raise UnstuckError("the texts are too short for a table of n-grams")
    return Table(contexts.numpy(), y.numpy(), "classes", "tokens", narrowest, tuple(ids.shape[1:]), len(ids))


def _again(x: Array, y: Array) -> bool:
    if x.shape != y.shape or x.shape[1] < 8 or x.std() == 0 or y.std() == 0:
        return False
    return bool(np.corrcoef(x.ravel(), y.ravel())[0, 1] > ALIKE)


class _Arrived:
    """What the outermost modules were given from outside, and the narrowest layer's width."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.narrowest = 10**9
        self.depth = 0


@contextmanager
def _arriving(model: nn.Module) -> Iterator[_Arrived]:
    arrived = _Arrived()

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if arrived.depth == 0:
            given = [t for t in tensors_in((args, kwargs)) if t.dim() > 0 and not t.requires_grad]
            arrived.inputs += [t for t in given if not any(t is known for known in arrived.inputs)]
        arrived.depth += 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        arrived.depth -= 1
        made = [t for t in tensors_in(output) if t.dim() > 1]
        leaf = next(module.children(), None) is None and next(module.parameters(), None) is not None
        if leaf and made:
            arrived.narrowest = min(arrived.narrowest, made[0].numel() // max(made[0].shape[0], 1))

    handles: list[Any] = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield arrived
    finally:
        for handle in handles:
            handle.remove()
