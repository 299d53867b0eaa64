"""Graphs within a limit, and smaller pieces where memory runs out: a layer that takes so many rows and no more."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from tests.curvature.reference import Reference, apart, blobs, unit
from torch import Tensor, nn

from unstuck.curvature.measure import measurable
from unstuck.curvature.memory import Graphs, available, held_bytes, out_of_memory
from unstuck.curvature.product import Hessian
from unstuck.errors import NotMeasurable
from unstuck.problem import Problem

X, Y = blobs(29, 6)
RAGGED = list(zip(X.split(16), Y.split(16), strict=True))


class Limited(nn.Module):
    """Holds at most so many rows for a backward pass (`always`: for a forward pass too)."""

    def __init__(self, most: int, always: bool = False) -> None:
        super().__init__()
        self.most, self.always = most, always

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most and (self.always or torch.is_grad_enabled()):
            raise torch.OutOfMemoryError(f"Tried to allocate memory for {len(x)} rows")
        return x


def net(*parts: nn.Module) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 5), *parts, nn.Tanh(), nn.Linear(5, 3))


def problem(model: nn.Module, reduction: str = "mean", batches=RAGGED) -> Problem:
    return Problem(model, nn.CrossEntropyLoss(reduction=reduction), batches)


# --- out of memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("always", [False, True], ids=["backward", "forward too"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("most", [14, 5, 2])
def test_smaller_pieces_give_the_same(most: int, reduction: str, always: bool) -> None:
    free, tight = (Hessian(problem(net(*limit), reduction), double=True) for limit in ([], [Limited(most, always)]))
    v = unit(free.size)
    assert apart(tight(v), free(v)) < 1e-12 and max(tight.data.sizes) <= most and tight.rung == "recomputed"
    assert tight.slopes().loss == pytest.approx(free.slopes().loss, rel=1e-12)
    assert torch.allclose(tight.slopes().gradient, free.slopes().gradient, atol=1e-13)
    assert torch.allclose(tight.gradient_at(v, 0.3), free.gradient_at(v, 0.3), atol=1e-13)
    values = [h.losses_at(v, [0.3]) @ torch.tensor(h.data.weights, dtype=torch.float64) for h in (tight, free)]
    assert torch.allclose(*values, rtol=1e-12)


def test_single_rows_are_enough_for_the_backward_pass() -> None:
    free, tight = Hessian(problem(net()), double=True), Hessian(problem(net(Limited(1))), double=True)
    v = unit(free.size)
    assert apart(tight(v), free(v)) < 1e-12 and tight.data.sizes == (1,) * 29


def test_pieces_are_cut_in_whatever_is_asked_first() -> None:
    for ask in ("slopes", "gradient_at", "losses_at"):
        free, tight = Hessian(problem(net()), double=True), Hessian(problem(net(Limited(8))), double=True)
        v = unit(free.size)
        arguments = {"slopes": (), "gradient_at": (v, 0.2), "losses_at": (v, [0.2])}[ask]
        asked = [getattr(hessian, ask)(*arguments) for hessian in (tight, free)]
        if ask == "gradient_at":
            assert torch.allclose(*asked, atol=1e-13)
        assert apart(tight(v), free(v)) < 1e-12


@pytest.mark.parametrize("always", [False, True], ids=["backward", "forward too"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_ladder_stands_where_memory_is_short(reduction: str, always: bool) -> None:
    hessian, checks = measurable(problem(net(Limited(8, always)), reduction), double=True)
    scale = 16 if reduction == "sum" else 1
    reference = Reference(net(), F.cross_entropy, [(X, Y)])
    v = unit(hessian.size)
    assert apart(hessian(v), scale * reference.difference(v)) < 1e-6
    assert hessian.rung == "recomputed" and not checks[-1].why


def test_a_part_that_runs_short_leaves_the_whole_right() -> None:
    free, tight = Hessian(problem(net()), double=True), Hessian(problem(net(Limited(13))), double=True)
    v = unit(free.size)
    assert apart(tight.part([1])(v), free.part([1])(v)) < 1e-12
    assert apart(tight.part([0])(v), free.part([0])(v)) < 1e-12
    assert apart(tight(v), free(v)) < 1e-12


def test_one_row_that_is_too_much_is_named() -> None:
    with pytest.raises(NotMeasurable, match="out of memory on a batch of 1 that cannot be cut: Tried to allocate"):
        Hessian(problem(net(Limited(0)))).slopes()


def test_a_batch_whose_rows_belong_together_is_not_cut() -> None:
    hessian = Hessian(problem(net(nn.BatchNorm1d(5), Limited(8))))
    with pytest.raises(NotMeasurable, match="out of memory on a batch of 16 that cannot be cut"):
        hessian(torch.ones(hessian.size))


def test_other_errors_pass() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("no such kernel")
            return x

    with pytest.raises(RuntimeError, match="no such kernel"):
        Hessian(problem(net(Broken()))).slopes()


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_complaints_about_memory_are_known(error: BaseException, memory: bool) -> None:
    assert out_of_memory(error) == memory


def test_torchs_own_complaint_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.float64)
    assert out_of_memory(caught.value) or "overflow" in str(caught.value)


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0, 2.0])
def test_graphs_stay_within_their_limit(share: float) -> None:
    batches = list(zip(X.split(4), Y.split(4), strict=True))
    whole = Hessian(problem(net(), batches=batches))
    whole.slopes()
    assert len(whole.graphs.kept) == 8
    some = Hessian(problem(net(), batches=batches), memory=int(share * whole.graphs.held))
    for _ in range(2):
        assert torch.equal(some(torch.ones(some.size)), whole(torch.ones(some.size)))
    assert some.graphs.held <= some.graphs.limit
    assert len(some.graphs.kept) == 8 if share >= 1 else int(8 * share) - 1 <= len(some.graphs.kept) < 8


def test_a_graph_is_made_once_and_kept_where_there_is_room() -> None:
    x = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    graphs, made = Graphs(20_000), []

    def make() -> Tensor:
        made.append(x.exp())
        return made[-1]

    first, second, third = (graphs.get(name, make) for name in (0, 1, 2))
    assert graphs.held == 16_000 and set(graphs.kept) == {0, 1}
    assert graphs.get(0, make) is first and graphs.get(1, make) is second and len(made) == 3
    assert graphs.get(2, make) is not third and len(made) == 4
    graphs.clear()
    assert not graphs.kept and graphs.held == 0


def test_bytes_held_count_each_storage_once() -> None:
    x = torch.rand(1000, dtype=torch.float64, requires_grad=True)
    assert held_bytes(lambda: x.exp())[1] == 8000
    assert held_bytes(lambda: x * x)[1] == 8000
    assert held_bytes(lambda: x + x)[1] == 0
    assert held_bytes(lambda: x.exp() * x, besides=[x.view(-1, 2)])[1] == 8000
    assert held_bytes(lambda: x.sin().exp())[1] == 16_000  # x for the sine, and the exponential itself


def test_released_graphs_are_gone() -> None:
    """Tensors that graphs saved are as many after a release as before."""
    case = problem(net())
    Hessian(case).slopes()

    def tensors() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    before = tensors()
    for _ in range(5):
        hessian = Hessian(case)
        hessian(torch.ones(hessian.size))
        hessian.release()
        del hessian
    assert tensors() <= before


def test_sparse_gradients_can_be_kept() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    made, size = held_bytes(lambda: torch.autograd.grad(
        table(torch.tensor([0, 1])).exp().sum(), table.weight, create_graph=True
    ))  # fmt: skip
    assert made[0].is_sparse and size > 0


def test_there_is_memory() -> None:
    assert available(torch.device("cpu")) > 2**20
