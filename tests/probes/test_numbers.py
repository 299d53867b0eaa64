"""The first call that is not finite, forwards and backwards, at hand or after training; half precision by counting."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstuck.loop import Loop
from unstuck.probes.numbers import blame, in_float32, measure
from unstuck.problem import Problem

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = X[:, :1].clone()


class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(5, 8), nn.Linear(8, 1), act

    def forward(self, x):
        return self.b(self.act(self.a(x)))


def problem(act, **options):
    torch.manual_seed(0)
    model = Net(act)
    made = Problem(
        model, nn.MSELoss(), [(X[i::4], Y[i::4]) for i in range(4)], optimizer=torch.optim.SGD(model.parameters(), 0.05)
    )
    return replace(made, loop=replace(made.loop, **options))


FORWARD = {
    "log": lambda z: torch.log(F.relu(z)),
    "exp": lambda z: torch.exp(z * 1e4),
    "div": lambda z: torch.div(z, (z - z).detach()),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward(name):
    made = problem(FORWARD[name])
    found = blame(made, made.twin(), made.data[0], 0)
    assert found.key[0] == name
    assert not found.backward


def test_backward_of_a_root_at_zero():
    made = problem(lambda z: torch.sqrt(F.relu(z)))
    found = blame(made, made.twin(), made.data[0], 0)
    assert (found.key[0], found.backward, found.low) == ("sqrt", True, 0.0)


@pytest.mark.parametrize(
    "act", [torch.tanh, lambda z: torch.sqrt(F.relu(z) + 1e-6), lambda z: F.relu(z).clamp_min(1e-6).log()]
)
def test_sound_calls_are_not_blamed(act):
    made = problem(act)
    assert blame(made, made.twin(), made.data[0], 0) is None


def test_a_mask_of_minus_infinity_is_meant_so():
    mask = torch.arange(8) > 5
    made = problem(lambda z: z.masked_fill(mask, -math.inf).softmax(-1))
    assert blame(made, made.twin(), made.data[0], 0) is None


def test_a_broken_last_state_is_reached_by_training():
    """SGD at a rate far too high for a square: the copy runs away step by step, and the last sound state is found."""
    made = problem(lambda z: z, losses=(1.0, math.nan), backwards=40, steps=40)
    made = replace(made, optimizer=made.optimizer.with_options(lr=50.0))
    made = replace(made, last={k: torch.full_like(v, math.nan) for k, v in made.last.items()})
    found = measure(made)
    assert found.broken
    assert found.origin is not None
    assert found.origin.step > 0


def test_a_sound_run_costs_nothing_and_has_no_origin():
    found = measure(problem(torch.tanh, losses=(1.0, 0.5)))
    assert (found.broken, found.origin, found.dtype) == (False, None, "")


def test_unbreakable_problems_have_no_origin():
    assert measure(problem(torch.tanh, losses=(1.0, math.nan), backwards=4)).origin is None


def test_inputs_that_are_not_finite_are_said():
    made = problem(torch.tanh, losses=(math.nan,))
    broken = (torch.full_like(X[::4], math.nan), Y[::4])
    assert not measure(replace(made, data=(broken,), recorded=())).inputs_finite


def half(dtype, lr, scale=1.0, factor=1.0):
    torch.manual_seed(0)
    model = Net(torch.tanh).to(dtype)
    data = [(X[i::4].to(dtype), Y[i::4].to(dtype)) for i in range(4)]
    loss = lambda out, y: F.mse_loss(out.float(), y.float()) * factor  # noqa: E731
    made = Problem(model, loss, data, optimizer=torch.optim.SGD(model.parameters(), lr))
    return replace(made, loop=Loop(loss_scale=scale, steps=1))


def test_steps_that_bfloat16_rounds_away_are_counted():
    lost, kept = measure(half(torch.bfloat16, 1e-5)), measure(half(torch.bfloat16, 1.0))
    assert (lost.halved, lost.dtype) == (1.0, "bfloat16")
    assert lost.stalled > 0.9
    assert kept.stalled < 0.3


def test_gradients_that_float16_flushes_are_counted_and_a_scale_keeps_them():
    lost, kept = measure(half(torch.float16, 0.1, factor=1e-8)), measure(half(torch.float16, 0.1, 65536.0, 1e-8))
    assert lost.flushed > 0.9
    assert kept.flushed < 0.2


def test_float32_widens_everything():
    made = in_float32(half(torch.bfloat16, 0.1))
    assert {p.dtype for p in made.twin().parameters()} == {torch.float32}
    assert all(t.dtype == torch.float32 for batch in (*made.data, *made.held_out) for t in batch)
    narrow = half(torch.bfloat16, 0.1)
    wide, rounded = made.value(made.twin(), made.data[0]), narrow.value(narrow.twin(), narrow.data[0])
    assert wide.item() == pytest.approx(rounded.item(), rel=0.02)


def scaled(scale, dtype=torch.float16, **options):
    return problem(torch.tanh, autocast=("cpu", dtype), loss_scale=scale, backwards=50, **options)


@pytest.mark.parametrize(("exponent", "overflown"), [(0, False), (10, False), (40, True)])
def test_a_scale_that_float16_cannot_hold_overflows(exponent, overflown):
    found = measure(scaled(2.0**exponent, stepping=False))
    assert (found.dtype, found.overflown, found.broken) == ("float16", overflown, False)


def test_a_wide_type_and_gradients_that_are_broken_without_scale_do_not_overflow():
    assert not measure(scaled(2.0**40, torch.bfloat16)).overflown
    assert not measure(problem(torch.tanh, loss_scale=2.0**40)).overflown
    broken = replace(scaled(2.0**40), loss=scaled(1.0).loss)
    broken = replace(broken, data=tuple((x, y * math.inf) for x, y in broken.data))
    assert not measure(broken).overflown
