"""η² by brute force; sorted data shows, mixed data does not, labels and tokens and values alike."""


import pytest
import torch
from torch import nn

from unstuck.criterion import prepared
from unstuck.errors import UnstuckError
from unstuck.probes.order import between, measure
from unstuck.problem import Problem

X = torch.randn(320, 4, generator=torch.Generator().manual_seed(0))


def problem(y, order, loss, width, size=16):
    data = [(X[i], y[i]) for i in order.split(size)]
    made = Problem(nn.Linear(4, width), loss, data)
    return prepared(made)


TARGETS = {
    "classes": (torch.arange(320) % 5, nn.CrossEntropyLoss(), 5),
    "values": (torch.linspace(0, 1, 320)[torch.randperm(320, generator=torch.Generator().manual_seed(1))][:, None],
               nn.MSELoss(), 1),
    "bits": ((torch.arange(320) % 2).float()[:, None], nn.BCEWithLogitsLoss(), 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_sorted_and_mixed(kind):
    y, loss, width = TARGETS[kind]
    ordered = measure(problem(y, y.flatten().argsort(), loss, width))
    mixed = measure(problem(y, torch.randperm(320), loss, width))
    assert ordered.excess > 0.95
    assert ordered.between > ordered.largest
    assert abs(mixed.excess) < 0.06
    assert mixed.between <= 1.2 * mixed.largest


def test_brute_force():
    rows = torch.randn(12, 3, dtype=torch.double)
    sizes = [5, 4, 3]
    total = ((rows - rows.mean(0)) ** 2).sum()
    expected = sum(
        n * ((part.mean(0) - rows.mean(0)) ** 2).sum() for n, part in zip(sizes, rows.split(sizes), strict=True)
    )
    assert between(rows, sizes) == pytest.approx(float(expected / total))
    assert between(torch.ones(6, 2), [3, 3]) == 0.0


def test_too_few_batches():
    y, loss, width = TARGETS["classes"]
    with pytest.raises(UnstuckError, match="their order needs"):
        measure(problem(y, torch.arange(320), loss, width, size=80))
