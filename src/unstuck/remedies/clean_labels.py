"""Train on labels that go with their inputs: those that cross-validation believes, or one and the same a sample."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from unstuck.errors import UnstuckError
from unstuck.probes.labels import cross_validated
from unstuck.probes.redraw import calm
from unstuck.probes.references import linear
from unstuck.probes.table import Array, tabulate
from unstuck.problem import Batch, Problem
from unstuck.remedies.remedy import Remedy
from unstuck.rows import Rows

ROWS = 4000


def keep_believed() -> Remedy:
    """Only the samples whose label cross-validated predictions meet, for training and for scoring alike."""
    return Remedy(
        "clean-labels",
        "check the labels against their inputs, and leave out or relabel those that do not go together",
        "doubted = cross_val_predict(LogisticRegression(), x, y) != y  # look at these; train on the rest",
        _believed,
    )


def settle_labels(draws: int) -> Remedy:
    """One label a sample: the commonest of several draws."""
    return Remedy(
        "settle-labels",
        f"give each sample one label, whatever batch it stands in; tried here with the commonest of {draws} draws",
        "encode the labels once for the whole data set, not batch by batch",
        _settled,
    )


def _believed(problem: Problem) -> Problem:
    train = tabulate(problem, problem.data, ROWS)
    held = tabulate(problem, problem.held_out, ROWS, train.widths)
    known, codes = np.unique(train.targets, return_inverse=True)
    model = linear(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(train.inputs, codes)
    codes_held = np.searchsorted(known, held.targets).clip(0, len(known) - 1)
    keep_train = cross_validated(train).argmax(1) == codes
    keep_held = model.predict(held.inputs) == codes_held
    return replace(
        problem,
        data=_kept(problem, problem.data, keep_train),
        held_out=_kept(problem, problem.held_out, keep_held),
        rows=None,
    )


def _kept(problem: Problem, batches: Sequence[Batch], keep: Array) -> tuple[Batch, ...]:
    size = problem.rows.batch if problem.rows is not None else problem.loop.batch_size
    rows = Rows.of(batches, min(size, len(batches[0][0])))
    if rows is None or len(rows) < len(keep) or keep.sum() < 8:
        raise UnstuckError("the samples cannot be told apart, or too few labels are believed")
    return rows.batches(torch.from_numpy(np.flatnonzero(keep)), min(size, int(keep.sum())))


def _settled(problem: Problem) -> Problem:
    batches = calm(problem)
    if len(batches) < 4:
        raise UnstuckError("too few samples were drawn again to train on")
    keep = len(batches) - max(1, len(batches) // 4)
    return replace(problem, data=batches[:keep], held_out=batches[keep:], rows=None)
