"""Recorded data as rows, so that batches of any size and order can be made from it.

A batch of a tape is a tuple of leaves. Where every leaf has `k·B` rows for a batch of B samples (inputs [B, …], token
targets flattened to [B·T]), samples can be gathered, split, shuffled and batched anew. Leaves of any other shape are
constants that every batch shares (class weights, a scale); positions 0 … B-1 (as in `p[arange(B), y]`) are made anew.

    rows = Rows.of([(x1, y1), (x2, y2)], batch=32)
    rows.batches(torch.randperm(len(rows)), size=32)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST, STEPS = 12_000, 600


def most(batch: int) -> int:
    """How many samples of the script's data are drawn: `MOST`, or as many as a copy takes in `STEPS` steps.

    What a remedy does for a training that hardly meets a sample twice does not show where a copy goes round a handful
    of batches.
    """
    return max(MOST, STEPS * batch)


@dataclass(frozen=True)
class Rows:
    """Columns [N, …] (or [N, k, …] where a leaf holds k rows a sample: `folds`), and constants (fold 0)."""

    columns: tuple[Any, ...]
    folds: tuple[int, ...]
    batch: int
    ordered: bool = False

    @classmethod
    def of(cls, batches: Sequence[Sequence[Any]], batch: int, ordered: bool = False) -> Rows | None:
        """Rows of recorded batches; None where no leaf has a multiple of its batch's samples as first dimension, or
        where most batches are shaped otherwise than the first (texts of all lengths)."""
        folds = tuple(_fold([b[place] for b in batches], batch) for place in range(len(batches[0])))
        if not any(fold > 0 for fold in folds) or batch < 1:
            return None
        usable = [b for b in batches if _fits(b, batches[0], folds)]
        if 2 * len(usable) < len(batches):
            return None
        columns = tuple(
            torch.cat([_unfolded(b[i], fold) for b in usable]) if fold > 0 else batches[0][i]
            for i, fold in enumerate(folds)
        )
        return cls(columns, folds, batch, ordered)

    def __len__(self) -> int:
        return next(len(column) for column, fold in zip(self.columns, self.folds, strict=True) if fold > 0)

    def count(self, batch: Sequence[Any]) -> int:
        """How many samples a batch of this form holds."""
        return next(int(leaf.shape[0]) // fold for leaf, fold in zip(batch, self.folds, strict=True) if fold > 0)

    def fetch(self, indices: Tensor) -> tuple[Any, ...]:
        """The batch of these samples."""
        return tuple(_fetched(column, fold, indices) for column, fold in zip(self.columns, self.folds, strict=True))

    def contents(self) -> Iterator[bytes]:
        """Each sample as its bytes: equal samples have equal ones."""
        tables = [_bytes(column) for column, fold in zip(self.columns, self.folds, strict=True) if fold > 0]
        return (b"".join(part.tobytes() for part in row) for row in zip(*tables, strict=True))

    def chosen(self, indices: Tensor) -> Rows:
        """Only these samples."""
        columns = tuple(c[indices] if fold > 0 else c for c, fold in zip(self.columns, self.folds, strict=True))
        return replace(self, columns=columns)

    def batches(self, order: Tensor, size: int = 0) -> tuple[tuple[Any, ...], ...]:
        """Batches of `size` samples (as recorded where 0) in this order; a ragged rest is dropped if others exist."""
        size = size or self.batch
        chunks = [chunk for chunk in order.split(size) if len(chunk) == size] or [order]
        return tuple(self.fetch(chunk) for chunk in chunks)

    def split(self, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Indices of training samples (in their own order if `ordered`, else mixed) and of held-out ones."""
        mixed = torch.randperm(len(self), generator=generator)
        held = max(1, round(share * len(self)))
        rest = mixed[held:]
        return (rest.sort().values if self.ordered else rest), mixed[:held]


POSITIONS = -1


def _fetched(column: Any, fold: int, indices: Tensor) -> Any:
    if fold == POSITIONS:
        return torch.arange(len(indices), device=column.device)
    if fold == 0:
        return column
    return column[indices].flatten(0, 1) if fold > 1 else column[indices]


def _fold(leaves: Sequence[Any], batch: int) -> int:
    """How many rows a sample has in the leaf at one place of the batches; 0: a constant, `POSITIONS`: 0 … B-1."""
    leaf = leaves[0]
    if not isinstance(leaf, Tensor) or leaf.dim() == 0 or batch < 1 or leaf.shape[0] % batch:
        return 0
    return POSITIONS if all(_counts_up(other) for other in leaves) else int(leaf.shape[0] // batch)


def _counts_up(leaf: Tensor) -> bool:
    return leaf.dim() == 1 and leaf.dtype == torch.int64 and bool((leaf.cpu() == torch.arange(len(leaf))).all())


def _fits(batch: Sequence[Any], first: Sequence[Any], folds: Sequence[int]) -> bool:
    """Leaves agree on the number of samples, and with the first batch on everything but that."""
    sizes = {leaf.shape[0] / fold for leaf, fold in zip(batch, folds, strict=True) if fold > 0}
    same = all(a.shape[1:] == b.shape[1:] for a, b, fold in zip(batch, first, folds, strict=True) if fold > 0)
    return same and len(sizes) == 1 and next(iter(sizes)).is_integer()


def _unfolded(leaf: Tensor, fold: int) -> Tensor:
    return leaf.reshape(-1, fold, *leaf.shape[1:]) if fold > 1 else leaf


def _bytes(column: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The memory of each row [rows, bytes], whatever the type (NumPy knows no bfloat16)."""
    flat = column.detach().cpu().contiguous().reshape(len(column), -1)
    return flat.view(torch.uint8).numpy()
