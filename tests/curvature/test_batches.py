"""Weights that make batches the mean over samples, and the reduction found by trying."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import blobs
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.curvature.batches import Data, data_of, halves, merged, reduction, rows
from unstuck.curvature.product import Hessian
from unstuck.errors import BadArgument
from unstuck.problem import Problem, distinct

X, Y = blobs(13, 6)
RAGGED = list(zip(X.split(5), Y.split(5), strict=True))


def problem(*between: nn.Module, loss=None, batches=RAGGED) -> Problem:
    torch.manual_seed(2)
    return Problem(nn.Sequential(nn.Linear(6, 5), *between, nn.Linear(5, 3)), loss or nn.CrossEntropyLoss(), batches)


def data(case: Problem) -> Data:
    return Hessian(case).data


def summed(batch: tuple) -> float:
    return float(sum(t.sum() for t in batch))


def averaged(batch: tuple) -> float:
    return float(sum(t.mean() for t in batch))


# --- reduction --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_", [2, 3, 8])
def test_the_reduction_is_found_by_halves(rows_: int) -> None:
    batch = (1 + torch.rand(rows_, 2, generator=torch.Generator().manual_seed(0)), torch.ones(rows_))
    assert reduction(batch, averaged) == "mean"
    assert reduction(batch, summed) == "sum"
    assert reduction(batch, lambda batch: float(batch[0].max())) == "unknown"


def test_what_halves_do_not_tell_is_unknown() -> None:
    assert reduction((torch.ones(1, 2), torch.ones(1)), averaged) == "unknown"

    def sized(batch: tuple) -> float:
        return float(batch[0].reshape(8, 2).mean())

    assert reduction((torch.ones(8, 2),), sized) == "unknown"


LOSSES = {
    "mean": (nn.CrossEntropyLoss(), "mean"),
    "none": (nn.CrossEntropyLoss(reduction="none"), "mean"),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), "sum"),
    "half of a sum": (lambda output, y: F.cross_entropy(output, y, reduction="sum") / 2, "sum"),
    "mean of an output of many": (lambda output, y: ((output - y.unsqueeze(1)) ** 2).mean(), "mean"),
    "weighed by class": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 10.0, 0.1])), "unknown"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_reduction_of_a_loss_decides_the_weights(name: str) -> None:
    loss, kind = LOSSES[name]
    found = data(problem(loss=loss))
    assert found.reduction == kind and found.sizes == (5, 5, 3) and found.samples == 13 and found.names == (0, 1, 2)
    expected = (5 / 13,) * 3 if kind == "sum" else (5 / 13, 5 / 13, 3 / 13)
    assert found.weights == pytest.approx(expected)


@pytest.mark.parametrize("between", [nn.Dropout(0.3), nn.BatchNorm1d(5)], ids=["dropout", "batch norm"])
def test_a_summed_loss_is_known_where_rows_are_not_independent(between: nn.Module) -> None:
    """Halves do not agree to rounding then, but a sum is still twice as large as a mean of its halves."""
    found = data(problem(between, loss=nn.CrossEntropyLoss(reduction="sum")))
    assert found.weights == pytest.approx((5 / 13,) * 3)
    found = data(problem(between, loss=nn.CrossEntropyLoss()))
    assert found.weights == pytest.approx((5 / 13, 5 / 13, 3 / 13))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_the_problems_own_batches_are_taken_with_those_held_out() -> None:
    batches = list(zip(*(torch.cat([t, t + 1]).split(5) for t in (X, Y % 2)), strict=True))
    case = problem(batches=batches)
    assert len(case.held_out) == 1 and len(batches) == 6
    assert data(case).sizes == (5, 5, 5, 5, 5, 1)
    assert Hessian(case, RAGGED[2:]).data.sizes == (3,)
    assert Hessian(case, DataLoader(TensorDataset(X, Y), batch_size=4)).data.sizes == (4, 4, 4, 1)


def test_batches_that_were_recorded_again_and_again_count_once() -> None:
    assert data(problem(batches=[*RAGGED, (X[:5].clone(), Y[:5].clone()), *RAGGED])).sizes == (5, 5, 3)
    flipped = (X[:5].flip(0), Y[:5].flip(0))  # the same sums, other rows
    assert torch.equal(first_input(data(problem(batches=[flipped, RAGGED[0], flipped]))), flipped[0])
    assert len(distinct([flipped, RAGGED[0], flipped])) == 2
    assert len(distinct([(X, X), (X.long(), X), (X, Y), (X[:4], Y)])) == 4
    assert len(distinct([(X * torch.nan, Y)] * 2)) == 2
    assert Hessian(problem(), RAGGED * 2).data.sizes == (5, 5, 3, 5, 5, 3), "batches handed in stay as they are"


def test_no_batch_is_an_error_that_says_so() -> None:
    with pytest.raises(BadArgument, match="`batches` holds no batch"):
        Hessian(problem(), [])


def test_data_is_taken_as_it_is() -> None:
    found = data(problem())
    assert data_of(problem(), averaged, found) is found


def test_rows_and_halves_cut_every_tensor_of_the_batchs_length() -> None:
    weight = torch.ones(3)
    batch = (X, {"mask": Y, "weight": weight, "number": 4}, Y)
    first, second = halves(batch)
    assert torch.equal(first[0], X[:6]) and torch.equal(second[0], X[6:])
    assert torch.equal(first[1]["mask"], Y[:6]) and first[1]["weight"] is weight and first[1]["number"] == 4
    assert torch.equal(rows(batch, slice(2, 4))[2], Y[2:4])
    assert halves((X[:1], Y[:1])) is None


# --- parts and halves -------------------------------------------------------------------------------------------------


def total(found: Data, case: Problem) -> float:
    hessian = Hessian(case, double=True)
    return sum(w * hessian.value(tuple(batch)) for w, batch in zip(found.weights, found.batches, strict=True))


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_halves_have_the_loss_of_the_whole(kind: str) -> None:
    case = problem(loss=nn.CrossEntropyLoss(reduction=kind))
    whole = data(case)
    half = whole.halved()
    quarter = half.halved()
    assert half.sizes == (2, 3, 2, 3, 1, 2) and quarter.sizes == (1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1)
    assert whole.scale == half.scale == (5.0 if kind == "sum" else 1.0)
    for part in (half, quarter, half.part(range(6)), whole.part([2, 1, 0])):
        assert total(part, case) == pytest.approx(total(whole, case), rel=1e-12)
    assert len(set(whole.names + half.names + quarter.names)) == 3 + 6 + 11
    assert sum(whole.shares) == pytest.approx(1.0) and quarter.shares[3] == pytest.approx(2 / 13)
    assert len(quarter.halved().sizes) == 13 and quarter.halved().halved() is None


def test_data_is_cut_into_at_least_so_many_batches() -> None:
    whole = data(problem())
    assert whole.cut(3) is whole and len(whole.cut(4).sizes) == 6 and len(whole.cut(99).sizes) == 13
    assert data(problem(nn.BatchNorm1d(5))).halved() is None


@pytest.mark.parametrize("kind", ["mean", "sum"])
def test_a_part_is_scaled_as_the_whole(kind: str) -> None:
    case = problem(loss=nn.CrossEntropyLoss(reduction=kind))
    whole = data(case)
    losses = [total(whole.part([i]), case) for i in range(3)]
    assert sum(s * loss for s, loss in zip(whole.shares, losses, strict=True)) == pytest.approx(total(whole, case))
    pair = whole.part([2, 0])
    assert pair.names == (2, 0) and pair.sizes == (3, 5) and torch.equal(first_input(pair), X[10:])
    assert whole.halved().part([0, 3]).scale == whole.scale


def first_input(found: Data) -> Tensor:
    return next(iter(found.batches))[0]


def few_rows(size, model=None, loss=None):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(384, 6, generator=generator), torch.randn(384, 1, generator=generator)
    data = list(zip(x.split(size), y.split(size), strict=True))
    case = Problem(model or nn.Linear(6, 1), loss or nn.MSELoss(), data[: 384 // size])
    return replace(case, data=tuple(data), held_out=())


def test_small_batches_are_joined_where_that_leaves_the_mean_as_it_is():
    small = few_rows(4)
    joined = merged(small)
    assert [len(x) for x, _ in joined.data] == [256]
    large = few_rows(64)
    assert merged(large) is large


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 1)), None),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 1)), None),
        (None, nn.MSELoss(reduction="sum")),
    ],
    ids=["batch statistics", "dropout", "a sum"],
)
def test_losses_that_depend_on_the_batch_are_left(model, loss):
    case = few_rows(4, model, loss)
    assert merged(case) is case
